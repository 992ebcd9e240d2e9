"""Built files of the web: which there are, and how each is answered.

A folder is listed once, so that no request reaches the file system by a name of its own.

Example::

    files = BuiltFiles(Path("sync_server/web/device"))
    response = files.answer("assets/index-5gddkLgl.js")
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import msgspec
from flask import Response, request

from sync_server.errors import RequestError

FOLDER = Path(__file__).resolve().parent.parent / "web"
_FOR_EVER = "public, max-age=31536000, immutable"
# The browser keeps a copy and asks each time whether it is still the one: an answer without a body.
_ASK_FIRST = "no-cache"
_HASHED = "assets/"  # Vite puts what it names by content there
# Best first; both cost the server nothing, since the build made the copies.
_ENCODINGS = {"br": ".br", "gzip": ".gz"}
# Not Python's table: it follows the machine's own, which may lack some of them.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}


@dataclass(frozen=True, slots=True)
class BuiltFile:
    """One file as the build left it.

    Attributes:
        path: Where it is.
        digest: The first 16 hex digits of its SHA-256, for its ETag.
        copies: Compressed copies by content encoding.
    """

    path: Path
    digest: str
    copies: dict[str, Path]


class BuiltFiles:
    """The files of one folder that the build made."""

    def __init__(self, folder: Path) -> None:
        """List the folder; one that is not there holds no files."""
        compressed = tuple(_ENCODINGS.values())
        self._files = {
            path.relative_to(folder).as_posix(): _built_file(path)
            for path in folder.rglob("*")
            if path.is_file() and path.suffix not in compressed
        }

    def __bool__(self) -> bool:
        """Whether anything was built."""
        return bool(self._files)

    def path(self, name: str) -> Path | None:
        """Return where a file is, None when there is none of that name."""
        file = self._files.get(name)
        return file.path if file else None

    def answer(self, name: str) -> Response:
        """Answer the current request with a file, compressed as the client likes it.

        Args:
            name: The file's path in the folder, such as ``assets/index-5gddkLgl.js``.

        Raises:
            RequestError: 404 when there is no such file, 503 when nothing was built.
        """
        if not self._files:
            raise RequestError(
                503, "not_built", "This server was installed without its web pages.", advice="Run: make web"
            )
        file = self._files.get(name)
        if file is None:
            raise RequestError(404, "not_found", f"There is no file {name[:100]}.", advice="Load the page again.")
        encoding = _accepted(file)
        path = file.copies[encoding] if encoding else file.path
        response = Response(path.read_bytes(), content_type=_TYPES.get(file.path.suffix, "application/octet-stream"))
        response.set_etag(f"{file.digest}-{encoding or 'identity'}")
        if encoding:
            response.headers["Content-Encoding"] = encoding
        response.headers["Vary"] = "Accept-Encoding"
        response.headers["Cache-Control"] = _FOR_EVER if name.startswith(_HASHED) else _ASK_FIRST
        return cast("Response", response.make_conditional(request))


def _built_file(path: Path) -> BuiltFile:
    copies = {name: path.with_name(path.name + suffix) for name, suffix in _ENCODINGS.items()}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return BuiltFile(path, digest, {name: copy for name, copy in copies.items() if copy.is_file()})


def _accepted(file: BuiltFile) -> str | None:
    """Return the best encoding that there is a copy of and that the client takes."""
    return next((name for name in _ENCODINGS if name in file.copies and request.accept_encodings.quality(name)), None)


@cache
def device_files() -> BuiltFiles:
    """The device's page."""
    return BuiltFiles(FOLDER / "device")


@cache
def dashboard_files() -> BuiltFiles:
    """The dashboard's scripts."""
    return BuiltFiles(FOLDER / "dashboard")


@dataclass(frozen=True, slots=True)
class DashboardEntry:
    """Where a script of the dashboard is, and its style sheets.

    Attributes:
        script: The script's address.
        styles: Addresses of the style sheets that it brings.
    """

    script: str
    styles: tuple[str, ...]


@cache
def dashboard_entry(source: str) -> DashboardEntry | None:
    """Return the addresses of a script of the dashboard, None when the web was not built.

    Args:
        source: The script's source below ``web_demo``, such as ``src/dashboard/main.ts``.

    Raises:
        KeyError: The build knows no such source.
    """
    manifest = dashboard_files().path("manifest.json")
    if manifest is None:
        return None
    entry = cast("dict[str, dict[str, Any]]", msgspec.json.decode(manifest.read_bytes()))[source]
    styles = tuple(f"/static/built/{name}" for name in entry.get("css", ()))
    return DashboardEntry(f"/static/built/{entry['file']}", styles)
