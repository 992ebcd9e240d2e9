"""``exporter release prepare``, ``sign`` and ``publish``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.errors import InputError
from exporter.cli.options import (
    connect,
    json_option,
    keep_option,
    now,
    passphrase_options,
    passphrase_source,
    passphrase_variable,
    repository_option,
    required_folder,
    required_url,
    server_option,
    token_options,
)
from exporter.cli.output import emit

if TYPE_CHECKING:
    from exporter.release import ReleaseSummary

_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def release() -> None:
    """Prepare a release folder, which travels from signer to signer and then to the server."""


@release.command()
@click.argument("folder", type=_FOLDER)
@click.option("--bundle", "bundles", type=_FILE, multiple=True, help="A bundle. Repeatable.")
@click.option("--renew", is_flag=True, help="No bundle: sign the present list anew, for another year or new keys.")
@repository_option
@click.option("--channel", "channels", multiple=True, default=("stable",), show_default=True, help="May run it.")
@click.option("--minimum-release", type=click.IntRange(min=1), help="No device may run an older release from now on.")
@keep_option
@server_option
@token_options
@json_option
def prepare(
    folder: Path,
    bundles: tuple[Path, ...],
    renew: bool,
    repository: Path | None,
    channels: tuple[str, ...],
    minimum_release: int | None,
    keep: int,
    url: str | None,
    token_file: Path | None,
    token: str | None,
    allow_insecure_http: bool,
    as_json: bool,
) -> None:
    """Write FOLDER: the bundles, and targets metadata that lists them, unsigned.

    With --server, releases that no channel runs or may go back to are withdrawn, but for the newest --keep.
    """
    from edge_runtime.contract.bundle import open_bundle
    from exporter.files import read_bytes
    from exporter.publish import server_state, update_repository
    from exporter.release import prepare_release
    from exporter.repository import load_repository

    if renew == bool(bundles):
        raise InputError("A release holds bundles, or renews the list.", advice="Give --bundle, or --renew.")
    if renew and minimum_release is not None:
        raise InputError("A floor belongs to a model.", advice="Raise it with the next release of the model.")
    known = load_repository(required_folder(repository), strict=False)
    in_use = None
    if url:
        server = connect(url, token_file, token, allow_insecure_http)
        state = server_state(server)
        in_use = state.in_use
        if state.targets_version:
            known = update_repository(server, known)
    data = [read_bytes(path) for path in bundles]
    floor = {} if minimum_release is None else {open_bundle(data[0]).manifest.model: minimum_release}
    summary = prepare_release(
        known,
        data,
        folder,
        channels=channels,
        now=now(),
        keep=keep,
        in_use=in_use,
        minimum_release=floor,
        renew=renew,
    )
    emit(summary.to_dict(), [*describe(summary), f"Next: exporter sign {folder} --key targets.key"], as_json)


@click.command()
@click.argument("folder", type=_FOLDER)
@click.option("--key", "key_files", type=_FILE, multiple=True, required=True, help="Private key. Repeatable.")
@passphrase_options
@passphrase_variable
@json_option
def sign(
    folder: Path, key_files: tuple[Path, ...], passphrase_file: Path | None, passphrase: str | None, as_json: bool
) -> None:
    """Sign the metadata in FOLDER (a release, or a repository whose root lacks a signature) after checking it."""
    from exporter.keys import load_key
    from exporter.release import sign_release, summarise
    from exporter.tuf_files import metadata_files

    loaded = [load_key(path, passphrase_source(path, passphrase_file, passphrase)) for path in key_files]
    names = sign_release(folder, loaded)
    value: dict[str, Any] = {"signed": names}
    lines = [f"Signed {', '.join(names)}."]
    if any(role == "targets" for role, _ in metadata_files(folder)):
        summary = summarise(folder)
        value |= summary.to_dict()
        lines += describe(summary)
    emit(value, lines, as_json)


@click.command()
@click.argument("folder", type=_FOLDER)
@server_option
@token_options
@repository_option
@json_option
def publish(
    folder: Path,
    url: str | None,
    token_file: Path | None,
    token: str | None,
    allow_insecure_http: bool,
    repository: Path | None,
    as_json: bool,
) -> None:
    """Send the release in FOLDER. Running it again is safe: nothing is done twice.

    With --repository, that folder then holds what the server holds.
    """
    from exporter.publish import publish_release
    from exporter.release import adopt_release

    server = connect(required_url(url), token_file, token, allow_insecure_http)
    published = publish_release(server, folder)
    if repository is not None:
        adopt_release(repository, folder)
    already = " (it held all of it already)" if published.held_already else ""
    lines = [
        f"The server holds targets {published.targets_version} and root {published.root_version}{already}.",
        *(f"  added      {path}" for path in published.added),
        *(f"  withdrawn  {path}" for path in published.withdrawn),
        *next_rollout(folder),
    ]
    emit(published.to_dict(), lines, as_json)


def next_rollout(folder: Path) -> list[str]:
    """Return the command that lets devices have what a release folder adds; nothing when it adds nothing."""
    from exporter.release import summarise
    from exporter.repository import load_repository

    summary, customs = summarise(folder), load_repository(folder).customs
    added = [customs[path] for path in summary.added]
    if not added or not added[0].channels:
        return []
    first = added[0]
    return [
        f"Next: exporter rollout {first.channels[0]} --model {first.model} --release {first.release_number} --staged"
    ]


def describe(summary: ReleaseSummary) -> list[str]:
    """Return sentences on what a release folder does, for signers."""
    done, needed = summary.signatures
    return [
        f"{summary.folder} holds targets {summary.targets_version}: {', '.join(summary.releases) or 'nothing new'}.",
        *(f"  adds       {path}" for path in summary.added),
        *(f"  withdraws  {path}" for path in summary.withdrawn),
        *(f"  {model}: nothing below release {floor} may run" for model, floor in summary.floors.items()),
        f"  signatures {done} of {needed}",
    ]
