"""Being told to stop: SIGTERM and Ctrl-C end the reading of an input, and what was read is still scored and stored.

Example::

    with Stop() as stop, stop.on_signals():
        for group, aside in Telemetry(stream, signals, stop=stop).groups():
            ...                         # ends after the group in hand
    if stop.told:
        ...
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self


class Stop:
    """A word that can be given from a signal handler, and that a ``select`` notices.

    Attributes:
        told: Somebody has said stop.
    """

    def __init__(self) -> None:
        self.told = False
        self._out, self._in = os.pipe()

    @property
    def descriptor(self) -> int:
        """Becomes readable, and stays so, when somebody says stop."""
        return self._out

    def tell(self) -> None:
        """Say stop; safe in a signal handler and more than once."""
        if not self.told:
            self.told = True
            os.write(self._in, b"s")

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT say stop for a while; the second one ends the process as it always did."""

        def handle(_number: int, _frame: FrameType | None) -> None:
            self.tell()
            restore()

        with signals_to(handle) as restore:
            yield

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of its descriptors."""
        os.close(self._in)
        os.close(self._out)


@contextmanager
def signals_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[Callable[[], None]]:
    """Send SIGTERM and SIGINT to a handler for a while; outside the main thread Python allows none.

    Yields:
        What puts the handlers of before back sooner.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    former = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, old in former.items():
            signal.signal(number, old)

    try:
        yield restore
    finally:
        restore()
