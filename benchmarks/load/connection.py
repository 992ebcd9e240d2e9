"""One HTTP/1.1 connection that costs little: prebuilt bytes out, status, header block and body in.

The server's answers carry ``Content-Length`` or no body, which is all that this reads; anything else is refused as a
broken answer, never guessed at.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

MOST_HEADER_BYTES = 16_384
MOST_BODY_BYTES = 64 * 2**20  # a bundle (contract.archive)


class BrokenAnswerError(Exception):
    """The connection ended in the middle of an answer, or what came is not the HTTP that the server speaks."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: HTTP status.
        head: The header block as it came, without the last empty line.
        body: The body.
    """

    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str:
        """Return a header's value, empty when it is missing; the name in any case."""
        wanted = name.lower().encode() + b":"
        for line in self.head.split(b"\r\n")[1:]:
            if line[: len(wanted)].lower() == wanted:
                return line[len(wanted) :].strip().decode("latin-1")
        return ""


class Connection(asyncio.Protocol):
    """A connection that carries one exchange at a time; made by :func:`connect`."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._received = bytearray()
        self._head_end = -1
        self._length = 0
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange that waits, if any."""
        self._ended = True
        self._fail(f"the connection ended: {exc or 'closed by the server'}")

    def data_received(self, data: bytes) -> None:
        """Read on, and hand the answer out when it is whole."""
        self._received += data
        if self._head_end < 0 and not self._read_head():
            return
        end = self._head_end + 4 + self._length
        if len(self._received) < end:
            return
        head, body = bytes(self._received[: self._head_end]), bytes(self._received[self._head_end + 4 : end])
        del self._received[:end]
        self._head_end = -1
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(Answer(int(head[9:12]), head, body))

    async def exchange(self, request: bytes, timeout_seconds: float) -> Answer:
        """Send one request and wait for its answer.

        Raises:
            BrokenAnswerError: The connection ended, or the answer is not what this reads.
            TimeoutError: No whole answer in time; the connection must be closed then.
        """
        if self._ended or self._transport is None:
            raise BrokenAnswerError("the connection is closed")
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        async with asyncio.timeout(timeout_seconds):
            return await self._waiting

    def close(self) -> None:
        """Close it; a second time changes nothing."""
        if self._transport is not None:
            self._transport.close()

    def _read_head(self) -> bool:
        """Look for the end of the headers; returns whether it was found."""
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            if len(self._received) > MOST_HEADER_BYTES:
                self._fail("the headers are too long")
            return False
        head = bytes(self._received[:end])
        status = head[9:12]
        if not head.startswith(b"HTTP/1.1 ") or not status.isdigit():
            self._fail(f"no HTTP/1.1 answer: {head[:40]!r}")
            return False
        length = Answer(int(status), head, b"").header("content-length")
        if status in (b"304", b"204"):
            length = "0"
        if not length.isdigit() or int(length) > MOST_BODY_BYTES:
            self._fail(f"an answer without a usable length: {head[:40]!r}")
            return False
        self._head_end, self._length = end, int(length)
        return True

    def _fail(self, why: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(BrokenAnswerError(why))
        if self._transport is not None:
            self._transport.close()


async def connect(host: str, port: int, timeout_seconds: float) -> Connection:
    """Open a connection.

    Raises:
        OSError: Nobody accepts it.
        TimeoutError: Not accepted in time.
    """
    async with asyncio.timeout(timeout_seconds):
        _, connection = await asyncio.get_running_loop().create_connection(Connection, host, port)
    return connection
