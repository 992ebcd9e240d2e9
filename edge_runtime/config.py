"""One frozen configuration, built once at the entry point: defaults < file < environment < flag.

The file is TOML: the one named by ``--config`` or ``EDGE_RUNTIME_CONFIG``, else ``edge-runtime.toml`` in the home
folder when there is one. In the environment every setting is ``EDGE_RUNTIME_`` and its name in capitals. No other
module reads the environment.

Example::

    config = load_config({"home": "/var/lib/stella-edge"}, os.environ)
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from edge_runtime.errors import InputError
from edge_runtime.files import translated

PREFIX = "EDGE_RUNTIME_"
FILE_NAME = "edge-runtime.toml"
_YES, _NO = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}
LOG_LEVELS = ("debug", "info", "warning", "error")


def _flag(value: object) -> bool:
    text = str(value).strip().lower()
    if text not in _YES | _NO:
        raise ValueError("is not yes or no")
    return text in _YES


def _positive(value: object) -> float:
    number = float(str(value))
    if not 0 < number < float("inf"):
        raise ValueError("is not a positive number")
    return number


def _count(value: object) -> int:
    number = int(str(value))
    if number < 1:
        raise ValueError("is not a whole number of 1 or more")
    return number


def _level(value: object) -> str:
    text = str(value).lower()
    if text not in LOG_LEVELS:
        raise ValueError(f"is none of {', '.join(LOG_LEVELS)}")
    return text


def _path(value: object) -> Path:
    if not str(value):
        raise ValueError("is empty")
    return Path(str(value)).expanduser()


def _as(parse: Callable[[object], object], text: str) -> dict[str, Any]:
    return {"parse": parse, "help": text}


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting of the device; each field's help text is what the README prints."""

    home: Path = field(default=Path.home() / ".stella-edge", metadata=_as(_path, "folder that the device lives in"))
    readings: Path | None = field(
        default=None, metadata=_as(_path, "file of readings that `run` follows; standard input without it")
    )
    allow_insecure_http: bool = field(
        default=False, metadata=_as(_flag, "let tokens travel over plain http to another machine")
    )
    ca_file: Path | None = field(
        default=None, metadata=_as(_path, "PEM file of certificate authorities in place of the system's")
    )
    connect_timeout_seconds: float = field(default=10.0, metadata=_as(_positive, "longest wait for a connection"))
    read_timeout_seconds: float = field(
        default=20.0, metadata=_as(_positive, "longest silence of a server in the middle of an answer")
    )
    request_deadline_seconds: float = field(
        default=60.0, metadata=_as(_positive, "longest time for one API answer as a whole")
    )
    download_deadline_seconds: float = field(
        default=900.0, metadata=_as(_positive, "longest time for one bundle; the rest is resumed")
    )
    sync_interval_seconds: float = field(
        default=300.0, metadata=_as(_positive, "time between two looks for a new release in `run`")
    )
    upload_interval_seconds: float = field(default=60.0, metadata=_as(_positive, "time between two uploads in `run`"))
    refuse_below_goals: bool = field(
        default=False, metadata=_as(_flag, "refuse a release whose manifest says that it misses goals of its makers")
    )
    batch_records: int = field(
        default=2000, metadata=_as(_count, "most records in one upload request (the server takes 5,000)")
    )
    log_level: str = field(
        default="info", metadata=_as(_level, "least important messages on standard error: " + ", ".join(LOG_LEVELS))
    )


def load_config(flags: Mapping[str, object], environ: Mapping[str, str]) -> Config:
    """Merge the four layers into one configuration.

    Args:
        flags: Settings given on the command line (None = not given), and ``config`` for the file.
        environ: The process environment.

    Raises:
        InputError: A file that cannot be read, an unknown setting, or a value that is not allowed.
    """
    environment = _from_environment(environ)
    given = {name: value for name, value in flags.items() if value is not None and name != "config"}
    home = _parsed("home", {**environment, **given}.get("home", Config().home), "the command line")
    named = flags.get("config") or environ.get(PREFIX + "CONFIG")
    path = Path(str(named)) if named else Path(str(home)) / FILE_NAME
    layers = [("environment", environment), ("command line", given)]
    if named or path.exists():
        layers.insert(0, (str(path), _from_file(path)))
    settings: dict[str, Any] = {}
    for source, layer in layers:
        settings |= {name: _parsed(name, value, source) for name, value in layer.items()}
    return Config(**settings)


def _names() -> dict[str, Callable[[object], object]]:
    return {setting.name: setting.metadata["parse"] for setting in fields(Config)}


def _from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    return {name: environ[PREFIX + name.upper()] for name in _names() if PREFIX + name.upper() in environ}


def _from_file(path: Path) -> dict[str, object]:
    try:
        with translated(path):
            return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"The configuration {path} is not valid TOML: {error}.",
            advice="Correct the file; the README lists every setting with its default.",
            path=str(path),
        ) from error


def _parsed(name: str, value: object, source: str) -> object:
    parse = _names().get(name)
    if parse is None:
        raise InputError(
            f"The setting {name!r} in {source} is unknown.",
            advice=f"Known settings: {', '.join(_names())}.",
            setting=name,
        )
    try:
        return parse(value)
    except ValueError as error:
        raise InputError(
            f"The setting {name} = {value!r} from {source} cannot be used: it {error}.",
            advice="The README lists every setting with its default.",
            setting=name,
        ) from error
