"""Scoring on a device, for an app developer: readings in, verdicts out, offline.

Example::

    from edge_runtime.device_scoring import Device

    with Device.open("/var/lib/stella-edge") as device:
        for verdict in device.score([{"timestamp": "2026-11-23T12:00:00Z", "battery": 81.0, "radio": -70}]):
            print(verdict.anomaly_score, verdict.is_anomaly)

What a reading causes is stored before its verdict is returned; ``edge-runtime upload`` or ``run`` sends it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from edge_runtime.bundle_store import BundleStore
from edge_runtime.edge_db import EdgeDatabase
from edge_runtime.errors import ScoringError
from edge_runtime.freshness import is_stale
from edge_runtime.home import Home
from edge_runtime.reading_scorer import ActiveBundle, Explain, ReadingScorer, system_clock_ms
from edge_runtime.readings import GROUP_READINGS, ReadingGroup, ReadingParser
from edge_runtime.verdict import Verdict

__all__ = ["ActiveBundle", "Device", "ReadingScorer", "Verdict", "no_bundle"]


class Device:
    """A device's home, opened for scoring from Python.

    Use ``Device.open``; one object serves one thread.
    """

    def __init__(self, database: EdgeDatabase, scorer: ReadingScorer) -> None:
        self.scorer = scorer
        self._database = database
        self._parser = ReadingParser([signal.name for signal in scorer.bundle.manifest.signals])

    @classmethod
    def open(cls, home: Path | str, *, explain: Explain = "stored") -> Device:
        """Open a home that has an active bundle.

        Args:
            home: The device's folder, as ``edge-runtime enroll`` and ``sync`` made it.
            explain: Which anomalies get contributions: those that become records, all, or none.

        Raises:
            ScoringError: There is no active bundle (``no_bundle``), or its model cannot be loaded.
            StorageError: The device's database cannot be used.
        """
        place = Home(Path(home))
        bundle = BundleStore(place.path).active()
        if bundle is None:
            raise no_bundle(place.path)
        database = EdgeDatabase(place.database)
        try:
            stale = is_stale(place.trust, system_clock_ms())
            return cls(database, ReadingScorer(database, bundle, stale=stale, explain=explain))
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
        rows = [self._parser.row(reading) for reading in readings]
        verdicts: list[Verdict] = []
        for start in range(0, len(rows), GROUP_READINGS):
            group = ReadingGroup.of(rows[start : start + GROUP_READINGS], self._parser.width)
            verdicts += self.scorer.score(group)
        return verdicts

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def __enter__(self) -> Device:
        """Return the device itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the database."""
        self.close()


def no_bundle(home: Path) -> ScoringError:
    """Return the error of a home that has nothing to score with."""
    return ScoringError(
        f"The device in {home} has no active bundle.",
        reason="no_bundle",
        advice="Run `edge-runtime sync` while the server can be reached.",
        home=str(home),
    )
