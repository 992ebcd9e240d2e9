"""Every setting of the server, read once at the entry point.

Order, weakest first: the defaults below, a TOML file (``DATA_DIR/server.toml`` or ``--config``), the environment
(``SYNC_SERVER_<NAME>``, and ``DATABASE_URL`` as everybody calls it), a command line flag. No other module of the
server reads the environment.

Example::

    config = load_config(data_dir=Path("var"), port=8080)
    app = create_app(config)
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import urlsplit

from edge_runtime.contract.enrolment import check_url
from edge_runtime.errors import InputError

MIB = 1024 * 1024
LEAST_KEPT_DAYS = 7  # the database's own function refuses less, too


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The settings, each with its unit in its name where it has one.

    Attributes:
        data_dir: Folder that holds keys, blobs and the embedded database.
        host: Address to listen on; anything but loopback wants a TLS proxy in front.
        port: TCP port, 0 for any free one.
        workers: Worker processes.
        threads: Threads of each worker; also bounds its database connections.
        public_url: Address that devices and browsers use, when it is not ``http://host:port``. No trailing slash.
        device_page_url: Address of the device's page when it has a host of its own, such as ``https://device.example``;
            that host answers what a device needs and nothing else. None: ``/device/`` of the server itself.
        database_url: Postgres for the running server, a role that owns nothing. None runs an embedded one.
        database_owner_url: Postgres for migrations, the role that owns the tables. None: ``database_url``.
        blobs_url: None keeps bundles in ``data_dir/blobs``; ``s3://bucket/prefix`` keeps them in S3.
        online_key: The PEM file of the key for snapshot and timestamp. None: ``data_dir/keys/online.pem``.
        trusted_proxies: How many proxies in front set ``X-Forwarded-For`` and ``-Proto``; 0 ignores the headers.
        max_body_bytes: Largest body of a request, as sent, except for publishing.
        max_publish_bytes: Largest body of ``POST /api/publish``.
        client_seconds: How long a client may be silent in the middle of a request or of its answer.
        session_hours: How long a log-in lasts.
        statement_timeout_ms: Longest database statement of a request.
        log_format: ``text`` for people, ``json`` for one object a line.
        log_requests: Which answers get a line in the log: ``none``, ``errors`` (refusals and faults) or ``all``.
        ingest_at_once: Batches that one worker stores at once; others wait a second, then get 503 with Retry-After.
        device_records_per_minute: New records that one device may send in a minute; then it gets 429 with Retry-After.
        device_records_per_hour: The same in an hour.
        device_bytes_per_hour: Bytes of batches as sent that one device may send in an hour.
        results_days: Days after which results are dropped, whole months at a time; 0 keeps them for ever.
        rollup_days: Days after which the hourly roll-up is dropped; 0 keeps it for ever.
        scoring_models: Models that each worker keeps loaded to score for clients; 0 turns that off.
        scoring_windows_per_minute: Windows that a device may have scored in a minute, by each worker; a hundred
            readings count as one.
        scoring_keep_days: How long sampled windows and their verdicts are kept.
        scoring_keep_windows: How many of them are kept at most.
        advice_url: OpenAI-compatible endpoint that writes advice, such as ``https://host/v1``. None: templates only.
        advice_model: What that endpoint calls its model.
        advice_key_file: A file with its key in the first line. None where it needs none.
        advice_seconds: Longest call of it.
        advice_wait_ms: How long a request waits for it before it shows a template.
        advice_days: How long a text is valid.
        advice_calls_per_hour: Calls of all workers together.
    """

    data_dir: Path = Path("var")
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    threads: int = 16
    public_url: str | None = None
    device_page_url: str | None = None
    database_url: str | None = None
    database_owner_url: str | None = None
    blobs_url: str | None = None
    online_key: Path | None = None
    trusted_proxies: int = 0
    max_body_bytes: int = 2 * MIB
    max_publish_bytes: int = 512 * MIB
    client_seconds: int = 30
    session_hours: int = 12
    statement_timeout_ms: int = 30_000
    log_format: str = "text"
    log_requests: str = "errors"
    ingest_at_once: int = 4
    device_records_per_minute: int = 60_000
    device_records_per_hour: int = 1_000_000
    device_bytes_per_hour: int = 256 * MIB
    results_days: int = 0
    rollup_days: int = 0
    scoring_models: int = 16
    scoring_windows_per_minute: int = 600
    scoring_keep_days: int = 14
    scoring_keep_windows: int = 100_000
    advice_url: str | None = None
    advice_model: str | None = None
    advice_key_file: Path | None = None
    advice_seconds: int = 20
    advice_wait_ms: int = 1_000
    advice_days: int = 30
    advice_calls_per_hour: int = 60

    @property
    def online_key_path(self) -> Path:
        """The PEM file that holds the online key, whether or not it exists."""
        return self.online_key or self.data_dir / "keys" / "online.pem"

    @property
    def webhooks_key_path(self) -> Path:
        """The file of the key that webhooks' secrets derive from, whether or not it exists."""
        return self.data_dir / "keys" / "webhooks.key"

    @property
    def address(self) -> str:
        """The address to tell people, without a trailing slash."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def device_address(self) -> str:
        """The address under which browsers reach the device's page and its server, without a trailing slash."""
        return self.device_page_url.rstrip("/") if self.device_page_url else self.address


_AT_LEAST_ONE = (
    "workers", "threads", "max_body_bytes", "max_publish_bytes", "client_seconds", "session_hours",
    "statement_timeout_ms", "ingest_at_once", "device_records_per_minute", "device_records_per_hour",
    "device_bytes_per_hour", "scoring_windows_per_minute", "scoring_keep_days", "scoring_keep_windows",
    "advice_seconds", "advice_days", "advice_calls_per_hour",
)  # fmt: skip

_ONE_OF = {"log_format": ("text", "json"), "log_requests": ("none", "errors", "all")}


def _convert(name: str, value: object, origin: str) -> object:
    """Return ``value`` as the type that the setting ``name`` has."""
    wanted = get_type_hints(ServerConfig)[name]
    if wanted is int:
        try:
            return int(str(value))
        except ValueError as error:
            raise InputError(
                f"The setting {name} from {origin} is {value!r}, which is no whole number.",
                advice="Give it as digits only.",
            ) from error
    text = str(value)
    if wanted == Path or wanted == (Path | None):
        return Path(text)
    return text


def _from_file(path: Path, required: bool) -> Mapping[str, object]:
    """Read the TOML file's settings; an absent file is empty unless it was named."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        if not required:
            return {}
        raise InputError(f"The configuration file {path} does not exist.", advice="Check --config.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(
            f"The configuration file {path} cannot be read: {error}.", advice="Write it as TOML, one setting a line."
        ) from error
    known = {field.name for field in fields(ServerConfig)}
    for name in document:
        if name not in known or name == "data_dir":
            raise InputError(
                f"The configuration file {path} holds {name!r}, which is no setting it may hold.",
                advice=f"The settings are: {', '.join(sorted(known - {'data_dir'}))}.",
            )
    return document


def load_config(*, file: Path | None = None, environ: Mapping[str, str] | None = None, **flags: object) -> ServerConfig:
    """Put the settings together: defaults < file < environment < flags.

    Args:
        file: A TOML file. None: ``server.toml`` in the data folder, if it is there.
        environ: The environment; None takes the process's own.
        **flags: Settings from the command line; None means "not given".

    Returns:
        The settings, with ``data_dir`` absolute.

    Raises:
        InputError: A setting that does not exist, has the wrong type or makes no sense.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    data_dir = flags.get("data_dir") or environ.get("SYNC_SERVER_DATA_DIR") or ServerConfig().data_dir
    path = file or Path(str(data_dir)) / "server.toml"
    for name, value in _from_file(path, required=file is not None).items():
        values[name] = _convert(name, value, str(path))
    if environ.get("DATABASE_URL"):
        values["database_url"] = environ["DATABASE_URL"]
    for field in fields(ServerConfig):
        variable = f"SYNC_SERVER_{field.name.upper()}"
        if environ.get(variable):
            values[field.name] = _convert(field.name, environ[variable], variable)
    for name, value in flags.items():
        if value is not None:
            values[name] = _convert(name, value, f"--{name.replace('_', '-')}")
    values["data_dir"] = Path(str(data_dir)).absolute()
    config = ServerConfig(**values)
    _check(config)
    return config


def _check(config: ServerConfig) -> None:
    """Refuse settings that make no sense, before anything starts."""
    for name in _AT_LEAST_ONE:
        if getattr(config, name) < 1:
            raise InputError(f"The setting {name} is {getattr(config, name)}.", advice="It must be at least 1.")
    for name, allowed in _ONE_OF.items():
        if getattr(config, name) not in allowed:
            raise InputError(
                f"The setting {name} is {getattr(config, name)!r}.", advice=f"Use one of: {', '.join(allowed)}."
            )
    for name in ("results_days", "rollup_days"):
        if getattr(config, name) != 0 and getattr(config, name) < LEAST_KEPT_DAYS:
            raise InputError(
                f"The setting {name} is {getattr(config, name)}.",
                advice=f"It must be at least {LEAST_KEPT_DAYS}, or 0 to keep everything.",
            )
    for name in ("scoring_models", "advice_wait_ms"):
        if getattr(config, name) < 0:
            raise InputError(f"The setting {name} is {getattr(config, name)}.", advice="It must be at least 0.")
    if not 0 <= config.port <= 65_535:
        raise InputError(f"The port {config.port} does not exist.", advice="Use 0 to 65535.")
    if config.public_url and not config.public_url.startswith(("http://", "https://")):
        raise InputError(
            f"The public address {config.public_url} is no web address.", advice="Start it with https:// or http://."
        )
    if config.device_page_url:
        _check_device_page(config, config.device_page_url)
    if config.database_owner_url and not config.database_url:
        raise InputError(
            "database_owner_url is set, but database_url is not.",
            advice="Set DATABASE_URL as well: the role that the running server uses.",
        )
    _check_advice(config)


def _check_device_page(config: ServerConfig, url: str) -> None:
    """Refuse an address that is none, or whose host would share the operators' cookies (those do not look at ports)."""
    check_url(url)
    if urlsplit(url).path.rstrip("/") or urlsplit(url).hostname == urlsplit(config.address).hostname:
        raise InputError(
            f"The device page's address {url} is not a host of its own.",
            advice="Give it a host name that operators do not use, and no path: https://device.example.",
        )


def _check_advice(config: ServerConfig) -> None:
    """Refuse an endpoint whose key anybody on the way could read, or one that is named by half."""
    if config.advice_url is None:
        return
    try:
        parts = urlsplit(config.advice_url)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    except ValueError:  # an unclosed bracket
        parts, local = urlsplit(""), False
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and local)) or parts.query:
        raise InputError(
            f"The advice endpoint {config.advice_url} cannot be used.",
            advice="Give it as https://host/v1; plain http is for this machine only.",
        )
    if not config.advice_model:
        raise InputError("advice_url is set, but advice_model is not.", advice="Name the endpoint's model.")
