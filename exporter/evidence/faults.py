"""Faults to find where nobody has labelled any: healthy telemetry, changed in ways that sensors are known to fail.

Size is in units of each signal's healthy spread, so that a fault of 2 means the same for a temperature and a counter.
The kinds, with where they are described:

- ``spike``: single readings far off. SHORT in Sharma, Golubchik and Govindan, "Sensor faults: detection methods and
  prevalence in real-world datasets", ACM Transactions on Sensor Networks 6(3), 2010, section 2. They multiply the
  reading; it is moved by spreads here, because a signal around zero would not change otherwise.
- ``noise``: Gaussian noise is added. NOISE there.
- ``stuck``: the signal stays at the value that it has. CONSTANT there.
- ``drift``: the signal leaves its value in a straight line; and ``level_shift``, at once. Drift and offset in Ni et
  al., "Sensor network data fault types", ACM Transactions on Sensor Networks 5(3), 2009.
- ``dropout``: readings of the signal go missing.

Example::

    injected = inject_faults(device, healthy_spreads([device]), kind="drift", severity=2.0, settle=12, rng=rng)
    injected.device.labels        # 1 inside the fault, -1 while windows still hold some of it, 0 elsewhere
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from exporter.dataset import FAULTY, HEALTHY, UNLABELLED, Device

Float64s = npt.NDArray[np.float64]
# The readings of a fault (n,), the signal's spread, the severity and a generator; returns the faulty readings.
_Change = Callable[[Float64s, float, float, np.random.Generator], Float64s]

# The quartiles of a normal distribution are this many standard deviations apart.
_QUARTILES_OF_NORMAL = 1.349
# Length of a fault in readings; a device with few readings is faulty for a quarter of them.
SHORTEST, LONGEST = 12, 48
# A device with fewer readings cannot be healthy and faulty for long enough; half of such devices get a fault.
_FEW_READINGS = 4 * SHORTEST
# Healthy readings for each faulty one, so that faults stay rare.
_HEALTHY_PER_FAULTY = 9
_MOST_SIGNALS = 3


@dataclass(frozen=True, slots=True)
class Span:
    """One fault of a device.

    Attributes:
        first: Its first reading.
        last: Its last one.
        signals: The columns that it changed.
    """

    first: int
    last: int
    signals: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Injected:
    """A device with faults in it.

    Attributes:
        device: With changed readings and labels: 1 where a healthy reading was made faulty, 0 where it still is
            healthy, -1 where it is not to be judged.
        spans: The faults, in order of time.
    """

    device: Device
    spans: tuple[Span, ...]


def healthy_spreads(devices: Sequence[Device]) -> Float64s:
    """Measure how far each signal spreads over healthy readings.

    Args:
        devices: At least one; their readings labelled faulty are left out.

    Returns:
        (S,): the interquartile range in standard deviations of a normal distribution; where that is 0, as for a
        signal that rests most of the time, the standard deviation; 0 for a signal that never varies or is never there.
    """
    values = np.concatenate([device.values[device.labels != FAULTY] for device in devices])
    spreads = np.zeros(values.shape[1])
    for column in range(spreads.size):
        present = values[~np.isnan(values[:, column]), column].astype(np.float64)
        if present.size:
            low, high = np.quantile(present, (0.25, 0.75))
            spreads[column] = (high - low) / _QUARTILES_OF_NORMAL or present.std()
    return spreads


def inject_faults(
    device: Device, spreads: Float64s, *, kind: str, severity: float, settle: int, rng: np.random.Generator
) -> Injected:
    """Put faults of one kind into a device's readings, a tenth of them at most.

    Args:
        device: Its readings labelled healthy are judged, the others stay unjudged.
        spreads: (S,) from ``healthy_spreads``; a signal of spread 0 is never changed, because every change of
            it would be as large as one likes to call it.
        kind: One of ``KINDS``.
        severity: In spreads; for ``dropout`` the share of the readings that go missing; unused by ``stuck``.
        settle: Readings after a fault that are not judged: windows still hold some of it.
        rng: Source of the draws.

    Returns:
        The device, unchanged but for the labels when no signal can be changed or it is one of the short ones that
        stay healthy.
    """
    values = device.values.copy()
    labels = np.where(device.labels == HEALTHY, HEALTHY, UNLABELLED).astype(np.int8)
    candidates = np.flatnonzero(spreads > 0)
    spans = []
    lengths = (1, 1) if kind == SPIKE else (SHORTEST, LONGEST)
    for first, last in _draw_spans(len(values), lengths, settle, rng) if candidates.size else ():
        chosen = rng.choice(candidates, rng.integers(1, min(_MOST_SIGNALS, candidates.size) + 1), replace=False)
        for column in chosen:
            good = values[first : last + 1, column].astype(np.float64)
            values[first : last + 1, column] = KINDS[kind](good, float(spreads[column]), severity, rng)
        labels[last + 1 : last + 1 + settle] = UNLABELLED
        # A reading that was not known to be healthy may be anomalous by itself, which would flatter any model.
        labels[first : last + 1] = np.where(device.labels[first : last + 1] == HEALTHY, FAULTY, UNLABELLED)
        spans.append(Span(first, last, tuple(sorted(chosen.tolist()))))
    return Injected(replace(device, values=values, labels=labels), tuple(spans))


def _draw_spans(
    readings: int, lengths: tuple[int, int], settle: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Return first and last reading of each fault: one at random in each of some stretches of equal length."""
    if readings < _FEW_READINGS and rng.random() < 0.5:
        return []
    shortest, longest = lengths
    stretch = longest * (_HEALTHY_PER_FAULTY + 1) + settle
    bounds = np.linspace(0, readings, max(1, readings // stretch) + 1).astype(np.int64).tolist()
    spans = []
    for start, stop in itertools.pairwise(bounds):
        most = max(1, min(longest, (stop - start) // 4))
        length = int(rng.integers(min(shortest, most), most + 1))
        first = int(rng.integers(start, stop - length + 1))
        spans.append((first, first + length - 1))
    return spans


def _drift(values: Float64s, spread: float, severity: float, rng: np.random.Generator) -> Float64s:
    return values + _sign(rng) * severity * spread * np.linspace(0.0, 1.0, values.size + 1)[1:]


def _level_shift(values: Float64s, spread: float, severity: float, rng: np.random.Generator) -> Float64s:
    return values + _sign(rng) * severity * spread


def _spike(values: Float64s, spread: float, severity: float, rng: np.random.Generator) -> Float64s:
    return values + rng.choice((-1.0, 1.0), values.size) * severity * spread


def _noise(values: Float64s, spread: float, severity: float, rng: np.random.Generator) -> Float64s:
    return values + rng.normal(0.0, severity * spread, values.size)


def _stuck(values: Float64s, spread: float, severity: float, rng: np.random.Generator) -> Float64s:  # noqa: ARG001
    """Hold the first value that is there; missing readings stay missing."""
    present = ~np.isnan(values)
    return np.where(present, values[present.argmax()], np.nan)


def _dropout(values: Float64s, spread: float, severity: float, rng: np.random.Generator) -> Float64s:  # noqa: ARG001
    lost = rng.random(values.size) < severity
    lost[-1] = True
    return np.where(lost, np.nan, values)


def _sign(rng: np.random.Generator) -> float:
    return float(rng.choice((-1.0, 1.0)))


SPIKE = "spike"
KINDS: dict[str, _Change] = {
    "drift": _drift,
    SPIKE: _spike,
    "stuck": _stuck,
    "noise": _noise,
    "level_shift": _level_shift,
    "dropout": _dropout,
}
# From one that a person would miss in a chart to one that nobody would.
SEVERITIES: dict[str, tuple[float, ...]] = {
    "drift": (2.0, 4.0, 8.0),
    "spike": (2.0, 4.0, 8.0),
    "stuck": (1.0,),
    "noise": (1.0, 2.0, 4.0),
    "level_shift": (1.0, 2.0, 4.0),
    "dropout": (0.3, 1.0),
}
