"""``exporter verify`` and ``exporter inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge_runtime.errors import InputError
from exporter.cli.options import json_option, repository_option
from exporter.cli.output import emit


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--public-key", "public_keys", type=click.Path(path_type=Path, dir_okay=False), multiple=True,
    help="Accept this targets key (its .pub file). Repeatable.",
)  # fmt: skip
@repository_option
@json_option
def verify(bundle: Path, public_keys: tuple[Path, ...], repository: Path | None, as_json: bool) -> None:
    """Check BUNDLE: whole, signed, listed, and scoring its golden windows as it should."""
    from exporter.files import read_bytes
    from exporter.keys import load_public_key, require_role
    from exporter.repository import load_repository
    from exporter.verification import verify_bundle

    keys = [load_public_key(path) for path in public_keys]
    for key, path in zip(keys, public_keys, strict=True):
        require_role(key, "targets", path)
    known = None if repository is None or keys else load_repository(repository)
    verified = verify_bundle(read_bytes(bundle), keys=keys, repository=known)
    manifest = verified.bundle.manifest
    lines = [
        f"{bundle} is {manifest.model} {manifest.version}, release {manifest.release_number}, and passes:",
        *(f"  - {check}" for check in verified.checks),
    ]
    emit(verified.to_dict(), lines, as_json)


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--card", is_flag=True, help="Print the bundle's model card.")
@json_option
def inspect(path: Path, card: bool, as_json: bool) -> None:
    """Show what a bundle, a release folder or a repository folder holds. Shows, does not vouch: see verify."""
    if path.is_dir():
        value, lines = _folder(path)
    elif path.is_file():
        value, lines = _bundle(path, card)
    else:
        raise InputError(f"{path} is not there.", advice="Name a .bundle file or a folder.", path=str(path))
    emit(value, lines, as_json)


def _bundle(path: Path, card: bool) -> tuple[dict[str, Any], list[str]]:
    from edge_runtime.contract.bundle import CARD_NAME, open_bundle
    from exporter.files import read_bytes

    opened = open_bundle(read_bytes(path))
    manifest = opened.manifest
    value = {"digest": opened.digest, "manifest": manifest.to_dict()}
    if card:
        return value, opened.files[CARD_NAME].decode("utf-8", "replace").splitlines()
    rule = manifest.window
    context = [signal.name for signal in manifest.signals if signal.role == "context"]
    lines = [
        f"{manifest.model} {manifest.version}, release {manifest.release_number}, "
        f"{'default' if manifest.cohort is None else f'cohort {manifest.cohort}'}, {manifest.precision}",
        f"digest      {opened.digest}",
        f"signals     {len(manifest.signals)} ({', '.join(context) or 'no'} context)",
        f"window      {rule.slots} slots of {rule.interval_ms / 1000:g} s, {rule.minimum_readings} needed",
        f"features    {len(manifest.features)}",
        f"threshold   {manifest.threshold.anomaly_score:.6g} (raw score {manifest.threshold.raw_score:.6g})",
        f"references  {manifest.references}, golden windows {opened.golden.windows}",
        *(f"{len(content):>11,}  {name}" for name, content in sorted(opened.files.items())),
        "Nothing here was checked against a key: use exporter verify.",
    ]
    return value, lines


def _folder(path: Path) -> tuple[dict[str, Any], list[str]]:
    from exporter.repository import load_repository

    known = load_repository(path, strict=False)
    roles = {
        name: {"keys": list(role.keyids), "threshold": role.threshold}
        for name, role in sorted(known.root.roles.items())
    }
    targets = None if known.targets is None else known.targets.signed
    value = {
        "root_version": known.root.version,
        "root_expires": known.root.expires.isoformat(),
        "roles": roles,
        "targets_version": None if targets is None else targets.version,
        "targets_expires": None if targets is None else targets.expires.isoformat(),
        "targets": {name: custom.to_dict() for name, custom in sorted(known.customs.items())},
        "minimum_release": known.floors,
    }
    lines = [
        f"root {known.root.version}, valid until {known.root.expires:%Y-%m-%d}",
        *(
            f"  {name:<10} {role.threshold} of {', '.join(key[:16] for key in role.keyids)}"
            for name, role in sorted(known.root.roles.items())
        ),
        "no targets yet" if targets is None else f"targets {targets.version}, valid until {targets.expires:%Y-%m-%d}",
        *(
            f"  {custom.model} {custom.release_number:>4}  {custom.cohort or 'default':<16} "
            f"{', '.join(custom.channels):<16} {name}"
            for name, custom in sorted(known.customs.items(), key=lambda item: (item[1].release_number, item[0]))
        ),
        *(f"  {model}: nothing below release {floor} may run" for model, floor in known.floors.items()),
    ]
    return value, lines
