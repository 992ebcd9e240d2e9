"""What all commands share: the options every one has, logs to stderr, results to stdout."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sync_server import logs
from sync_server.config import load_config

Command = Callable[..., Any]


def server_options(command: Command) -> Command:
    """Give a command ``--data-dir``, ``--config``, ``--json``; it receives ``config`` and ``as_json`` instead."""

    @functools.wraps(command)
    def with_config(
        data_dir: Path | None, config_file: Path | None, as_json: bool, host: str | None = None,
        port: int | None = None, workers: int | None = None, threads: int | None = None,
        public_url: str | None = None, **rest: Any,
    ) -> Any:  # fmt: skip
        config = load_config(
            file=config_file, data_dir=data_dir, host=host, port=port, workers=workers, threads=threads,
            public_url=public_url,
        )  # fmt: skip
        logs.configure(config.log_format)
        return command(config=config, as_json=as_json, **rest)

    decorated: Command = with_config
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option("--config", "config_file", type=click.Path(path_type=Path), help="A TOML file with settings."),
        click.option("--data-dir", type=click.Path(path_type=Path), help="Keys, bundles and database. [default: var]"),
    ):
        decorated = option(decorated)
    return decorated


def show(result: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Print a result: the text for people, or the object for machines."""
    click.echo(json.dumps(result, ensure_ascii=False, default=str) if as_json else text)
