"""How many batches one worker stores at once: what comes on top waits a moment, then is sent away to come again.

Without a bound every thread of the worker would be storing, and polls and pages would wait behind them; threads that
take turns in one interpreter store no more batches than a few do. A batch is asked in when its whole body is there, so
that a slow phone takes no place.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sync_server.errors import RequestError
from sync_server.ingest.metrics import IN_FLIGHT, PHASE_SECONDS

# Long enough for the batches before it to be stored, short enough for a device to keep its connection.
WAIT_SECONDS = 1.0
# Drawn for each refusal: devices that were sent away together must not come back together.
RETRY_AFTER_SECONDS = (2, 10)


class Gate:
    """The places of one worker.

    Args:
        places: Batches at once.
        wait_seconds: How long one may wait for a place.
    """

    def __init__(self, places: int, wait_seconds: float = WAIT_SECONDS) -> None:
        self._places = threading.Semaphore(places)
        self._wait_seconds = wait_seconds

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place while the block runs.

        Raises:
            RequestError: 503 ``busy`` with Retry-After when none became free in time.
        """
        began = time.perf_counter()
        got = self._places.acquire(timeout=self._wait_seconds)
        PHASE_SECONDS.labels("wait").observe(time.perf_counter() - began)
        if not got:
            raise RequestError(
                503, "busy", "The server is storing as many batches as it can.",
                advice="Send the same records again later; nothing was changed.",
                retry_after_seconds=random.randint(*RETRY_AFTER_SECONDS),  # noqa: S311 - spreads load, hides nothing
            )  # fmt: skip
        try:
            with IN_FLIGHT.track_inprogress():
                yield
        finally:
            self._places.release()
