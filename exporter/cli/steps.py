"""``exporter train``, ``convert``, ``quantize`` and ``pack``: the build in steps, over a work folder.

No trained model lies on disk as a pickle. ``train`` therefore makes and proves every form at once, since calibration
and proof need what was trained; ``convert`` and ``quantize`` choose the form that is shipped.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exporter.cli.options import (
    allow_below_goals_option,
    config_option,
    created_option,
    json_option,
    max_bad_rows_option,
    now,
    out_option,
    release_number_option,
    repository_option,
    source_option,
    targets_key,
    targets_key_options,
    version_option,
    with_bad_rows,
    workers_of,
    workers_options,
)
from exporter.cli.output import emit, progress_display, report_console
from exporter.cli.training import train_models

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.built import BuiltModel

_WORK = click.argument("work", type=click.Path(path_type=Path, file_okay=False))


@click.command()
@config_option
@out_option
@max_bad_rows_option
@workers_options
@json_option
def train(
    config: Path, out: Path, max_bad_rows: float | None, jobs: int | None, dask: str | None, as_json: bool
) -> None:
    """Train, make every form and prove it; write the models and their figures to the work folder OUT."""
    from exporter.config import load_spec
    from exporter.report import build_dict, print_build
    from exporter.work_folder import SavedBuild, save_build

    spec = with_bad_rows(load_spec(config), max_bad_rows)
    with progress_display() as show:
        build = train_models(spec, show, workers_of(jobs, dask))
    save_build(SavedBuild(build, spec.to_dict()), out)
    report = build_dict(build)
    if as_json:
        return emit({"folder": str(out), **report}, [], as_json)
    console = report_console()
    print_build(report, console)
    return console.print(f"Next: exporter pack {out} --targets-key FILE --out DIR", markup=False)


@click.command()
@_WORK
@json_option
def convert(work: Path, as_json: bool) -> None:
    """Ship the fp32 graph of every model in WORK: the trained model, converted exactly."""
    _choose(work, lambda _: "fp32", as_json)


@click.command()
@_WORK
@click.option("--form", help="Which form.  [default: the smallest that keeps the goals]")
@json_option
def quantize(work: Path, form: str | None, as_json: bool) -> None:
    """Ship a smaller form of every model in WORK; 'exporter train' lists them."""
    from exporter.work_folder import smallest_form

    _choose(work, smallest_form if form is None else lambda _: form, as_json)


def _choose(work: Path, form_of: Callable[[BuiltModel], str], as_json: bool) -> None:
    from exporter.card_figures import flatten
    from exporter.work_folder import choose_form, load_build, save_model

    rows: list[dict[str, Any]] = []
    lines = []
    for model in load_build(work).build.models:
        chosen = choose_form(model, form_of(model))
        save_model(chosen, work)
        sets = dict(chosen.parity["candidates"][chosen.form]["sets"])
        rows.append({"cohort": model.cohort, "form": chosen.form, "bytes": len(chosen.model_onnx), "sets": sets})
        figures = ", ".join(f"{name} {value}" for name, value in flatten(sets))
        lines.append(f"{model.cohort or 'default'}: ships {chosen.form}, {len(chosen.model_onnx):,} bytes. {figures}")
    emit({"folder": str(work), "models": rows}, lines, as_json)


@click.command()
@_WORK
@out_option
@targets_key_options
@repository_option
@release_number_option
@version_option
@created_option
@source_option
@allow_below_goals_option
@json_option
def pack(
    work: Path,
    out: Path,
    targets_key_file: Path | None,
    keys_folder: Path | None,
    passphrase_file: Path | None,
    passphrase: str | None,
    repository: Path | None,
    release_number: int | None,
    version: str | None,
    created: datetime | None,
    source_revision: str | None,
    allow_below_goals: bool,
    as_json: bool,
) -> None:
    """Pack every model in WORK into a signed bundle in OUT/bundles."""
    from exporter.pipeline import BUNDLES, ReleaseOptions, look_up, pack_build
    from exporter.work_folder import load_build

    saved = load_build(work)
    options = ReleaseOptions(
        out=out,
        key=targets_key(targets_key_file, keys_folder, passphrase_file, passphrase),
        now=now(),
        repository=repository,
        release_number=release_number,
        version=version,
        created=created,
        source=source_revision,
        allow_below_goals=allow_below_goals,
    )
    name = str(saved.settings["model"]["name"])
    desk = look_up(name, tuple(saved.settings["release"]["channels"]), options)
    packed = pack_build(name, dict(saved.settings), saved.build, options, desk)
    value = {
        "model": name,
        "version": desk.version,
        "release_number": desk.release_number,
        "bundles": [
            {"file": str(out / BUNDLES / one.path), "digest": one.digest, "bytes": len(one.data)} for one in packed
        ],
    }
    lines = [f"{len(one.data):>9,} bytes  {out / BUNDLES / one.path}" for one in packed]
    bundles = " ".join(f"--bundle {out / BUNDLES / one.path}" for one in packed)
    emit(value, [*lines, f"Next: exporter release prepare {out / 'release'} {bundles}"], as_json)
