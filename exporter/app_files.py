"""What an app needs of a bundle to score by itself, as plain files: the graph, the golden windows and how to use them.

For apps that carry ONNX Runtime themselves and do not run ``edge_runtime`` (docs/mobile-apps.md). The bundle stays
what is signed and verified; these files are copies for a build.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import onnx

from edge_runtime.contract.archive import MANIFEST_NAME
from edge_runtime.contract.bundle import GOLDEN_NAME, GOLDEN_SPEC_NAME, MODEL_NAME, Bundle
from edge_runtime.scoring import Scorer, check_golden
from exporter.errors import ConversionError

ORT_NAME = "model.ort"
OPERATORS_NAME = "required_operators.config"
README_NAME = "README.md"
# What an export may hold besides what it always holds: what of this is not wanted must not stay from an earlier one.
OPTIONAL_NAMES = (MODEL_NAME, ORT_NAME, OPERATORS_NAME)
Optimization = Literal["fixed", "runtime"]
# onnxruntime's tool takes half a second for 300 trees.
_CONVERSION_SECONDS = 300


def app_files(
    bundle: Bundle, *, with_onnx: bool, with_ort: bool, with_operators: bool, optimization: Optimization, verified: str
) -> dict[str, bytes]:
    """Make the files for an app.

    Args:
        bundle: The opened bundle.
        with_onnx: Whether the graph is wanted as it is.
        with_ort: Whether it is wanted in ONNX Runtime's own format, for minimal builds.
        with_operators: Whether the configuration of a reduced build is wanted.
        optimization: ``fixed`` for the CPU, ``runtime`` where NNAPI or Core ML may take nodes.
        verified: A sentence on who vouches for the bundle, for the README.

    Returns:
        Contents by name; ``manifest.json``, both golden files and ``README.md`` are always among them.

    Raises:
        ConversionError: ONNX Runtime's tool fails.
        ScoringError: The converted graph fails the bundle's golden windows.
    """
    model = bundle.files[MODEL_NAME]
    files = {name: bundle.files[name] for name in (MANIFEST_NAME, GOLDEN_SPEC_NAME, GOLDEN_NAME)}
    if with_onnx:
        files[MODEL_NAME] = model
    if with_ort or with_operators:
        ort, config = _converted(model, optimization)
        if with_ort:
            check_golden(Scorer(ort), bundle.golden, bundle.files[GOLDEN_NAME])
            files[ORT_NAME] = ort
        if with_operators:
            files[OPERATORS_NAME] = operators_config(model, config)
    files[README_NAME] = _readme(bundle, files, verified).encode()
    return files


def operators_config(model: bytes, converted: str = "") -> bytes:
    """Write what a reduced build of ONNX Runtime must contain to load a graph: as it is and, if given, converted.

    Optimising a graph changes its operators, so a build made for one form may lack what the other needs.

    Args:
        model: The ONNX graph.
        converted: The tool's configuration for the converted graph.

    Returns:
        Lines of ``domain;version;operator,operator``
        (https://onnxruntime.ai/docs/reference/operators/reduced-operator-config-file.html).
    """
    graph = onnx.load_model_from_string(model)
    opsets = {entry.domain: entry.version for entry in graph.opset_import}
    found: dict[tuple[str, int], set[str]] = defaultdict(set)
    for node in graph.graph.node:
        version = opsets[node.domain]
        if node.domain in ("", "ai.onnx", "ai.onnx.ml"):  # of others only onnxruntime knows when an operator changed
            version = onnx.defs.get_schema(node.op_type, version, node.domain).since_version
        found[node.domain or "ai.onnx", version].add(node.op_type)
    for line in converted.splitlines():
        if line and not line.startswith("#"):
            domain, version, names = line.split(";", 2)
            found[domain, int(version)] |= set(names.split(","))
    lines = [f"{domain};{version};{','.join(sorted(names))}" for (domain, version), names in sorted(found.items())]
    return ("\n".join(lines) + "\n").encode()


def _converted(model: bytes, optimization: Optimization) -> tuple[bytes, str]:
    """Run onnxruntime's converter in a process of its own, whose noise ends there; returns the graph and its config."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / MODEL_NAME).write_bytes(model)
        style = optimization.capitalize()
        command = ["-m", "onnxruntime.tools.convert_onnx_models_to_ort", MODEL_NAME, "--optimization_style", style]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ORT_CONVERT_")}
        try:
            done = subprocess.run(
                [sys.executable, *command],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=_CONVERSION_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _failed(f"it took more than {_CONVERSION_SECONDS} s") from error
        graphs, configs = sorted(folder.glob("*.ort")), sorted(folder.glob("*.config"))
        if done.returncode or not graphs or not configs:
            raise _failed((done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1][:300])
        return graphs[0].read_bytes(), configs[0].read_text("utf-8")


def _failed(why: str) -> ConversionError:
    return ConversionError(
        f"onnxruntime's converter could not make an .ort file of the bundle's graph: {why}.",
        advice="Ship model.onnx, which needs no conversion.",
    )


def _readme(bundle: Bundle, files: Mapping[str, bytes], verified: str) -> str:
    manifest, rule = bundle.manifest, bundle.manifest.window
    signals = "\n".join(
        f"{number}. `{signal.name}`{f' ({signal.unit})' if signal.unit else ''}"
        for number, signal in enumerate(manifest.signals)
    )
    sizes = "\n".join(f"- `{name}`, {len(content):,} bytes" for name, content in sorted(files.items()))
    return f"""\
# {manifest.model} {manifest.version} for apps

Release {manifest.release_number}, {"all devices" if manifest.cohort is None else f"cohort {manifest.cohort}"}, \
{manifest.precision}. Bundle {bundle.digest}. {verified}

{sizes}

Input `window`: float32 [batch, {rule.slots}, {len(manifest.signals)}], oldest slot first, NaN = missing. A slot is \
{rule.interval_ms / 1000:g} s; the newest one holds the newest reading. No verdict before {rule.minimum_readings} of \
{rule.slots} slots are filled; nothing before a gap of more than {rule.largest_gap_ms / 1000:g} s is seen. Columns, in \
order:

{signals}

Outputs, each [batch, 1]: `anomaly_score` float32 from 0 to 1, `raw_score` float32, `is_anomaly` bool.

Before first use, run the {bundle.golden.windows} golden windows: raw scores within {bundle.golden.raw_tolerance:g} of \
`golden.f32`, verdicts equal. If they are not, do not use the model on that device. One thread of the CPU provider.
"""
