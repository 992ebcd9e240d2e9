"""How devices wear out: six kinds of fault, each building up over days until the device fails.

A fault has an onset and a failure; between them its severity grows from 0 to 1. Readings are labelled 0 before the
onset, -1 while the fault is too small to be expected of anyone, and 1 from ``LABEL_FROM`` on. A device that fails
sends nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exporter.simulator.daily_life import Times
from exporter.simulator.fleet import DAY_MS, START_MS, FleetOptions, Floats

KINDS = ("battery_wear", "crash_loop", "memory_leak", "radio_degradation", "storage_wear", "thermal")
# Severity grows slowly at first; with 1.5 a third of the build-up passes before a quarter of the damage is done.
GROWTH = 1.5
LABEL_FROM = 0.4
NO_FAULT = -1


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of a block of devices.

    ``kind`` is (n_devices,) int, an index into ``KINDS`` or ``NO_FAULT``; ``onset_ms`` and ``failure_ms`` are
    (n_devices,) int64 and mean nothing where there is no fault.
    """

    kind: npt.NDArray[np.int64]
    onset_ms: Times
    failure_ms: Times

    def severity(self, times_ms: Times) -> Floats:
        """Return how far the faults have come, 0 to 1.

        Args:
            times_ms: (n_devices, n_steps) times of the readings.

        Returns:
            (n_devices, n_steps) severity, 0 for devices without a fault.
        """
        span = (self.failure_ms - self.onset_ms)[:, None]
        progress = np.clip((times_ms - self.onset_ms[:, None]) / span, 0.0, 1.0)
        progress[self.kind == NO_FAULT] = 0.0
        severity: Floats = progress**GROWTH
        return severity

    def of(self, name: str, severity: Floats) -> Floats:
        """Return the severity of one kind of fault, 0 for devices that have another or none.

        Args:
            name: One of ``KINDS``.
            severity: (n_devices, n_steps) from :meth:`severity`.

        Returns:
            (n_devices, n_steps) severity.
        """
        mine: Floats = np.where((self.kind == KINDS.index(name))[:, None], severity, 0.0)
        return mine


def draw_faults(devices: int, offset: int, options: FleetOptions, rng: np.random.Generator) -> Faults:
    """Draw which devices fail, how and when.

    Kinds take turns over the faulty devices of the fleet, so that each occurs even in a small one.

    Args:
        devices: Number of devices of the block.
        offset: Faulty devices that earlier blocks had; where the turns go on.
        options: Share of faulty devices and length of the record.
        rng: Source of the draws.

    Returns:
        The faults of the block.
    """
    length_ms = options.days * DAY_MS
    faulty = rng.random(devices) < options.fault_share
    kind = np.where(faulty, (offset + np.cumsum(faulty) - 1) % len(KINDS), NO_FAULT)
    # A few failures fall after the end of the record: faults that nobody has confirmed yet.
    failure = START_MS + (rng.uniform(0.55, 1.1, devices) * length_ms).astype(np.int64)
    build_up = np.minimum(rng.uniform(2.5, 6.0, devices) * DAY_MS, 0.45 * length_ms).astype(np.int64)
    return Faults(kind=kind.astype(np.int64), onset_ms=failure - build_up, failure_ms=failure)


def labels_of(severity: Floats) -> npt.NDArray[np.int8]:
    """Return 0 healthy, -1 do not score, 1 faulty for every reading.

    Args:
        severity: (n_devices, n_steps) from :meth:`Faults.severity`.

    Returns:
        (n_devices, n_steps) int8.
    """
    labels: npt.NDArray[np.int8] = np.where(severity >= LABEL_FROM, 1, np.where(severity > 0, -1, 0)).astype(np.int8)
    return labels
