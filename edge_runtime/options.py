"""What all commands share: the options every one has, logging to stderr, results to stdout, progress on a terminal."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from typing import Any

import click

from edge_runtime.config import LOG_LEVELS, Config, load_config

Command = Callable[..., Any]
# Shorter downloads are over before a person looks.
PROGRESS_AFTER_SECONDS = 0.5


def device_options(*settings: str) -> Callable[[Command], Command]:
    """Give a command ``--home``, ``--config``, ``--log-level``, ``--json`` and a flag for each named setting.

    The command receives ``config`` (the merged :class:`Config`) and ``as_json`` in their place.

    Args:
        *settings: Names of further settings that the command offers as flags.

    Returns:
        A decorator, to be put below ``@click.command``.
    """
    known = {setting.name: setting for setting in fields(Config)}

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_config(**given: Any) -> None:
            flags = {name: given.pop(name) for name in ("home", "config", "log_level", *settings)}
            config = load_config(flags, os.environ)
            set_up_logging(config.log_level)
            command(config=config, as_json=given.pop("as_json"), **given)

        options: list[Callable[[Command], Command]] = [
            click.option("--home", metavar="DIR", help="Folder that the device lives in.  [default: ~/.stella-edge]"),
            click.option("--config", metavar="FILE", help="TOML file of settings.  [default: edge-runtime.toml there]"),
            *(_flag(known[name]) for name in settings),
            click.option("--log-level", type=click.Choice(LOG_LEVELS), help="Least important messages on stderr."),
            click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        ]
        decorated: Command = with_config
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def _flag(setting: Field[Any]) -> Callable[[Command], Command]:
    name, text = setting.name, setting.metadata["help"]
    option = "--" + name.replace("_", "-")
    sentence = text[0].upper() + text[1:] + "."
    if isinstance(setting.default, bool):
        return click.option(option, name, is_flag=True, default=None, help=sentence)
    return click.option(option, name, metavar="VALUE", help=sentence)


def set_up_logging(level: str) -> None:
    """Send log messages to stderr, so that stdout holds results and nothing else."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("edge_runtime").setLevel(level.upper())


def show(fields: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Print a result: one JSON object for machines, or sentences for people."""
    click.echo(json.dumps(fields, ensure_ascii=False) if as_json else text)


def download_progress() -> Callable[[int, int], None] | None:
    """Return a display of bytes on stderr, or None when nobody looks at a terminal."""
    if not sys.stderr.isatty():
        return None
    started = time.monotonic()
    shown = False

    def display(done: int, total: int) -> None:
        nonlocal shown
        if time.monotonic() - started < PROGRESS_AFTER_SECONDS and not shown:
            return
        shown = True
        end = "\n" if done == total else ""
        share = done / total if total else 1
        sys.stderr.write(f"\rdownloading {done:,} of {total:,} bytes ({share:.0%}){end}")
        sys.stderr.flush()

    return display
