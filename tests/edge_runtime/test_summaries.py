"""Summaries: counts add up, merge into days, and always make a record that the contract takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.contract.result import Summary
from edge_runtime.summaries import DAY_MS, HOUR_MS, OpenSummary, hour_of, merge_to_day

BUNDLE = "ef" * 32


def filled(scores: list[float], latency_us: int = 5, hour: int = 0) -> OpenSummary:
    summary = OpenSummary(hour * HOUR_MS + 59)
    for score in scores:
        summary.add_window(score, is_anomaly=score > 0.9, latency_us=latency_us)
        summary.add_cells(25, 2)
    return summary


@given(st.lists(st.floats(0, 1), max_size=30), st.integers(0, 10), st.integers(0, 10))
def test_a_closed_summary_is_a_valid_record(scores: list[float], warming_up: int, late: int) -> None:
    summary = filled(scores, hour=7)
    summary.warming_up, summary.late = warming_up, late
    again = OpenSummary.from_json(summary.to_json())
    record = again.closed(BUNDLE, 7 * HOUR_MS)
    assert Summary.from_dict({**record.to_dict(), "sequence": 1}).windows == len(scores)
    assert record.values == 25 * len(scores)
    assert record.missing == 2 * len(scores)


def test_a_day_holds_what_its_hours_held() -> None:
    hours = [filled([0.1, 0.95], hour, hour).closed(BUNDLE, hour * HOUR_MS) for hour in range(24, 48)]
    day = merge_to_day(hours)
    assert (day.period, day.period_start_ms, day.windows, day.anomalous) == ("day", DAY_MS, 48, 24)
    assert day.latency_max_us == 47
    assert day.newest_reading_ms == 47 * HOUR_MS + 59
    assert day.latency_sum_us == sum(hour.latency_sum_us for hour in hours)
    assert sum(day.histogram) == 48
    assert Summary.from_dict({**merge_to_day([day, hours[0]]).to_dict(), "sequence": 1}).windows == 50


def test_days_do_not_mix() -> None:
    with pytest.raises(ValueError, match="2 bundles and days"):
        merge_to_day([filled([]).closed(BUNDLE, 0), filled([]).closed(BUNDLE, DAY_MS)])


def test_the_hour_of_a_time() -> None:
    assert hour_of(HOUR_MS) == HOUR_MS
    assert hour_of(2 * HOUR_MS - 1) == HOUR_MS
