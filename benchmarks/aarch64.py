"""The same verdicts on Arm, emulated: ``python -m benchmarks.aarch64``; not among those that ``make bench`` runs.

It needs, once, root on Debian or Ubuntu, for packages of another processor::

    apt-get install qemu-user-static debootstrap
    python -m benchmarks.aarch64 --prepare      # Debian's Python, and the wheels of this environment, for aarch64

Models are made here from a simulated fleet and, where it is beside the checkout, from cmapss; ``--models FOLDER`` adds
others, a folder for each set with ``windows.npy`` and any number of ``.onnx`` files. All forms of a model are scored
here and by ONNX Runtime's aarch64 build under qemu, which runs every Arm instruction in software: figures are of
agreement, and no time is taken.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import data
from benchmarks.elsewhere import score_all
from benchmarks.harness import Cell, Report, readable, write_result
from benchmarks.machine import REPOSITORY

QUESTION = "Does a model give the same verdicts on aarch64 as here: 2,000 windows of each data set, every form."
WINDOWS = 2_000
EMULATOR = REPOSITORY / "build" / "aarch64"
# An Arm core as phones had them in 2016, without dot-product instructions, and one with all that qemu knows: ONNX
# Runtime picks other integer kernels on them.
CORES = ("cortex-a72", "max")
# The tolerance of golden windows (contract, Golden windows).
RAW_TOLERANCE = 1e-5
_TOOLS = ("qemu-aarch64-static", "debootstrap", "dpkg-deb")
_PACKAGES = "python3,libstdc++6,libgomp1"
_WHEELS = ("numpy", "onnxruntime")
# qemu 7 shows the host's /proc/cpuinfo, and onnxruntime's cpuinfo library crashes on one that is not Arm's.
_CPUINFO = """\
processor\t: 0
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3
"""
_COLUMNS = ("data set", "form", "core", "windows", "anomalies", "largest raw difference", "bit-equal", "other verdicts")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--prepare", is_flag=True, help="Fetch Python, numpy and onnxruntime for aarch64, and stop.")
@click.option("--models", type=click.Path(path_type=Path, exists=True, file_okay=False), help="More models to compare.")
def main(prepare: bool, models: Path | None) -> None:
    """Score the same windows here and on an emulated Arm core."""
    if prepare:
        prepare_emulator()
        return
    if not (EMULATOR / "site" / "onnxruntime").is_dir() or shutil.which(_TOOLS[0]) is None:
        raise click.ClickException("Not available here: run 'python -m benchmarks.aarch64 --prepare' first.")
    report = Report("aarch64", QUESTION)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "sets")
        make_sets(report, Path(name), folder)
        if models is not None:
            shutil.copytree(models, folder, dirs_exist_ok=True)
        measure(report, folder, {core: emulated(core) for core in CORES})
    result = report.to_dict() | {"command": "python -m benchmarks.aarch64"}
    click.echo(readable(result))
    click.echo(f"written to {write_result(result)}", err=True)


def prepare_emulator() -> None:
    """Make the folder that qemu runs from: unpacked Debian packages, unpacked wheels, an Arm /proc/cpuinfo."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise click.ClickException(f"{', '.join(missing)} is missing: apt-get install qemu-user-static debootstrap")
    root, site = EMULATOR / "root", EMULATOR / "site"
    shutil.rmtree(EMULATOR, ignore_errors=True)
    options = ["--download-only", "--arch=arm64", "--variant=minbase", f"--include={_PACKAGES}"]
    subprocess.run(["debootstrap", *options, "bookworm", str(root)], check=True)
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
    for name, text in (("proc/cpuinfo", _CPUINFO), *((f"sys/devices/system/cpu/{n}", "0\n") for n in _CPU_FILES)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    with tempfile.TemporaryDirectory() as wheels:
        subprocess.run([*_pip_download(), "--dest", wheels], check=True)
        for wheel in sorted(Path(wheels).glob("*.whl")):
            zipfile.ZipFile(wheel).extractall(site)


_CPU_FILES = ("possible", "present")


def _pip_download() -> list[str]:
    """Return the command that fetches the wheels of this environment for Debian 12's Python on aarch64."""
    platforms = [f"--platform=manylinux_2_{glibc}_aarch64" for glibc in (17, 27, 28, 34)]
    wanted = [f"{name}=={metadata.version(name)}" for name in _WHEELS]
    python = ["--python-version=3.11", "--implementation=cp", "--abi=cp311", "--only-binary=:all:", "--no-deps"]
    return [sys.executable, "-m", "pip", "download", "--quiet", *platforms, *python, *wanted]


def emulated(core: str) -> list[str]:
    """Return the command of a Python on an emulated core."""
    root = EMULATOR / "root"
    return ["qemu-aarch64-static", "-L", str(root), "-cpu", core, str(root / "usr/bin/python3.11")]


def make_sets(report: Report, work: Path, folder: Path) -> None:
    """Build models and save each form and the windows to score: a folder for each data set."""
    for name, built, windows in _builds(report, work):
        where = folder / name
        where.mkdir(parents=True)
        chosen = np.unique(np.linspace(0, len(windows) - 1, WINDOWS).round().astype(np.int64))
        np.save(where / "windows.npy", windows.take(chosen).windows())
        for form, graph in built.candidates.items():
            (where / f"{form}.onnx").write_bytes(graph)


def _builds(report: Report, work: Path) -> Iterator[tuple[str, Any, Any]]:
    from benchmarks.cmapss import CONTEXT
    from benchmarks.models import build_phones, settings, windows_of
    from exporter.dataset import read_fleet
    from exporter.model_build import build_models

    report.progress("building a model of simulated phones")
    phones = build_phones(work)
    yield "phones", phones.built, windows_of(phones.fleet, phones.built)
    if not data.available():
        report.note(data.MISSING)
        return
    report.progress("building the default model of cmapss")
    source = data.data_folder("cmapss")
    spec = settings(source / "readings.parquet", source / "labels.parquet", work, name="cmapss", context=CONTEXT)
    built = build_models(spec, progress=None).models[0]
    yield "cmapss", built, windows_of(read_fleet(spec.data), built)


def measure(report: Report, folder: Path, pythons: Mapping[str, list[str]]) -> None:
    """Score every set here and by other Pythons, and report how far they agree.

    Args:
        report: Gets the figures.
        folder: A folder for each set.
        pythons: Command of each other Python, by the name of its processor core.
    """
    report.progress("scoring here")
    score_all(folder, "here")
    rows: list[list[Cell]] = []
    for core, command in pythons.items():
        report.progress(f"scoring on {core}")
        said = _run_elsewhere(command, folder, core)
        report.note(f"{core}: {said['machine']}, Python {said['python']}, onnxruntime {said['onnxruntime']}, emulated.")
        rows += [compare(path, core) for path in sorted(folder.glob("*/*.onnx"))]
    report.table("The same windows here and on aarch64", _COLUMNS, rows)
    report.figure(
        "largest difference of raw scores", max(float(str(row[5])) for row in rows), "", at_most=RAW_TOLERANCE
    )
    report.figure("other verdicts", sum(int(str(row[7])) for row in rows), "", at_most=0)


def _run_elsewhere(command: list[str], folder: Path, core: str) -> dict[str, Any]:
    # OPENBLAS_CORETYPE and the like name x86 cores.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OPENBLAS_", "PYTHON"))}
    environment["PYTHONPATH"] = os.pathsep.join((str(EMULATOR / "site"), str(REPOSITORY)))
    done = subprocess.run(
        [*command, "-m", "benchmarks.elsewhere", str(folder), core],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def compare(model: Path, core: str) -> list[Cell]:
    """Return the table's row of one model: what was scored here beside what was scored on a core."""
    here, there = (np.load(model.with_name(f"{model.stem}.{tag}.npz"), allow_pickle=False) for tag in ("here", core))
    difference = np.abs(here["raw_score"] - there["raw_score"])
    return [
        model.parent.name,
        model.stem,
        core,
        int(difference.size),
        int(here["is_anomaly"].sum()),
        float(difference.max()),
        f"{np.mean(difference == 0):.2%}",
        int((here["is_anomaly"] != there["is_anomaly"]).sum()),
    ]


if __name__ == "__main__":
    main()
