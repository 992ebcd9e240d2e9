"""``exporter build``."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.errors import InputError
from exporter.cli.options import (
    Share,
    allow_below_goals_option,
    config_option,
    connect,
    created_option,
    json_option,
    keep_option,
    max_bad_rows_option,
    now,
    out_option,
    release_number_option,
    repository_option,
    source_option,
    targets_key,
    targets_key_options,
    token_options,
    version_option,
    with_bad_rows,
    workers_of,
    workers_options,
)
from exporter.cli.output import emit, progress_display, report_console
from exporter.cli.training import train_models

if TYPE_CHECKING:
    from exporter.config import ModelSpec
    from exporter.parallel import Workers
    from exporter.pipeline import ReleaseOptions


@click.command()
@config_option
@out_option
@targets_key_options
@repository_option
@click.option("--publish", "url", help="Server to publish to.")
@token_options
@click.option("--channel", help="Channel of the rollout.  [default: the first in model.toml]")
@click.option("--share", type=Share(), help="Devices that get it at once, such as 10%.  [default: no rollout]")
@release_number_option
@version_option
@created_option
@source_option
@keep_option
@max_bad_rows_option
@allow_below_goals_option
@workers_options
@json_option
def build(config: Path, max_bad_rows: float | None, **options: Any) -> None:
    """Train, convert, quantize, prove, pack, sign and publish, as far as the options go.

    OUT gets bundles/, report.json and, with --repository, a release folder. With --publish the server gets the
    release, with --share devices get it.
    """
    from exporter.config import load_spec

    return build_spec(with_bad_rows(load_spec(config), max_bad_rows), **options)


def build_spec(
    spec: ModelSpec,
    *,
    out: Path,
    targets_key_file: Path | None,
    keys_folder: Path | None,
    passphrase_file: Path | None,
    passphrase: str | None,
    repository: Path | None,
    url: str | None,
    token_file: Path | None,
    token: str | None,
    allow_insecure_http: bool,
    channel: str | None,
    share: int | None,
    release_number: int | None,
    version: str | None,
    created: datetime | None,
    source_revision: str | None,
    keep: int,
    allow_below_goals: bool,
    jobs: int | None,
    dask: str | None,
    as_json: bool,
) -> None:
    """Build what the settings say, as far as the options go; raises the ``StellaError`` of the step that refuses."""
    from exporter.pipeline import ReleaseOptions

    if share is not None and url is None:
        raise InputError("A rollout needs a server.", advice="Give --publish URL, or leave --share out.")
    options = ReleaseOptions(
        out=out,
        key=targets_key(targets_key_file, keys_folder, passphrase_file, passphrase),
        now=now(),
        repository=repository,
        server=None if url is None else connect(url, token_file, token, allow_insecure_http),
        channel=channel,
        share=share,
        release_number=release_number,
        version=version,
        created=created,
        source=source_revision,
        keep=keep,
        allow_below_goals=allow_below_goals,
    )
    return run_build(spec, options, workers_of(jobs, dask), as_json)


def run_build(spec: ModelSpec, options: ReleaseOptions, workers: Workers | None, as_json: bool) -> None:
    """Build, write report.json and show the report."""
    from exporter.files import write_bytes
    from exporter.pipeline import build_release
    from exporter.provenance import readable_json
    from exporter.report import print_report, report_dict

    with progress_display() as show:
        outcome = build_release(spec, options, train=partial(train_models, workers=workers), progress=show)
    report = report_dict(outcome)
    write_bytes(options.out / "report.json", readable_json(report))
    if as_json:
        return emit(report, [], as_json)
    return print_report(outcome, report_console())
