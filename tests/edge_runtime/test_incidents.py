"""The incident rule of the contract, window by window."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.incidents import OpenIncident, Step, ended_event, observe

HOUR = 3_600_000
MINUTE = 60_000
BUNDLE = "cd" * 32


def run(windows: list[tuple[int, float]], gap: int = 3) -> list[Step]:
    """Feed (time, score) pairs; 0.9 and more is anomalous."""
    steps: list[Step] = []
    incident: OpenIncident | None = None
    for at_ms, score in windows:
        step = observe(
            incident, bundle=BUNDLE, timestamp_ms=at_ms, anomaly_score=score, is_anomaly=score >= 0.9, gap=gap
        )
        incident = step.incident
        steps.append(step)
    return steps


def test_stored_are_the_first_each_maximum_and_one_an_hour() -> None:
    scores = [0.5, 0.95, 0.94, 0.96, 0.96, 0.95]
    steps = run([(index * MINUTE, score) for index, score in enumerate(scores)])
    assert [step.stored for step in steps] == [False, True, False, True, False, False]
    later = run([(0, 0.95), (HOUR - 1, 0.91), (HOUR, 0.91), (HOUR + 1, 0.91), (2 * HOUR, 0.91)])
    assert [step.stored for step in later] == [True, False, True, False, True]
    assert later[-1].incident == OpenIncident(BUNDLE, 0, 5, 0.95, 0, 2 * HOUR)


def test_healthy_windows_end_it_only_in_a_row() -> None:
    steps = run([(0, 0.95), (1, 0.1), (2, 0.1), (3, 0.92), (4, 0.1), (5, 0.1), (6, 0.1), (7, 0.1)])
    assert [step.ended is not None for step in steps] == [False] * 6 + [True, False]
    ended = steps[6].ended
    assert ended is not None
    event = ended_event(ended, 6)
    assert event.name == "incident_ended"
    assert event.detail == {"incident_started_at_ms": 0, "windows": 2, "highest_anomaly_score": 0.95}


def test_a_gap_of_one_ends_at_the_first_healthy_window() -> None:
    assert [step.incident is None for step in run([(0, 0.95), (1, 0.1), (2, 0.95)], gap=1)] == [False, True, False]


@given(st.lists(st.tuples(st.integers(1, 3 * HOUR), st.sampled_from([0.1, 0.9, 0.95, 0.99])), max_size=60))
def test_every_anomalous_window_is_in_one_incident(steps_in_time: list[tuple[int, float]]) -> None:
    at_ms, windows = 0, []
    for step_ms, score in steps_in_time:
        at_ms += step_ms
        windows.append((at_ms, score))
    steps = run(windows)
    ended = [step.ended for step in steps if step.ended is not None]
    last = steps[-1].incident if steps else None
    counted = sum(incident.windows for incident in ended) + (last.windows if last else 0)
    assert counted == sum(score >= 0.9 for _, score in windows)
    # Each incident stores at least its first window and its maximum.
    assert sum(step.stored for step in steps) >= len(ended) + (last is not None)
