"""Injected faults: the kinds do what their names say, labels tell where, and one seed gives one outcome."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.dataset import FAULTY, HEALTHY, UNLABELLED, Device
from exporter.evidence.faults import KINDS, LONGEST, SEVERITIES, SHORTEST, healthy_spreads, inject_faults


def device(readings: int = 2000, *, seed: int = 0, missing: float = 0.0, label: int = HEALTHY) -> Device:
    """Three signals: a Gaussian one of spread 2, one that rests at zero most of the time, and a constant one."""
    rng = np.random.default_rng(seed)
    values = np.column_stack(
        [
            rng.normal(10.0, 2.0, readings),
            np.where(rng.random(readings) < 0.1, 5.0, 0.0),
            np.full(readings, 7.0),
        ]
    ).astype(np.float32)
    values[rng.random(values.shape) < missing] = np.nan
    times = np.arange(readings, dtype=np.int64) * 60_000
    return Device("one", None, times, values, np.full(readings, label, np.int8))


def test_spreads_are_robust_and_zero_for_what_never_varies() -> None:
    one = device()
    values = one.values.copy()
    values[:20, 0] = 1e6  # one reading in a hundred: a standard deviation would be 1e5
    values = np.column_stack([values, np.full(len(values), np.nan, np.float32)])
    spreads = healthy_spreads([Device("one", None, one.timestamps_ms, values, one.labels)])
    assert spreads[0] == pytest.approx(2.0, rel=0.1)
    assert spreads[1] == pytest.approx(1.5, rel=0.1)  # no quartiles apart, so the standard deviation
    assert spreads[2] == spreads[3] == 0.0


def test_spreads_leave_faulty_readings_out() -> None:
    one = device()
    labels = one.labels.copy()
    labels[1000:] = FAULTY
    values = one.values.copy()
    values[1000:, 0] *= 50
    assert healthy_spreads([Device("one", None, one.timestamps_ms, values, labels)])[0] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_the_spans_name_is_changed(kind: str) -> None:
    one = device()
    spreads = healthy_spreads([one])
    injected = inject_faults(one, spreads, kind=kind, severity=4.0, settle=30, rng=np.random.default_rng(1))
    assert injected.spans
    allowed = np.zeros(one.values.shape, bool)
    for span in injected.spans:
        allowed[span.first : span.last + 1, span.signals] = True
        assert (injected.device.labels[span.first : span.last + 1] == FAULTY).all()
        assert (injected.device.labels[span.last + 1 : span.last + 31] != HEALTHY).all()
        assert 2 not in span.signals, "a constant signal has no spread to be moved by"
        length = span.last - span.first + 1
        assert length == 1 if kind == "spike" else SHORTEST <= length <= LONGEST
    same = (injected.device.values == one.values) | np.isnan(one.values)
    assert same[~allowed].all()
    assert not same[allowed].all()
    assert (injected.device.labels == FAULTY).mean() <= 0.1
    assert (one.labels == HEALTHY).all(), "the given device is as it was"


def span_of(kind: str, severity: float, one: Device | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the good and the faulty readings of signal 0 in one fault that changed it alone."""
    one = one or device()
    spreads = healthy_spreads([one]) * [1, 0, 0]
    injected = inject_faults(one, spreads, kind=kind, severity=severity, settle=0, rng=np.random.default_rng(3))
    span = injected.spans[0]
    cut = slice(span.first, span.last + 1)
    return one.values[cut, 0].astype(float), injected.device.values[cut, 0].astype(float)


def test_each_kind_does_what_its_name_says() -> None:
    good, shifted = span_of("level_shift", 3.0)
    assert np.ptp(np.abs(shifted - good)) < 1e-4
    assert abs(shifted - good)[0] == pytest.approx(3 * 2.0, rel=0.1)
    good, drifted = span_of("drift", 4.0)
    steps = np.diff(drifted - good)
    assert np.ptp(steps) < 1e-4
    assert abs(drifted - good)[-1] == pytest.approx(4 * 2.0, rel=0.1)
    good, stuck = span_of("stuck", 1.0)
    assert (stuck == good[0]).all()
    good, noisy = span_of("noise", 10.0)
    assert noisy.std() > 4 * good.std()
    good, spiked = span_of("spike", 5.0)
    assert good.size == 1
    assert abs(spiked - good)[0] == pytest.approx(5 * 2.0, rel=0.1)
    assert np.isnan(span_of("dropout", 1.0)[1]).all()
    assert 0 < np.isnan(span_of("dropout", 0.3)[1]).mean() < 1


def test_readings_that_are_not_healthy_are_not_judged() -> None:
    one = device(label=UNLABELLED)
    injected = inject_faults(
        one, healthy_spreads([one]), kind="drift", severity=1.0, settle=0, rng=np.random.default_rng(0)
    )
    assert injected.spans
    assert (injected.device.labels == UNLABELLED).all()


def test_a_device_of_constant_signals_stays_healthy() -> None:
    one = device()
    spreads = np.zeros(3)
    injected = inject_faults(one, spreads, kind="drift", severity=4.0, settle=3, rng=np.random.default_rng(0))
    assert injected.spans == ()
    assert (injected.device.values == one.values).all()


@settings(max_examples=60, deadline=None)
@given(
    readings=st.integers(1, 1500),
    kind=st.sampled_from(sorted(KINDS)),
    settle=st.integers(0, 200),
    missing=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
def test_any_length_and_any_holes_work_and_a_seed_decides_all(
    readings: int, kind: str, settle: int, missing: float, seed: int
) -> None:
    one = device(readings, seed=seed, missing=missing)
    spreads = np.array([2.0, 1.0, 0.0])
    first, second = (
        inject_faults(
            one, spreads, kind=kind, severity=SEVERITIES[kind][-1], settle=settle, rng=np.random.default_rng(seed)
        )
        for _ in range(2)
    )
    assert first.spans == second.spans
    np.testing.assert_array_equal(first.device.values, second.device.values)
    assert first.device.values.dtype == np.float32
    assert first.device.labels.dtype == np.int8
    faulty = np.count_nonzero(first.device.labels == FAULTY)
    assert faulty == sum(span.last - span.first + 1 for span in first.spans)
    # What was missing is never invented.
    assert np.isnan(first.device.values[np.isnan(one.values)]).all()
