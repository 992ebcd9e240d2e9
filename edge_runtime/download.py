"""One bundle from the repository into memory, by way of a file that survives interruptions.

What arrived stays in ``staging/<sha256>.part``; the next attempt asks for the rest (Range). Nothing is believed until
the whole has the length and digest that signed metadata gives.

Example::

    data = download(transport, target, home.staging, FileSystem(), deadline_seconds=900, progress=None)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from edge_runtime.contract.routes import TARGETS
from edge_runtime.errors import TransportError, TrustError
from edge_runtime.files import FileSystem, translated
from edge_runtime.transport import Answer, Request, Transport, refusal
from edge_runtime.trust import Target

Progress = Callable[[int, int], None]
_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-\d{1,15}/(?:\d{1,15}|\*)")


def download(
    transport: Transport,
    target: Target,
    staging: Path,
    files: FileSystem,
    *,
    deadline_seconds: float,
    progress: Progress | None,
) -> bytes:
    """Fetch a target, or the rest of it, and check it.

    Args:
        transport: Where the repository is.
        target: What to fetch.
        staging: Folder for what is not complete yet.
        files: The disk.
        deadline_seconds: Longest time for one request.
        progress: Told (bytes here, bytes in all) as they arrive.

    Returns:
        Bytes with exactly the length and SHA-256 that the target has.

    Raises:
        TransportError: It could not be fetched now; what arrived is kept for the next attempt.
        TrustError: The server's bytes are not the target's (reason ``bad_digest``).
        StorageError: Disk full or not permitted.
    """
    files.make_folder(staging)
    part = staging / f"{target.sha256}.part"
    _forget_others(part, files)
    resumed = _size(part) > 0
    data = _fetch(transport, target, part, files, deadline_seconds, progress)
    if resumed and hashlib.sha256(data).hexdigest() != target.sha256:
        # The beginning may be from a disk that lost power: once more from the start before anybody is blamed.
        files.remove(part)
        data = _fetch(transport, target, part, files, deadline_seconds, progress)
    if hashlib.sha256(data).hexdigest() != target.sha256:
        files.remove(part)
        raise _wrong(target, "does not have the digest that the release keys signed")
    return data


def _fetch(
    transport: Transport,
    target: Target,
    part: Path,
    files: FileSystem,
    deadline_seconds: float,
    progress: Progress | None,
) -> bytes:
    start = _size(part)
    if start > target.length:
        start = 0
    if start < target.length:
        headers = {"Range": f"bytes={start}-"} if start else {}
        request = Request("GET", TARGETS + target.url_path, headers, deadline_seconds=deadline_seconds)
        with transport.exchange(request) as answer:
            if answer.status == 416:  # the server's copy is shorter than what is here: begin again next time
                files.remove(part)
            if answer.status not in (200, 206):
                raise refusal(transport, request, answer)
            _receive(answer, part, _begins_at(answer, start), target, progress)
    with translated(part):
        data = part.read_bytes() if part.exists() else b""
    if len(data) < target.length:
        raise TransportError(
            f"GET {transport.server_url}{TARGETS}{target.path} ended after {len(data)} of {target.length} bytes.",
            advice="The next sync continues where it stopped.",
        )
    return data


def _begins_at(answer: Answer, start: int) -> int:
    """Return where the body belongs: a server may send all of it, or another part than we asked for."""
    match = _CONTENT_RANGE.match(answer.headers.get("content-range", ""))
    return start if answer.status == 206 and match and int(match[1]) == start else 0


def _receive(answer: Answer, part: Path, start: int, target: Target, progress: Progress | None) -> None:
    if answer.status == 206 and start == 0 and "content-range" in answer.headers and _size(part):
        # A part that does not follow ours is of no use; the next attempt asks for the whole.
        with translated(part):
            part.unlink()
        raise TransportError(
            f"The server sent another part of {target.path} than was asked for.",
            advice="The next sync starts the download afresh.",
        )
    done = start
    with translated(part), part.open("r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        for chunk in answer.chunks:
            done += len(chunk)
            if done > target.length:
                file.truncate(0)
                raise _wrong(target, f"is longer than the {target.length} bytes that the release keys signed")
            file.write(chunk)
            if progress is not None:
                progress(done, target.length)


def _size(path: Path) -> int:
    with translated(path):
        return path.stat().st_size if path.exists() else 0


def _forget_others(part: Path, files: FileSystem) -> None:
    for path in part.parent.glob("*.part"):
        if path != part:
            files.remove(path)


def _wrong(target: Target, what: str) -> TrustError:
    return TrustError(
        f"The server's copy of {target.path} {what}.",
        reason="bad_digest",
        advice="The active bundle stays; tell the operator that the server's copy is damaged or was changed.",
    )
