"""``exporter import``: ``exporter build`` with a model that was trained elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exporter.cli.build import build, build_spec
from exporter.cli.options import with_bad_rows

if TYPE_CHECKING:
    from exporter.spec import HigherIs


# Whatever build does with a model once it is trained, import does as well.
@click.command("import", params=list(build.params))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--input", "entry", help="Its input.  [default: the only one]")
@click.option("--output", help="Its output that scores.  [default: the only one]")
@click.option(
    "--higher-is",
    type=click.Choice(["anomalous", "healthy"]),
    required=True,
    help="What a higher score of the model means.",
)
@click.option("--column", type=click.IntRange(0, 1), help="Column of an output of two, such as class probabilities.")
@click.option("--impute", is_flag=True, help="Put the training mean where a value is missing.")
def import_model(
    file: Path,
    entry: str | None,
    output: str | None,
    higher_is: HigherIs,
    column: int | None,
    impute: bool,
    config: Path,
    max_bad_rows: float | None,
    **options: Any,
) -> None:
    """Pack a model trained elsewhere (FILE, an ONNX model), with calibration and proof from your data.

    The settings say data, window, features and calibration; their [detector] is not used. The model gets the features
    as [batch, features], or as [batch, slots, signals] when it takes whole windows.
    """
    from exporter.config import load_spec
    from exporter.importing import read_foreign
    from exporter.spec import DetectorSpec, OnnxSpec

    spec = with_bad_rows(load_spec(config), max_bad_rows)
    foreign = OnnxSpec(file, entry, output, higher_is, column, impute)
    read_foreign(foreign)  # what is wrong with the file is said before any telemetry is read
    return build_spec(replace(spec, detector=DetectorSpec("onnx", seed=spec.detector.seed, onnx=foreign)), **options)
