"""gunicorn's threaded worker, patient with slow clients: only whole request heads get a thread.

gunicorn 27 gives each accepted connection a thread that waits five seconds for its first byte, and blocks on a head
that comes in pieces; it also waits up to two seconds, in the loop that serves everybody, for a client to hang up after
its last answer. Sixteen clients that do nothing are then enough to stop a worker. Here the loop itself collects heads
and closes connections without waiting for anyone, so that threads only ever work on requests.

A body that comes slowly still holds a thread, as long as ``client_seconds`` between its pieces allow; a proxy that
buffers requests (nginx does) takes that away.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

# gunicorn bounds a header field to 8,190 bytes; browsers and devices stay far below one such field for all of them.
MOST_HEAD_BYTES = 16_384
_RECEIVE_BYTES = 65_536
# How long a connection that was answered for the last time may take to hang up, and how many may at once.
_LINGER_SECONDS = 2.0
_MOST_LINGERING = 1_000
_STOP_SECONDS = 2.0  # how long a stopping worker waits for connections on which nothing was asked
_SWEEP_SECONDS = 1.0
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class _Connection(TConn):  # type: ignore[misc]
    """A connection, what has come of its next request's head, and who sees it off."""

    def __init__(self, *args: Any, see_off: Callable[[_Connection], bool]) -> None:
        super().__init__(*args)
        self.head = bytearray()
        self._see_off = see_off

    def init(self) -> None:
        """Make the parser once, and give it what the loop has read already."""
        super().init()
        if self.head:
            self.parser.unreader.unread(bytes(self.head))
            self.head.clear()

    def close(self, graceful: bool = False) -> None:
        """Close now, or once the client has hung up: unread bytes would reset the connection and lose the answer."""
        if not graceful or not self._see_off(self):
            super().close()


class PatientWorker(ThreadWorker):  # type: ignore[misc]
    """Accepts, reads heads and closes in its loop; hands whole heads to the threads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Sockets that the loop listens to beside kept-alive ones, each with the time at which patience ends.
        self._heads: dict[_Connection, float] = {}
        self._lingering: dict[_Connection, float] = {}
        self._next_sweep = 0.0

    def accept(self, listener: socket.socket) -> None:
        """Take a new connection and read what has come with it."""
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                raise
            return
        self.nr_conns += 1
        connection = _Connection(self.cfg, client, address, listener.getsockname(), see_off=self._see_off)
        self._read_head(connection)

    def enqueue_req(self, conn: _Connection) -> None:
        """Give a connection to a thread; what came behind its last request first has to be a whole head as well."""
        rest = conn.parser.unreader.take_buffered() if conn.parser is not None else b""
        conn.head[:0] = rest
        if rest and b"\r\n\r\n" not in conn.head:
            self._wait_for_head(conn)
            return
        super().enqueue_req(conn)

    def on_client_socket_readable(self, conn: _Connection, client: socket.socket) -> None:
        """Read the next head on a kept-alive connection; mostly it is the client hanging up."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._read_head(conn)

    def murder_pending(self) -> None:
        """End connections whose time is up, once a second; the loop calls this at every turn."""
        now = time.monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + _SWEEP_SECONDS
        for connection in [one for one, ends in self._heads.items() if ends <= now]:
            self._forget(connection, self._heads)
            self._hang_up(connection)
        for connection in [one for one, ends in self._lingering.items() if ends <= now]:
            self._forget(connection, self._lingering)
            connection.close()

    def _cap_keepalive(self, deadline: float) -> None:
        """Shorten what a stopping worker waits for, unless a request has begun to arrive."""
        super()._cap_keepalive(deadline)
        silent = time.monotonic() + _STOP_SECONDS
        self._heads = {one: ends if one.head else min(ends, silent) for one, ends in self._heads.items()}

    def _read_head(self, connection: _Connection) -> None:
        """Read what is there: a whole head goes to a thread, a part of one waits for the rest in the loop."""
        try:
            data = connection.sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            self._wait_for_head(connection)
            return
        except OSError:
            data = b""
        if not data:
            self._hang_up(connection)
            return
        searched = max(0, len(connection.head) - 3)
        connection.head += data
        if connection.head.find(b"\r\n\r\n", searched) >= 0:
            connection.data_ready = True
            self.enqueue_req(connection)
        elif len(connection.head) > MOST_HEAD_BYTES:
            self._refuse(connection)
        else:
            self._wait_for_head(connection)

    def _wait_for_head(self, connection: _Connection) -> None:
        connection.sock.setblocking(False)
        self._heads[connection] = time.monotonic() + self.app.config.client_seconds
        self.poller.register(connection.sock, selectors.EVENT_READ, partial(self._on_head, connection))

    def _on_head(self, connection: _Connection, _client: socket.socket) -> None:
        # The time for a head runs from its beginning: a byte now and then does not buy more of it.
        ends = self._heads[connection]
        self._forget(connection, self._heads)
        self._read_head(connection)
        if connection in self._heads:
            self._heads[connection] = ends

    def _see_off(self, connection: _Connection) -> bool:
        """Say goodbye and wait in the loop for the client to hang up; False: close at once."""
        if len(self._lingering) >= _MOST_LINGERING or not self.alive:
            return False
        try:
            connection.sock.setblocking(False)
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        self._lingering[connection] = time.monotonic() + _LINGER_SECONDS
        self.poller.register(connection.sock, selectors.EVENT_READ, partial(self._on_lingering, connection))
        return True

    def _on_lingering(self, connection: _Connection, client: socket.socket) -> None:
        try:
            if client.recv(_RECEIVE_BYTES):
                return  # what it still sends goes nowhere
        except BlockingIOError:
            return
        except OSError:
            pass
        self._forget(connection, self._lingering)
        connection.close()

    def _refuse(self, connection: _Connection) -> None:
        with contextlib.suppress(OSError):  # it may have gone
            connection.sock.send(_TOO_LARGE)
        self.nr_conns -= 1
        connection.close(graceful=True)

    def _hang_up(self, connection: _Connection) -> None:
        self.nr_conns -= 1
        connection.close()

    def _forget(self, connection: _Connection, waiting: dict[_Connection, float]) -> None:
        del waiting[connection]
        self.poller.unregister(connection.sock)
