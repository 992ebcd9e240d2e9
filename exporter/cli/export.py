"""``exporter export``: a bundle's graph as plain files, for apps that carry ONNX Runtime themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from exporter.cli.options import json_option, out_option, public_keys_option, repository_option
from exporter.cli.output import emit

if TYPE_CHECKING:
    from exporter.app_files import Optimization


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, dir_okay=False))
@out_option
@click.option("--onnx", is_flag=True, help="Write model.onnx.  [default when neither --onnx nor --ort is given]")
@click.option("--ort", is_flag=True, help="Write model.ort, for minimal builds; larger than .onnx for trees.")
@click.option("--required-operators", is_flag=True, help="Write required_operators.config, for reduced builds.")
@click.option(
    "--optimization",
    type=click.Choice(["fixed", "runtime"]),
    default="fixed",
    show_default=True,
    help="Of the .ort file: fixed for the CPU, runtime where NNAPI or Core ML may take nodes.",
)
@public_keys_option
@repository_option
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
@json_option
def export(
    bundle: Path,
    out: Path,
    onnx: bool,
    ort: bool,
    required_operators: bool,
    optimization: Optimization,
    public_keys: tuple[Path, ...],
    repository: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write what an app needs to score with BUNDLE by itself into the folder OUT (docs/mobile-apps.md).

    The manifest, the golden windows and a README of inputs and outputs are always among the files. With --public-key
    or --repository the bundle is verified first; without, the files say that nobody vouches for it.
    """
    from edge_runtime.contract.bundle import MODEL_NAME
    from exporter.app_files import OPTIONAL_NAMES, ORT_NAME, app_files
    from exporter.cli.audit import open_or_verify
    from exporter.files import write_folder

    opened, checks = open_or_verify(bundle, public_keys, repository)
    verified = "Verified before export." if checks else "Not verified: nothing says who made it."
    files = app_files(
        opened,
        with_onnx=onnx or not ort,
        with_ort=ort,
        with_operators=required_operators,
        optimization=optimization,
        verified=verified,
    )
    write_folder(out, files, overwrite=overwrite, instead_of=OPTIONAL_NAMES)
    sizes = {name: len(content) for name, content in sorted(files.items())}
    lines = [f"{verified}", *(f"{size:>11,}  {out / name}" for name, size in sizes.items())]
    plain = len(opened.files[MODEL_NAME])
    if ort and sizes[ORT_NAME] > plain:
        lines.append(
            f"model.ort is {sizes[ORT_NAME] / plain:.1f} times as large as model.onnx: only a minimal build needs it."
        )
    emit({"folder": str(out), "verified": bool(checks), "digest": opened.digest, "files": sizes}, lines, as_json)
