"""``exporter verify`` and ``exporter inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.errors import InputError
from exporter.cli.options import json_option, public_keys_option, repository_option
from exporter.cli.output import emit

if TYPE_CHECKING:
    from edge_runtime.contract.bundle import Bundle
    from exporter.verification import Verified

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("bundle", type=_FILE)
@public_keys_option
@repository_option
@json_option
def verify(bundle: Path, public_keys: tuple[Path, ...], repository: Path | None, as_json: bool) -> None:
    """Check BUNDLE: whole, signed, listed, and scoring its golden windows as it should."""
    verified = _verified(bundle, public_keys, repository)
    manifest = verified.bundle.manifest
    lines = [
        f"{bundle} is {manifest.model} {manifest.version}, release {manifest.release_number}, and passes:",
        *(f"  - {check}" for check in verified.checks),
    ]
    emit(verified.to_dict(), lines, as_json)


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--card", is_flag=True, help="Show the bundle's model card in a browser, or say where its page is.")
@click.option("--card-out", type=_FILE, help="Write the card's page to this file and open nothing. Implies --card.")
@click.option("--text", is_flag=True, help="With --card: print the card as text.")
@click.option("--mobile", is_flag=True, help="Say what phone accelerators would take of the bundle's graph.")
@json_option
def inspect(path: Path, card: bool, card_out: Path | None, text: bool, mobile: bool, as_json: bool) -> None:
    """Show what a bundle, a release folder or a repository folder holds. Shows, does not vouch: see verify."""
    card = card or card_out is not None
    if text and (not card or card_out is not None):
        raise click.UsageError("--text goes with --card, and not with --card-out.")
    if path.is_dir():
        if card or mobile:
            raise InputError(f"{path} is a folder.", advice="Name one .bundle file for --card or --mobile.")
        return emit(*_folder(path), as_json)
    if not path.is_file():
        raise InputError(f"{path} is not there.", advice="Name a .bundle file or a folder.", path=str(path))
    return emit(*_bundle(path, card, card_out, text, mobile), as_json)


def open_or_verify(
    path: Path, public_keys: tuple[Path, ...], repository: Path | None
) -> tuple[Bundle, tuple[str, ...]]:
    """Open a bundle, verified where somebody who vouches for it is named.

    Returns:
        The bundle, and the checks that it passed; none when nobody was named.
    """
    from edge_runtime.contract.bundle import open_bundle
    from exporter.files import read_bytes

    if not public_keys and repository is None:
        return open_bundle(read_bytes(path)), ()
    verified = _verified(path, public_keys, repository)
    return verified.bundle, verified.checks


def _verified(path: Path, public_keys: tuple[Path, ...], repository: Path | None) -> Verified:
    from exporter.files import read_bytes
    from exporter.keys import load_public_key, require_role
    from exporter.repository import load_repository
    from exporter.verification import verify_bundle

    keys = [load_public_key(file) for file in public_keys]
    for key, file in zip(keys, public_keys, strict=True):
        require_role(key, "targets", file)
    known = None if repository is None or keys else load_repository(repository)
    return verify_bundle(read_bytes(path), keys=keys, repository=known)


def _bundle(
    path: Path, card: bool, card_out: Path | None, text: bool, mobile: bool
) -> tuple[dict[str, Any], list[str]]:
    from edge_runtime.contract.bundle import CARD_NAME, MODEL_NAME, open_bundle
    from exporter.files import read_bytes

    opened = open_bundle(read_bytes(path))
    value: dict[str, Any] = {"digest": opened.digest, "manifest": opened.manifest.to_dict()}
    if card and text:
        written = opened.files[CARD_NAME].decode("utf-8", "replace")
        return {**value, "card": written}, written.splitlines()
    if card:
        from exporter.cli.card import show_card

        shown, lines = show_card(opened, card_out)
        return value | shown, lines
    if mobile:
        from exporter.mobile import mobile_report

        report = mobile_report(opened.files[MODEL_NAME])
        return {**value, "mobile": report.to_dict()}, report.lines()
    return value, _summary(opened)


def _summary(opened: Bundle) -> list[str]:
    manifest, rule = opened.manifest, opened.manifest.window
    cohort = "default" if manifest.cohort is None else f"cohort {manifest.cohort}"
    context = [signal.name for signal in manifest.signals if signal.role == "context"]
    return [
        f"{manifest.model} {manifest.version}, release {manifest.release_number}, {cohort}, {manifest.precision}",
        f"digest      {opened.digest}",
        f"signals     {len(manifest.signals)} ({', '.join(context) or 'no'} context)",
        f"window      {rule.slots} slots of {rule.interval_ms / 1000:g} s, {rule.minimum_readings} needed",
        f"features    {len(manifest.features)}",
        f"threshold   {manifest.threshold.anomaly_score:.6g} (raw score {manifest.threshold.raw_score:.6g})",
        f"references  {manifest.references}, golden windows {opened.golden.windows}",
        *(f"{len(content):>11,}  {name}" for name, content in sorted(opened.files.items())),
        *(f"below a goal: {goal}" for goal in manifest.below_goals),
        "Nothing here was checked against a key: use exporter verify.",
    ]


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
