"""Scoring on a device, for an app developer: readings in, verdicts out, offline.

Example::

    from edge_runtime.device_scoring import Device

    with Device.open("/var/lib/stella-edge") as device:
        for verdict in device.score([{"timestamp": "2026-11-23T12:00:00Z", "battery": 81.0, "radio": -70}]):
            print(verdict.anomaly_score, verdict.is_anomaly)

What a reading causes is stored before its verdict is returned; ``edge-runtime upload`` or ``run`` sends it. An object
that lives for long takes up another bundle when a sync beside it has made one active.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from edge_runtime.bundle_store import ActiveBundle, BundleStore
from edge_runtime.edge_db import EdgeDatabase
from edge_runtime.errors import ScoringError, StorageError
from edge_runtime.freshness import Freshness
from edge_runtime.home import Home
from edge_runtime.identity import is_enrolled, load_identity
from edge_runtime.reading_scorer import Explain, ReadingScorer
from edge_runtime.readings import GROUP_READINGS, ReadingGroup, ReadingParser
from edge_runtime.verdict import Verdict

__all__ = ["Device", "Verdict"]

log = logging.getLogger(__name__)


class Device:
    """A device's home, opened for scoring from Python.

    Use ``Device.open``; one object serves one thread.

    Attributes:
        scorer: Scores groups of readings under the bundle that is in use.
    """

    scorer: ReadingScorer

    def __init__(self, home: Home, database: EdgeDatabase, bundle: ActiveBundle, explain: Explain) -> None:
        self._home = home
        self._database = database
        self._explain: Explain = explain
        self._freshness = Freshness(home.trust)
        self._store = BundleStore(home.path)
        self._generation = self._store.generation()
        self._use(bundle)

    @classmethod
    def open(cls, home: Path | str, *, explain: Explain = "stored") -> Device:
        """Open a home that has an active bundle.

        Args:
            home: The device's folder, as ``edge-runtime enroll`` and ``sync`` made it.
            explain: Which anomalies get contributions: those that become records, all, or none.

        Raises:
            ScoringError: There is no active bundle (``no_bundle``), it is of another model than the device was
                enrolled for (``wrong_model``), or it cannot be loaded.
            StorageError: The bundle is damaged, or the device's database cannot be used.
        """
        place = Home(Path(home))
        bundle = bundle_to_score_with(place, BundleStore(place.path))
        if bundle is None:
            raise no_bundle(place.path)
        database = EdgeDatabase(place.database)
        try:
            return cls(place, database, bundle, explain)
        except BaseException:
            database.close()
            raise

    def score(self, readings: Iterable[Mapping[str, object]]) -> list[Verdict]:
        """Score readings, offline.

        Args:
            readings: Mappings with ``timestamp`` (ISO 8601, a datetime, or epoch seconds) and a number for each
                signal; a signal that is absent or None is missing.

        Returns:
            One verdict for each, in their order, once they are stored.

        Raises:
            InputError: A reading cannot be used: no timestamp, text where a number should be, an infinity.
            StorageError: The device's database cannot be used.
            ScoringError: The model failed.
        """
        self._follow()
        rows = [self._parser.row(reading) for reading in readings]
        verdicts: list[Verdict] = []
        for start in range(0, len(rows), GROUP_READINGS):
            group = ReadingGroup.of(rows[start : start + GROUP_READINGS], self._parser.width)
            verdicts += self.scorer.score(group)
        return verdicts

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _use(self, bundle: ActiveBundle) -> None:
        is_stale = self._freshness.is_stale
        self.scorer = ReadingScorer(self._database, bundle, is_stale=is_stale, explain=self._explain)
        self._parser = ReadingParser([signal.name for signal in bundle.manifest.signals])

    def _follow(self) -> None:
        """Take up another bundle that has become active; what cannot be used leaves the one in use."""
        generation = self._store.generation()
        if generation == self._generation:
            return
        try:
            bundle = bundle_to_score_with(self._home, self._store)
            if bundle is not None and bundle.digest != self.scorer.bundle.digest:
                self._use(bundle)
        except (StorageError, ScoringError) as error:
            log.warning("%s Scoring goes on with the bundle before.", error)
        self._generation = generation

    def __enter__(self) -> Device:
        """Return the device itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the database."""
        self.close()


def bundle_to_score_with(home: Home, store: BundleStore) -> ActiveBundle | None:
    """Return the active bundle, every byte checked, None when there is none yet.

    Raises:
        ScoringError: It is of another model than this device was enrolled for (reason ``wrong_model``).
        StorageError: It is damaged, or device.json is.
    """
    bundle = store.active()
    if bundle is None or not is_enrolled(home):
        return bundle
    model = load_identity(home).model
    if bundle.manifest.model != model:
        raise ScoringError(
            f"The active bundle in {home.path} is of model {bundle.manifest.model}; this device runs {model}.",
            reason="wrong_model",
            advice="Run `edge-runtime sync`: it brings the release of the other model.",
        )
    return bundle


def no_bundle(home: Path) -> ScoringError:
    """Return the error of a home that has nothing to score with."""
    first = "" if is_enrolled(Home(home)) else "Join a server with `edge-runtime enroll LINE`. "
    return ScoringError(
        f"The device in {home} has no active bundle.",
        reason="no_bundle",
        advice=f"{first}Run `edge-runtime sync` while the server can be reached.",
        home=str(home),
    )
