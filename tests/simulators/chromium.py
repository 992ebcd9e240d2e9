"""Debian's chromium for tests: where it is, how it is started, and what has to be there for it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library

import pytest
from playwright.sync_api import Playwright, sync_playwright

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def chromium() -> str | None:
    """Where the system's browser is, None without one."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def skip_without_chromium() -> None:
    """Skip the test where no browser can run; `make test` installs what is missing where it may."""
    if chromium() is None:
        pytest.skip("no chromium on this machine (Debian and Ubuntu: apt install chromium)")
    if find_library("atomic") is None:
        pytest.skip("Playwright's driver needs libatomic (Debian and Ubuntu: apt install libatomic1)")


@contextmanager
def driver() -> Iterator[Playwright]:
    """Run Playwright. It holds this thread's event loop, so no more than a module's tests may share it."""
    skip_without_chromium()
    with sync_playwright() as playwright:
        yield playwright
