"""Lines from a file or a pipe: bounded in length, and never holding a group of readings back while a pipe is silent."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from typing import BinaryIO

from edge_runtime.stopping import Stop

# 1,024 signals with names of 128 characters in one JSON object, and as much again.
MAX_LINE_BYTES = 512 * 1024
_CHUNK_BYTES = 64 * 1024


class TooLong:
    """Stands for a line longer than ``MAX_LINE_BYTES``; its bytes are gone."""


TOO_LONG = TooLong()


def lines(
    stream: BinaryIO, patience: Callable[[], float | None], stop: Stop | None = None
) -> Iterator[bytes | TooLong | None]:
    """Yield lines without their ends, and None when the stream is silent.

    Args:
        stream: A file, a pipe, a terminal, or bytes in memory. Files and pipes are read below their own buffers.
        patience: Seconds to wait in silence before the next None; None waits for ever.
        stop: Ends the lines: those that were read whole are still given, half a line is not.

    Yields:
        A line; ``TOO_LONG``; or None right when nothing more is there, and again each time patience runs out.

    Raises:
        OSError: The stream cannot be read.
    """
    tail, skipping = b"", False
    for chunk in _chunks(stream, patience, stop):
        if chunk is None:
            yield None
            continue
        *whole, tail = (tail + chunk).split(b"\n")
        for line in whole:
            if skipping or len(line) > MAX_LINE_BYTES:
                skipping = False
                yield TOO_LONG
            else:
                yield line
        if len(tail) > MAX_LINE_BYTES:
            tail, skipping = b"", True
    if stop is not None and stop.told:
        return  # in the middle of a line: its writer is not done with it
    if skipping:
        yield TOO_LONG
    elif tail:
        yield tail  # the last line of a file may lack its end


def _chunks(stream: BinaryIO, patience: Callable[[], float | None], stop: Stop | None) -> Iterator[bytes | None]:
    try:
        descriptor = stream.fileno()
    except OSError:  # bytes in memory
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk
        return
    while True:
        if not _ready(descriptor, 0, stop):
            yield None
            while not _ready(descriptor, patience(), stop):
                yield None
        if stop is not None and stop.told:
            if _ready(descriptor, 0, None):  # what its writer has given away already: as much as a pipe holds
                yield os.read(descriptor, _CHUNK_BYTES)
            return
        chunk = os.read(descriptor, _CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


def _ready(descriptor: int, seconds: float | None, stop: Stop | None) -> bool:
    watched = [descriptor] if stop is None else [descriptor, stop.descriptor]
    try:
        return bool(select.select(watched, [], [], seconds)[0])
    except (OSError, ValueError):  # Windows knows no select on pipes: wait in the read itself
        return True
