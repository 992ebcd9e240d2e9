"""Options that several commands share, each defined once."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.errors import InputError

if TYPE_CHECKING:
    from exporter.config import ModelSpec
    from exporter.keys import ReleaseKey
    from exporter.parallel import Workers
    from exporter.server import Server

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
config_option = click.option(
    "--config", type=_FILE, default=Path("model.toml"), show_default=True, help="Settings of the model."
)
out_option = click.option("--out", type=_FOLDER, required=True, help="Folder to write to.")
repository_option = click.option(
    "--repository", type=_FOLDER, envvar="STELLA_REPOSITORY", help="Repository folder.  [env: STELLA_REPOSITORY]"
)
public_keys_option = click.option(
    "--public-key",
    "public_keys",
    type=_FILE,
    multiple=True,
    help="Accept this targets key (its .pub file). Repeatable.",
)
keep_option = click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Newest releases that stay listed although no channel runs them.",
)
version_option = click.option("--version", help="Label of the release.  [default: its number]")
release_number_option = click.option(
    "--release-number", type=click.IntRange(min=1), help="What orders releases.  [default: one more than the last]"
)
source_option = click.option("--source-revision", help="Revision of data and settings, for provenance.json.")


max_bad_rows_option = click.option(
    "--max-bad-rows", type=click.FloatRange(0, 1), help="Share of rows that may be set aside."
)


class Share(click.ParamType[int]):
    """A share of devices: ``25%`` or ten-thousandths such as ``2500``."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return ten-thousandths."""
        if isinstance(value, int):
            return value
        if match := re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,2})?)%", value):
            share = round(float(match.group(1)) * 100)
        elif re.fullmatch(r"[0-9]{1,5}", value):
            share = int(value)
        else:
            self.fail(f"{value!r} is no share; give one such as 25% or 2500 (ten-thousandths)", param, ctx)
        if share > 10_000:
            self.fail(f"{value!r} is more than all devices", param, ctx)
        return share


class Moment(click.ParamType[datetime]):
    """A time: ISO 8601 (no zone means UTC) or seconds since 1970."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time with its zone."""
        if isinstance(value, datetime):
            return value
        try:
            if re.fullmatch(r"[0-9]{1,12}", value):
                return datetime.fromtimestamp(int(value), UTC)
            moment = datetime.fromisoformat(value)
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value!r} is no time; give one such as 2026-11-23T12:00:00Z", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


created_option = click.option(
    "--created",
    type=Moment(),
    envvar="SOURCE_DATE_EPOCH",
    help="Time to write into provenance.json; without it no time is inside.  [env: SOURCE_DATE_EPOCH]",
)


def with_bad_rows(spec: ModelSpec, max_bad_rows: float | None) -> ModelSpec:
    """Return settings with another share of rows that may be set aside; None keeps it."""
    return spec if max_bad_rows is None else replace(spec, data=replace(spec.data, max_bad_rows=max_bad_rows))


def combined(*options: Decorator) -> Decorator:
    """Return one decorator for several options, shown in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


passphrase_options = click.option(
    "--passphrase-file",
    type=_FILE,
    help="File with the passphrase of the key; else STELLA_KEY_PASSPHRASE, else you are asked.",
)
passphrase_variable = click.option("--passphrase", envvar="STELLA_KEY_PASSPHRASE", hidden=True, expose_value=True)

targets_key_options = combined(
    click.option("--targets-key", "targets_key_file", type=_FILE, help="Private targets key."),
    click.option("--keys", "keys_folder", type=_FOLDER, help="Folder with targets.key, instead of --targets-key."),
    passphrase_options,
    passphrase_variable,
)

allow_below_goals_option = click.option(
    "--allow-below-goals",
    is_flag=True,
    help="Pack a model that misses its goals, and write so into its manifest.  [default: refuse, exit code 8]",
)
workers_options = combined(
    click.option(
        "--jobs",
        type=click.IntRange(min=1),
        help="Models built side by side, a thread each.  [default: one a core, as memory allows]",
    ),
    click.option("--dask", metavar="ADDRESS", help="Build on a Dask cluster, such as tcp://10.0.0.5:8786."),
)
insecure_option = click.option(
    "--allow-insecure-http", is_flag=True, help="Send the token over plain http to another machine."
)
token_options = combined(
    click.option("--token-file", type=_FILE, help="File with the publisher token; else STELLA_TOKEN."),
    click.option("--token", envvar="STELLA_TOKEN", hidden=True),
    insecure_option,
)
server_option = click.option("--server", "url", envvar="STELLA_SERVER", help="The server's URL.  [env: STELLA_SERVER]")


def passphrase_source(path: Path, passphrase_file: Path | None, variable: str | None) -> Callable[[], bytes]:
    """Return what finds a key's passphrase when it is needed: file, then environment, then a prompt.

    Args:
        path: The key, for the prompt.
        passphrase_file: A file with the passphrase in its first line.
        variable: The value of STELLA_KEY_PASSPHRASE.
    """

    def find() -> bytes:
        if passphrase_file is not None:
            return first_line(passphrase_file, "passphrase").encode()
        if variable:
            return variable.encode()
        if not sys.stdin.isatty():
            raise InputError(
                f"{path} needs a passphrase, and there is no terminal to ask on.",
                advice="Give --passphrase-file, or set STELLA_KEY_PASSPHRASE.",
            )
        return ask(f"Passphrase of {path}").encode()

    return find


def ask(question: str, *, twice: bool = False) -> str:
    """Ask for a secret on the terminal; ``twice`` guards a new one against slips."""
    answer: str = click.prompt(question, hide_input=True, confirmation_prompt=twice, err=True)
    return answer


def first_line(path: Path, what: str) -> str:
    """Return the first line of a file that holds a secret.

    Raises:
        InputError: The file cannot be read or the line is empty.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            line = stream.readline(4096).strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The {what} file {path} cannot be read: {error}.", advice="Check the name.") from error
    if not line:
        raise InputError(f"The {what} file {path} is empty.", advice=f"Write the {what} into its first line.")
    return line


def targets_key(
    key_file: Path | None, folder: Path | None, passphrase_file: Path | None, variable: str | None
) -> ReleaseKey:
    """Load the private targets key that the options name.

    Raises:
        InputError: No key is named, or the file is something else.
        TrustError: The passphrase is wrong.
    """
    from exporter.keys import load_key, require_role

    path = key_file or (folder / "targets.key" if folder is not None else None)
    if path is None:
        raise InputError(
            "A bundle is signed, and no key is given.",
            advice="Give --targets-key; 'exporter keys create --role targets --out targets.key' makes one.",
        )
    key = load_key(path, passphrase_source(path, passphrase_file, variable))
    require_role(key, "targets", path)
    return key


def workers_of(jobs: int | None, dask: str | None) -> Workers | None:
    """Return who builds the models; None where nothing was asked for."""
    from exporter.parallel import Workers

    return None if jobs is None and dask is None else Workers(jobs, dask)


def connect(url: str, token_file: Path | None, token: str | None, allow_insecure_http: bool) -> Server:
    """Return the server of a URL, with the token that the options name.

    Raises:
        InputError: No token, or no URL.
        TrustError: The token would travel over plain http.
    """
    from exporter.server import Server

    secret = first_line(token_file, "token") if token_file is not None else token
    if not secret:
        raise InputError(
            "No publisher token is given.",
            advice="Give --token-file, or set STELLA_TOKEN; 'sync-server token create' makes one.",
        )
    return Server(url, secret.strip(), allow_insecure_http=allow_insecure_http)


def required_url(url: str | None) -> str:
    """Return the URL.

    Raises:
        InputError: None is given.
    """
    if not url:
        raise InputError("No server is named.", advice="Give --server URL, or set STELLA_SERVER.")
    return url


def required_folder(folder: Path | None) -> Path:
    """Return the repository folder.

    Raises:
        InputError: None is given.
    """
    if folder is None:
        raise InputError("No repository folder is named.", advice="Give --repository, or set STELLA_REPOSITORY.")
    return folder


def now() -> datetime:
    """Return the present time; metadata expires, so publishing needs a clock. Bundles never see it."""
    return datetime.now(UTC)
