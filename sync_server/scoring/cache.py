"""Loaded models of one worker: bounded by number and by bytes, the least recently used one goes first.

Each model is loaded once, however many threads ask for it at the same time; the others wait for it. A bundle that
cannot be used is not tried again for a while, so that a damaged one costs a check now and then and not one a request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING

from edge_runtime.errors import StellaError
from sync_server.errors import RequestError
from sync_server.scoring.listing import Choice
from sync_server.scoring.metrics import MODEL_LOADS

if TYPE_CHECKING:
    from sync_server.scoring.loading import LoadedModel

log = logging.getLogger(__name__)

# Files of the models, all together. Measured: a forest of 300 trees on 25 signals is 0.3 MB and takes 1.6 MB loaded, so
# that this bounds a worker to some 350 MB.
MAX_BYTES = 64 * 1024 * 1024
RETRY_SECONDS = 30.0
# The same forest opens, loads and passes its golden windows in 13 ms of processor time; a thread is held no longer than
# a person waits.
WAIT_SECONDS = 10.0


class ModelCache:
    """Models by digest. Safe to use from threads.

    Args:
        load: Loads a bundle; what it raises of ``StellaError`` is a bundle that cannot be used.
        most_models: How many are kept.
        most_bytes: How many bytes of model files are kept; the model in hand always stays.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        load: Callable[[Choice], LoadedModel],
        *,
        most_models: int,
        most_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._most_models = most_models
        self._most_bytes = most_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._models: OrderedDict[str, Future[LoadedModel]] = OrderedDict()
        self._failed: dict[str, float] = {}

    def get(self, choice: Choice) -> LoadedModel:
        """Return a loaded model.

        Raises:
            RequestError: 503, it cannot be used on this server, or is not loaded in time.
        """
        with self._lock:
            self._check_failed(choice)
            future = self._models.get(choice.digest)
            mine = future is None
            if future is None:
                future = self._models[choice.digest] = Future()
            self._models.move_to_end(choice.digest)
        if mine:
            self._fill(choice, future)
        try:
            return future.result(WAIT_SECONDS)
        except (TimeoutError, CancelledError):
            raise _unavailable(choice, "it is still being loaded") from None
        except StellaError as error:
            raise _unavailable(choice, "it cannot be used on this server") from error

    def loaded(self) -> tuple[str, ...]:
        """Return the digests of the models that are ready, the least recently used one first."""
        with self._lock:
            return tuple(digest for digest, future in self._models.items() if future.done())

    def _check_failed(self, choice: Choice) -> None:
        until = self._failed.get(choice.digest)
        if until is None:
            return
        if self._clock() < until:
            raise _unavailable(choice, "it cannot be used on this server")
        del self._failed[choice.digest]

    def _fill(self, choice: Choice, future: Future[LoadedModel]) -> None:
        """Load a model for all who wait for it."""
        try:
            model = self._load(choice)
        except StellaError as error:
            log.error("bundle %s (%s) cannot score here: %s", choice.digest[:12], choice.path, error)
            MODEL_LOADS.labels("failed").inc()
            self._forget(choice.digest, failed=True)
            future.set_exception(error)
        else:
            MODEL_LOADS.labels("loaded").inc()
            future.set_result(model)
            self._trim()
        finally:  # a bug must not leave the others waiting
            if not future.done():
                self._forget(choice.digest, failed=False)
                future.cancel()

    def _forget(self, digest: str, *, failed: bool) -> None:
        with self._lock:
            self._models.pop(digest, None)
            if failed:
                self._failed[digest] = self._clock() + RETRY_SECONDS

    def _trim(self) -> None:
        """Let models go until both bounds hold. Whoever still scores with one keeps it until then."""
        with self._lock:
            ready = [(digest, future.result().size) for digest, future in self._models.items() if future.done()]
            held = sum(size for _, size in ready)
            for digest, size in ready[:-1]:
                if len(self._models) <= self._most_models and held <= self._most_bytes:
                    return
                del self._models[digest]
                held -= size


def _unavailable(choice: Choice, why: str) -> RequestError:
    custom = choice.custom
    return RequestError(
        503, "model_unavailable",
        f"Release {custom.release_number} of {custom.model} cannot score: {why}.",
        advice="Send the request again later; the server's log says what is wrong.", retry_after_seconds=30,
    )  # fmt: skip
