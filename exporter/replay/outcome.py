"""The figures of a replay: counted device by device, added up by cohort, told as a table or as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from exporter.dataset import FAULTY, HEALTHY
from exporter.parity import area_under_curve, spearman
from exporter.replay.sides import Flags, Scores

# Devices in the JSON, those first whose verdicts change most; the totals count all of them.
MAX_DEVICES = 1_000


@dataclass(frozen=True, slots=True)
class Counts:
    """What two releases say of the same windows; sums of devices are sums of fields.

    Attributes:
        windows: Windows that both gave a verdict on.
        days: Device days that these stand for; 0 for windows that are samples.
        flagged_current: Windows anomalous by the release in use.
        flagged_candidate: Windows anomalous by the candidate.
        newly_flagged: By the candidate alone.
        no_longer_flagged: By the release in use alone.
        incidents_current: Incidents by the release in use.
        incidents_candidate: Incidents by the candidate.
        incidents_new: Incidents of the candidate that overlap none of the release in use.
        incidents_gone: Incidents of the release in use that overlap none of the candidate.
        faulty: Windows labelled faulty.
        faulty_current: Of these, flagged by the release in use.
        faulty_candidate: Of these, flagged by the candidate.
        healthy: Windows labelled healthy.
        healthy_current: Of these, flagged by the release in use.
        healthy_candidate: Of these, flagged by the candidate.
    """

    windows: int = 0
    days: float = 0.0
    flagged_current: int = 0
    flagged_candidate: int = 0
    newly_flagged: int = 0
    no_longer_flagged: int = 0
    incidents_current: int = 0
    incidents_candidate: int = 0
    incidents_new: int = 0
    incidents_gone: int = 0
    faulty: int = 0
    faulty_current: int = 0
    faulty_candidate: int = 0
    healthy: int = 0
    healthy_current: int = 0
    healthy_candidate: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Return the sum, field by field."""
        return Counts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(Counts)))

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON-ready fields."""
        return {one.name: getattr(self, one.name) for one in fields(Counts)}


@dataclass(frozen=True, slots=True)
class DeviceOutcome:
    """What becomes of one device.

    Attributes:
        device: Its id.
        cohort: Its cohort, or None.
        counts: Its windows and incidents.
        first_alarm_current_ms: First window flagged by the release in use, None without one.
        first_alarm_candidate_ms: First window flagged by the candidate, None without one.
    """

    device: str
    cohort: str | None
    counts: Counts
    first_alarm_current_ms: int | None
    first_alarm_candidate_ms: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return the device as JSON-ready fields."""
        return {
            "device": self.device,
            "cohort": self.cohort,
            "first_alarm_current_ms": self.first_alarm_current_ms,
            "first_alarm_candidate_ms": self.first_alarm_candidate_ms,
            **self.counts.to_dict(),
        }


@dataclass(slots=True)
class Outcome:
    """A replay, as it adds up.

    Attributes:
        unit: What is left out: ``devices``, or ``windows`` of a server.
        devices: One a device.
        left_out: How many of them have no bundle on one of the sides.
        notes: Sentences that the reader of the figures must know.
    """

    unit: str = "devices"
    devices: list[DeviceOutcome] = field(default_factory=list)
    left_out: int = 0
    notes: list[str] = field(default_factory=list)
    _raw_current: list[Scores] = field(default_factory=list)
    _raw_candidate: list[Scores] = field(default_factory=list)
    _labels: list[npt.NDArray[np.int8]] = field(default_factory=list)

    def add(self, device: DeviceOutcome, current: Scores, candidate: Scores, labels: npt.NDArray[np.int8]) -> None:
        """Add a device, with the raw scores (n,) of the windows that both judged, and their labels (n,)."""
        self.devices.append(device)
        self._raw_current.append(current)
        self._raw_candidate.append(candidate)
        self._labels.append(labels)

    @property
    def total(self) -> Counts:
        """All devices together."""
        return sum((device.counts for device in self.devices), Counts())

    def by_cohort(self) -> dict[str | None, tuple[int, Counts]]:
        """Return the number of devices and their counts by cohort, in order of names, no cohort first."""
        found: dict[str | None, tuple[int, Counts]] = {}
        for device in self.devices:
            number, counts = found.get(device.cohort, (0, Counts()))
            found[device.cohort] = (number + 1, counts + device.counts)
        return dict(sorted(found.items(), key=lambda item: item[0] or ""))

    def most_changed(self, most: int) -> list[DeviceOutcome]:
        """Return the devices with the most other verdicts, those without any left out."""
        changed = [device for device in self.devices if _changes(device)]
        return sorted(changed, key=lambda device: (-_changes(device), device.device))[:most]

    def to_dict(self) -> dict[str, Any]:
        """Return the replay as JSON-ready fields."""
        shown = self.most_changed(MAX_DEVICES)
        return {
            "total": {"devices": len(self.devices), **self.total.to_dict()},
            "rank_correlation": self.rank_correlation(),
            "auc": self.areas(),
            "cohorts": [
                {"cohort": cohort, "devices": number, **counts.to_dict()}
                for cohort, (number, counts) in self.by_cohort().items()
            ],
            "first_alarms": self.first_alarms(),
            "changed_devices": [device.to_dict() for device in shown],
            "changed_devices_not_shown": sum(map(bool, map(_changes, self.devices))) - len(shown),
            f"{self.unit}_left_out": self.left_out,
            "notes": list(self.notes),
        }

    def rank_correlation(self) -> float | None:
        """Return Spearman's correlation of the raw scores over all windows, None where a side's are all equal."""
        current, candidate = (_joined(parts).astype(np.float64) for parts in (self._raw_current, self._raw_candidate))
        if any(len(raw) == 0 or np.ptp(raw) == 0 for raw in (current, candidate)):
            return None
        return spearman(current, candidate)

    def areas(self) -> dict[str, float | None]:
        """Return the AUC of both sides' raw scores over labelled windows, None without labels of both kinds."""
        labels = np.concatenate(self._labels) if self._labels else np.empty(0, np.int8)
        return {
            "current": area_under_curve(labels, _joined(self._raw_current)),
            "candidate": area_under_curve(labels, _joined(self._raw_candidate)),
        }

    def first_alarms(self) -> dict[str, Any]:
        """Return how many devices alarm first by whom, and the median of how much earlier the candidate is."""
        pairs = [(device.first_alarm_current_ms, device.first_alarm_candidate_ms) for device in self.devices]
        both = [(now, then) for now, then in pairs if now is not None and then is not None]
        earlier = [now - then for now, then in both]
        return {
            "both": len(both),
            "only_current": sum(now is not None and then is None for now, then in pairs),
            "only_candidate": sum(now is None and then is not None for now, then in pairs),
            "earlier": sum(step > 0 for step in earlier),
            "later": sum(step < 0 for step in earlier),
            "median_earlier_ms": float(np.median(earlier)) if earlier else None,
        }


def count_windows(current: Flags, candidate: Flags, labels: npt.NDArray[np.int8]) -> Counts:
    """Count what two releases say of n windows; days and incidents are left at 0.

    Args:
        current: (n,) verdicts of the release in use.
        candidate: (n,) verdicts of the candidate.
        labels: (n,) 0 healthy, 1 faulty, others ignored.
    """

    def number(*conditions: Flags) -> int:
        return int(np.count_nonzero(np.logical_and.reduce(conditions)))

    faulty, healthy = labels == FAULTY, labels == HEALTHY
    return Counts(
        windows=len(current),
        flagged_current=number(current),
        flagged_candidate=number(candidate),
        newly_flagged=number(candidate, ~current),
        no_longer_flagged=number(current, ~candidate),
        faulty=number(faulty),
        faulty_current=number(faulty, current),
        faulty_candidate=number(faulty, candidate),
        healthy=number(healthy),
        healthy_current=number(healthy, current),
        healthy_candidate=number(healthy, candidate),
    )


def without_partner(ours: Sequence[tuple[int, int]], theirs: Iterable[tuple[int, int]]) -> int:
    """Return how many of our intervals overlap none of theirs; both are (first, last), ordered and apart."""
    others = np.array(list(theirs), dtype=np.int64).reshape(-1, 2)
    if not ours:
        return 0
    mine = np.array(ours, dtype=np.int64)
    # The first of theirs that ends at or after our beginning overlaps us, unless it begins after our end.
    place = np.searchsorted(others[:, 1], mine[:, 0])
    begins = np.append(others[:, 0], np.iinfo(np.int64).max)[place]
    return int(np.count_nonzero(begins > mine[:, 1]))


def _changes(device: DeviceOutcome) -> int:
    return device.counts.newly_flagged + device.counts.no_longer_flagged


def _joined(parts: list[Scores]) -> Scores:
    return np.concatenate(parts) if parts else np.empty(0, np.float32)
