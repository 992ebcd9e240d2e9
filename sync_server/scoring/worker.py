"""What one worker process holds for scoring: the newest listing, its loaded models, and the challenger's thread.

Nothing of it is shared between processes, and all of it can be had again from Postgres and the blob store.
"""

from __future__ import annotations

import logging
import random
import threading
from typing import TYPE_CHECKING, Any, cast

from flask import Flask, current_app
from sqlalchemy.exc import SQLAlchemyError

from edge_runtime.errors import StellaError
from sync_server.blobs import Blobs
from sync_server.config import ServerConfig
from sync_server.db import Database
from sync_server.errors import RequestError
from sync_server.scoring.cache import ModelCache
from sync_server.scoring.listing import Challenger, Choice, Listing, Listings, needed
from sync_server.scoring.quota import DeviceQuota

if TYPE_CHECKING:
    from sync_server.scoring.loading import LoadedModel
    from sync_server.scoring.recording import Recorder

log = logging.getLogger(__name__)

EXTENSION = "scoring"
# How soon a worker loads what a rollout has changed; a request that comes earlier loads it itself.
FOLLOW_SECONDS = 5.0
_SHARES = 10_000


class ScoringWorker:
    """The scoring side of one worker.

    Args:
        config: The settings.
        database: The database.
        blobs: The blob store.

    Attributes:
        listings: What the signed metadata says now.
        models: The loaded models.
        quota: What devices may still have scored.
        warmth: ``off``, ``warming`` or ``warm``: whether the models of all channels were loaded once.
    """

    def __init__(self, config: ServerConfig, database: Database, blobs: Blobs) -> None:
        self.listings = Listings()
        self.models = ModelCache(self._load, most_models=max(1, config.scoring_models))
        self.quota = DeviceQuota(config.scoring_windows_per_minute)
        self.warmth = "off"
        self._most_models = config.scoring_models
        self._database = database
        self._blobs = blobs
        self._lock = threading.Lock()
        self._recorder: Recorder | None = None
        self._warmed_for: tuple[str, dict[str, Challenger]] | None = None
        # Which requests are sampled is no secret.
        self._chance = random.Random()  # noqa: S311

    def check_on(self) -> None:
        """Refuse scoring where it is turned off.

        Raises:
            RequestError: 404 ``scoring_off``.
        """
        if self._most_models == 0:
            raise RequestError(
                404, "scoring_off", "This server scores nothing.", advice="Set scoring_models to 1 or more to let it."
            )

    def is_sampled(self, challenger: Challenger | None) -> bool:
        """Whether this request is one of those that are kept."""
        return challenger is not None and self._chance.randrange(_SHARES) < challenger.share

    @property
    def recorder(self) -> Recorder:
        """The challenger's queue, made when it is first needed."""
        from sync_server.scoring.recording import Recorder

        with self._lock:
            if self._recorder is None:
                self._recorder = Recorder(self._database, self.models.get)
            return self._recorder

    def warm_up(self) -> int:
        """Load the models that the channels need now, as many as are kept; returns how many it has made sure of.

        Once for each change of the repository or of the challengers: where more models are in use than are kept,
        requests choose which stay. A bundle that cannot be used is logged and leaves the others alone.
        """
        with self._database.session() as session:
            listing, challengers = self.listings.now(session)
        if self._warmed_for == (listing.digest, challengers):
            return 0
        ready = 0
        for choice in [*needed(listing), *_challenging(listing, challengers)][: self._most_models]:
            try:
                self.models.get(choice)
            except RequestError:
                continue  # the cache has told the log why
            ready += 1
        self._warmed_for = (listing.digest, challengers)
        return ready

    def follow(self, stop: threading.Event) -> None:
        """Keep the models of the channels loaded until the event is set; a failure is tried again at the next turn."""
        self.warmth = "warming"
        while True:
            try:
                self.warm_up()
                self.warmth = "warm"
            except RequestError:
                self.warmth = "warm"  # nothing was published yet, so there is nothing to load
            except (StellaError, SQLAlchemyError) as error:
                log.error("models could not be loaded ahead: %s", str(error).splitlines()[0])
            # A fault over one bundle must not end the thread that loads the next ones.
            except Exception:
                log.exception("models could not be loaded ahead for a fault")
            if stop.wait(FOLLOW_SECONDS):
                return

    def _load(self, choice: Choice) -> LoadedModel:
        from sync_server.scoring.loading import load_model

        return load_model(self._blobs, choice)


def _challenging(listing: Listing, challengers: dict[str, Challenger]) -> list[Choice]:
    """Return one bundle of each challenger, the default one where there is one; others load when they are needed."""
    found = []
    for channel, challenger in challengers.items():
        try:
            if challenger.release is not None:
                found.append(listing.choose_any(channel, challenger.release))
        except RequestError:
            continue  # withdrawn since it was set
    return found


def install(app: Flask) -> None:
    """Give an app its scoring side."""
    extensions: dict[str, Any] = app.extensions
    extensions[EXTENSION] = ScoringWorker(extensions["config"], extensions["database"], extensions["blobs"])


def current_worker() -> ScoringWorker:
    """The scoring side of the current app; needs an app context."""
    return cast("ScoringWorker", current_app.extensions[EXTENSION])


def start_warming(app: Flask) -> threading.Event | None:
    """Start the thread that keeps a worker's models loaded; returns the event that ends it, None where it is off."""
    config, worker = cast("ServerConfig", app.extensions["config"]), cast("ScoringWorker", app.extensions[EXTENSION])
    if config.scoring_models == 0:
        return None
    stop = threading.Event()
    threading.Thread(target=worker.follow, args=(stop,), name="scoring", daemon=True).start()
    return stop
