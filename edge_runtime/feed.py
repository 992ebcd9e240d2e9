"""Readings for the agent: a growing file or standard input becomes a pipe of whole lines that can be stopped.

A pipe lets telemetry see silence, and stopping closes its far end. Only whole lines pass: a line that the writer has
not finished is never scored with half a number. :meth:`Feed.turn` ends the current pipe and begins another with the
same header, so that a new bundle can read other columns and no line is lost between the two.

Example::

    with Feed(Path("readings.csv")) as feed:
        while (stream := feed.next_stream()) is not None:
            for group, aside in Telemetry(stream, signals).groups():
                ...
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from edge_runtime.errors import InputError

CHUNK_BYTES = 1 << 16
# How often a followed file is looked at when nothing comes.
POLL_SECONDS = 0.5


class Feed:
    """One input of the agent, read by a thread.

    Args:
        path: A file to follow as it grows, is truncated or is replaced; None for standard input, which ends.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._wake_out, self._wake_in = os.pipe()
        self._streams: deque[BinaryIO | None] = deque()
        self._arrived = threading.Semaphore(0)
        self._stopping = False
        self._abandoned = False
        self._turning = False
        self._restarted = False
        self._header = b""
        self._tail = b""
        self._out = -1
        self._source = -1
        self._thread = threading.Thread(target=self._copy, name="feed", daemon=True)

    @property
    def name(self) -> str:
        """What to call the input in messages."""
        return str(self._path) if self._path else "standard input"

    def __enter__(self) -> Self:
        """Open the input and begin to read it.

        Raises:
            InputError: There is no such file, or it cannot be read.
        """
        try:
            self._source = os.dup(sys.stdin.fileno()) if self._path is None else os.open(self._path, os.O_RDONLY)
        except OSError as error:
            raise InputError(
                f"The readings {self.name} cannot be read: {error.strerror}.", advice="Check the name."
            ) from error
        self._begin_stream()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop reading and let go of every descriptor; nobody reads what is still under way."""
        self.stop()
        self._abandoned = True
        os.write(self._wake_in, b"a")
        self._thread.join()
        for stream in self._streams:
            if stream is not None:
                stream.close()
        os.close(self._wake_in)
        os.close(self._wake_out)
        os.close(self._source)

    def next_stream(self) -> BinaryIO | None:
        """Wait for the next pipe; the caller closes it. None when the input is over or the feed was stopped."""
        self._arrived.acquire()
        return self._streams.popleft()

    def turn(self) -> None:
        """End the current pipe after what was read, and begin another."""
        if not self._stopping:
            self._turning = True
            os.write(self._wake_in, b"t")

    def stop(self) -> None:
        """End the current pipe after what was read, and the feed; safe in a signal handler and more than once."""
        if not self._stopping:
            self._stopping = True
            os.write(self._wake_in, b"s")

    def _begin_stream(self) -> None:
        readable, self._out = os.pipe()
        os.set_blocking(self._out, False)
        self._offer(open(readable, "rb", buffering=0))  # noqa: SIM115, PTH123 - the reader closes it

    def _offer(self, stream: BinaryIO | None) -> None:
        self._streams.append(stream)
        self._arrived.release()

    def _copy(self) -> None:
        try:
            while not self._stopping:
                chunk = self._read()
                if self._turning:
                    self._turn_now()
                if chunk is None:
                    break
                if chunk and not self._pass_on(chunk):
                    break
            else:
                self._last_look()
                self._tail = b""  # stopped in the middle of a line: its writer is not done with it
            if self._tail and not self._stopping:
                self._write(self._tail)  # the last line of an input that ended may lack its end
        finally:
            os.close(self._out)
            self._offer(None)

    def _last_look(self) -> None:
        """Take what the writer of a pipe has given away already; a file keeps its lines for the next time."""
        if self._path is None and select.select([self._source], [], [], 0)[0]:
            self._pass_on(os.read(self._source, CHUNK_BYTES))

    def _turn_now(self) -> None:
        self._turning = False
        os.close(self._out)
        self._begin_stream()
        self._write(self._header)

    def _read(self) -> bytes | None:
        """Return what is there, empty after a wait, None at the end of the input."""
        if self._path is None:
            ready = select.select([self._source, self._wake_out], [], [])[0]
            if self._wake_out in ready:
                os.read(self._wake_out, CHUNK_BYTES)
                return b""
            return os.read(self._source, CHUNK_BYTES) or None
        chunk = os.read(self._source, CHUNK_BYTES)
        if not chunk:
            if select.select([self._wake_out], [], [], POLL_SECONDS)[0]:
                os.read(self._wake_out, CHUNK_BYTES)
            self._reopen_if_replaced()
        return chunk

    def _reopen_if_replaced(self) -> None:
        assert self._path is not None  # noqa: S101 - only followed files get here
        mine = os.fstat(self._source)
        with contextlib.suppress(FileNotFoundError):  # between a rotation and the new file
            now = self._path.stat()
            if (now.st_dev, now.st_ino) != (mine.st_dev, mine.st_ino):
                if os.lseek(self._source, 0, os.SEEK_CUR) < mine.st_size:
                    return  # the old file grew after our last look: read that first
                fresh = os.open(self._path, os.O_RDONLY)
                os.dup2(fresh, self._source)
                os.close(fresh)
                self._tail, self._restarted = b"", True
            elif now.st_size < os.lseek(self._source, 0, os.SEEK_CUR):
                os.lseek(self._source, 0, os.SEEK_SET)
                self._tail, self._restarted = b"", True

    def _pass_on(self, chunk: bytes) -> bool:
        """Write the whole lines of what has arrived; returns False when nobody reads them any more."""
        data = self._tail + chunk
        end = data.rfind(b"\n") + 1
        self._tail = data[end:]
        whole = data[:end]
        if whole and (not self._header or self._restarted):
            whole = self._begin_file(whole)
        return self._write(whole)

    def _begin_file(self, whole: bytes) -> bytes:
        """Remember a header; leave it out where the pipe has had it, begin another pipe where it is another one."""
        first = whole[: whole.find(b"\n") + 1]
        if first.lstrip(b"\xef\xbb\xbf \t").startswith(b"{"):
            first = b"\n"  # NDJSON has no header to repeat; an empty line means nothing to anybody
        elif self._restarted and first == self._header:
            whole = whole[len(first) :]
        elif self._restarted:
            os.close(self._out)
            self._begin_stream()
        self._header, self._restarted = first, False
        return whole

    def _write(self, data: bytes) -> bool:
        view = memoryview(data)
        while view:
            if self._abandoned:  # the word may have been read where it was not waited for
                return False
            ready = select.select([self._wake_out], [self._out], [])
            if ready[0]:
                os.read(self._wake_out, CHUNK_BYTES)
            if ready[1]:
                try:
                    view = view[os.write(self._out, view) :]
                except BrokenPipeError:
                    return True  # the reader gave this pipe up; the next one gets what follows
                except BlockingIOError:
                    continue
        return True
