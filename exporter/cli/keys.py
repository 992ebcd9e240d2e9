"""``exporter keys``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edge_runtime.errors import InputError
from exporter.cli.options import ask, first_line, json_option, passphrase_options, passphrase_variable
from exporter.cli.output import emit


@click.group()
def keys() -> None:
    """Make release keys: ECDSA P-256, one key a file, one role a key."""


@keys.command()
@click.option(
    "--out",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File of the private key; the public one gets .pub behind its name.",
)
@click.option("--role", type=click.Choice(["root", "targets"]), required=True, help="What the key is for.")
@passphrase_options
@passphrase_variable
@click.option("--no-passphrase", is_flag=True, help="Leave the key open. For demos.")
@json_option
def create(
    file: Path, role: str, passphrase_file: Path | None, passphrase: str | None, no_passphrase: bool, as_json: bool
) -> None:
    """Make a key in a file for its owner only, and the public half beside it.

    Keep root keys offline: they are needed when keys change and every two years. Targets keys sign each release.
    """
    from exporter.keys import PUBLIC_SUFFIX, Role, create_key

    secret: bytes | None = None
    if not no_passphrase:
        secret = _new_passphrase(file, passphrase_file, passphrase)
    chosen: Role = "root" if role == "root" else "targets"
    key = create_key(file, chosen, secret)
    if no_passphrase:
        click.echo(f"exporter: {file} has no passphrase: whoever reads the file can sign as you.", err=True)
    public = file.with_name(file.name + PUBLIC_SUFFIX)
    key_id = key.public.tuf.keyid
    value: dict[str, object] = {
        "private": str(file),
        "public": str(public),
        "role": role,
        "key_id": key_id,
        "encrypted": secret is not None,
    }
    emit(value, [f"{role} key {key_id[:16]} made: {file} (keep it secret), {public} (give it away)"], as_json)


def _new_passphrase(path: Path, passphrase_file: Path | None, variable: str | None) -> bytes:
    if passphrase_file is not None:
        return first_line(passphrase_file, "passphrase").encode()
    if variable:
        return variable.encode()
    if not sys.stdin.isatty():
        raise InputError(
            "The key needs a passphrase, and there is no terminal to ask on.",
            advice="Give --passphrase-file, set STELLA_KEY_PASSPHRASE, or say --no-passphrase for a demo.",
        )
    return ask(f"New passphrase for {path}", twice=True).encode()
