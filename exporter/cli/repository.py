"""``exporter repository``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from exporter.cli.options import (
    connect,
    json_option,
    now,
    passphrase_options,
    passphrase_source,
    passphrase_variable,
    required_url,
    server_option,
    token_options,
)
from exporter.cli.output import emit

if TYPE_CHECKING:
    from exporter.keys import PublicKey, ReleaseKey, Role

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_ONLINE = "The server's public key in PEM, as 'sync-server online-key' prints it."


@click.group()
def repository() -> None:
    """Make and keep the TUF repository folder: who may sign, and what is listed."""


@repository.command()
@click.argument("folder", type=_FOLDER)
@click.option("--root-key", type=_FILE, multiple=True, required=True, help="Root key, private or .pub. Repeatable.")
@click.option("--targets-key", type=_FILE, multiple=True, required=True, help="Targets key or its .pub. Repeatable.")
@click.option("--online-key", type=_FILE, required=True, help=_ONLINE)
@click.option("--root-threshold", type=click.IntRange(min=1), default=1, show_default=True, help="Root signatures.")
@click.option("--targets-threshold", type=click.IntRange(min=1), default=1, show_default=True, help="For releases.")
@passphrase_options
@passphrase_variable
@json_option
def create(
    folder: Path,
    root_key: tuple[Path, ...],
    targets_key: tuple[Path, ...],
    online_key: Path,
    root_threshold: int,
    targets_threshold: int,
    passphrase_file: Path | None,
    passphrase: str | None,
    as_json: bool,
) -> None:
    """Write the first root into FOLDER, signed with the private root keys given.

    Of keys that belong to somebody else, give the .pub file; 'exporter sign FOLDER' adds their signature.
    """
    from exporter.keys import load_public_key
    from exporter.repository import create_repository

    roots, signers = _keys(root_key, "root", passphrase_file, passphrase, load_private=True)
    targets, _ = _keys(targets_key, "targets", passphrase_file, passphrase, load_private=False)
    metadata = create_repository(
        folder,
        root_keys=roots,
        targets_keys=targets,
        online_key=load_public_key(online_key),
        signers=signers,
        root_threshold=root_threshold,
        targets_threshold=targets_threshold,
        now=now(),
    )
    missing = root_threshold - len(metadata.signatures)
    value = {
        "folder": str(folder),
        "root_version": 1,
        "expires": metadata.signed.expires.isoformat(),
        "signatures_missing": max(0, missing),
    }
    lines = [f"{folder} made; root is valid until {metadata.signed.expires:%Y-%m-%d}."]
    if missing > 0:
        lines.append(f"{missing} root signature(s) are missing: exporter sign {folder} --key FILE")
    emit(value, lines, as_json)


@repository.command()
@click.argument("folder", type=_FOLDER)
@click.option("--root-key", type=_FILE, multiple=True, required=True, help="Private key that signs. Repeatable.")
@click.option("--online-key", type=_FILE, help="A new one. " + _ONLINE)
@click.option("--new-root-key", type=_FILE, multiple=True, help="Root key (.pub) from now on. Repeatable.")
@click.option("--new-targets-key", type=_FILE, multiple=True, help="Targets key (.pub) from now on. Repeatable.")
@passphrase_options
@passphrase_variable
@json_option
def renew(
    folder: Path,
    root_key: tuple[Path, ...],
    online_key: Path | None,
    new_root_key: tuple[Path, ...],
    new_targets_key: tuple[Path, ...],
    passphrase_file: Path | None,
    passphrase: str | None,
    as_json: bool,
) -> None:
    """Write the next root: two more years, and other keys where some are given in place of the present ones.

    Give --root-key of the old and of the new root keys. The root reaches the server with the next release; after a
    change of targets keys 'exporter release prepare --renew' makes one.
    """
    from exporter.keys import load_public_key
    from exporter.repository import load_repository, renew_root

    _, signers = _keys(root_key, "root", passphrase_file, passphrase, load_private=True)
    metadata = renew_root(
        load_repository(folder, strict=False),
        signers=signers,
        now=now(),
        online_key=None if online_key is None else load_public_key(online_key),
        root_keys=_keys(new_root_key, "root", passphrase_file, passphrase, load_private=False)[0],
        targets_keys=_keys(new_targets_key, "targets", passphrase_file, passphrase, load_private=False)[0],
    )
    value = {"root_version": metadata.signed.version, "expires": metadata.signed.expires.isoformat()}
    emit(value, [f"Root {metadata.signed.version} is valid until {metadata.signed.expires:%Y-%m-%d}."], as_json)


@repository.command()
@click.argument("folder", type=_FOLDER)
@server_option
@token_options
@json_option
def update(
    folder: Path,
    url: str | None,
    token_file: Path | None,
    token: str | None,
    allow_insecure_http: bool,
    as_json: bool,
) -> None:
    """Bring FOLDER to what the server holds, verified: do so when a colleague published."""
    from exporter.publish import update_repository
    from exporter.repository import load_repository

    server = connect(required_url(url), token_file, token, allow_insecure_http)
    updated = update_repository(server, load_repository(folder, strict=False))
    version = 0 if updated.targets is None else updated.targets.signed.version
    value = {"root_version": len(updated.roots), "targets_version": version, "bundles": len(updated.customs)}
    emit(value, [f"{folder} holds root {len(updated.roots)} and targets {version}."], as_json)


def _keys(
    paths: tuple[Path, ...], role: Role, passphrase_file: Path | None, variable: str | None, *, load_private: bool
) -> tuple[list[PublicKey], list[ReleaseKey]]:
    """Return the public halves of key files, and the private ones where they are wanted and given.

    A private file whose public half is all that is needed is not opened when its ``.pub`` lies beside it.
    """
    from exporter.files import read_bytes
    from exporter.keys import PUBLIC_SUFFIX, load_key, load_public_key, require_role

    public: list[PublicKey] = []
    private: list[ReleaseKey] = []
    for path in paths:
        beside = path.with_name(path.name + PUBLIC_SUFFIX)
        if b"PUBLIC KEY-----" in read_bytes(path):
            key = load_public_key(path)
        elif not load_private and beside.is_file():
            key = load_public_key(beside)
        else:
            loaded = load_key(path, passphrase_source(path, passphrase_file, variable))
            private.append(loaded)
            key = loaded.public
        require_role(key, role, path)
        public.append(key)
    return public, private
