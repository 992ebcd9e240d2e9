"""``exporter inspect --card``: a bundle's page, opened where somebody can see it."""

from __future__ import annotations

import os
import sys
import tempfile
import webbrowser
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.errors import InputError

if TYPE_CHECKING:
    from edge_runtime.contract.bundle import Bundle


def show_card(bundle: Bundle, out: Path | None) -> tuple[dict[str, Any], list[str]]:
    """Write a bundle's page and open it in a browser, unless a file is named or there is no screen.

    Args:
        bundle: The opened bundle; nobody has vouched for it.
        out: The file to write, or None for a temporary one that is opened.

    Returns:
        For machines ``card`` (the file) and ``opened``; for people a sentence.

    Raises:
        InputError: The bundle has no page.
        StorageError: The file cannot be written.
    """
    from edge_runtime.contract.bundle import CARD_PAGE_NAME
    from exporter.card_page import POLICY
    from exporter.files import write_bytes

    page = bundle.files.get(CARD_PAGE_NAME)
    if page is None:
        raise InputError(
            f"The bundle holds no {CARD_PAGE_NAME}: an older exporter made it.",
            advice="Print its text with --card --text.",
        )
    # The page is somebody's until the bundle is verified: the policy comes first, so that nothing in it can run.
    guard = f'<!doctype html><meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
    name = f"{bundle.manifest.model}-{bundle.manifest.version}-{bundle.digest[:8]}.html"
    path = out or Path(tempfile.mkdtemp(prefix="stella-card-"), name)
    write_bytes(path, guard.encode() + page)
    opened = out is None and _has_screen() and webbrowser.open(path.absolute().as_uri())
    sentence = f"The card is open in your browser: {path}" if opened else f"The card is {path}: open it in a browser."
    return {"card": str(path), "opened": opened}, [sentence]


def _has_screen() -> bool:
    """Say whether somebody sits in front of a terminal on a machine with a screen; a text browser is no screen."""
    if not sys.stdout.isatty():
        return False
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
