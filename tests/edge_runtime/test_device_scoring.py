"""Readings in, records out: judged, windowed, scored and stored as the contract says, whatever kills the process."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from simulators.edge_models import HOUR_MS, tiny_bundle, tiny_manifest

from edge_runtime.bundle_store import ActiveBundle
from edge_runtime.contract.result import Anomaly, AnyRecord, Event, Summary, record_digest
from edge_runtime.device_scoring import Device
from edge_runtime.edge_db import EdgeDatabase
from edge_runtime.errors import ScoringError, StorageError
from edge_runtime.home import Home
from edge_runtime.outbox import Outbox
from edge_runtime.reading_scorer import ReadingScorer
from edge_runtime.readings import ReadingGroup, UnusableReadingError
from edge_runtime.scoring_state import close_open_summaries, kept_readings
from edge_runtime.scoring_status import scoring_status
from edge_runtime.verdict import Verdict
from edge_runtime.windows import gather, window_indices

START = 1_800_000_000_000 - 1_800_000_000_000 % HOUR_MS
NOW = START + 90 * 24 * HOUR_MS


@pytest.fixture
def bundle(tmp_path: Path) -> ActiveBundle:
    return tiny_bundle()


@pytest.fixture
def database(tmp_path: Path) -> EdgeDatabase:
    return EdgeDatabase(tmp_path / "edge.db")


def scorer(database: EdgeDatabase, bundle: ActiveBundle, clock_ms: int = NOW, **options: object) -> ReadingScorer:
    return ReadingScorer(database, bundle, clock_ms=lambda: clock_ms, **options)  # type: ignore[arg-type]


def group(values: list[float], first_hour: int = 0, step_ms: int = HOUR_MS) -> ReadingGroup:
    """Both signals hold the value, so that a full window of one value scores exactly that value."""
    times = START + (first_hour * HOUR_MS) + np.arange(len(values), dtype=np.int64) * step_ms
    return ReadingGroup(times, np.repeat(np.float32(values)[:, None], 2, axis=1))


def outcomes(verdicts: list[Verdict]) -> list[str]:
    return [verdict.outcome for verdict in verdicts]


def records(database: EdgeDatabase) -> tuple[AnyRecord, ...]:
    close_open_summaries(database)
    return Outbox(database).lease().records


def results(database: EdgeDatabase) -> list[str]:
    """Every record without what differs from run to run: its number and how long scoring took."""
    found = []
    for record in records(database):
        fields = record.to_dict()
        for name in ("sequence", "latency_sum_us", "latency_max_us"):
            fields.pop(name, None)
        found.append(json.dumps([record.table, fields]))
    return sorted(found)


def test_warming_up_then_verdicts(database: EdgeDatabase, bundle: ActiveBundle) -> None:
    verdicts = scorer(database, bundle).score(group([0.1, 0.1, 2.0, 2.0, 2.0, 2.0, 2.0]))
    assert outcomes(verdicts) == ["warming_up", *["scored"] * 6]
    assert verdicts[-1].raw_score == pytest.approx(2.0)
    assert [verdict.is_anomaly for verdict in verdicts] == [None, False, False, True, True, True, True]
    assert verdicts[3].incident_started_at_ms == START + 3 * HOUR_MS
    assert database.counters() == {"readings_scored": 6, "readings_warming_up": 1}


def test_what_a_group_causes_is_recorded(database: EdgeDatabase, bundle: ActiveBundle) -> None:
    values = [0.1] * 4 + [3.0] * 5 + [0.1] * 10
    verdicts = scorer(database, bundle).score(group(values))
    found = records(database)
    stored = [r for r in found if isinstance(r, Anomaly)]
    assert [r.observed_at_ms for r in stored] == [v.timestamp_ms for v in verdicts if v.stored]
    assert {r.bundle for r in stored} == {bundle.digest}
    assert stored[0].windows == 1
    assert stored[-1].windows == len([v for v in verdicts if v.is_anomaly])
    [ended] = [r for r in found if isinstance(r, Event)]
    assert ended.name == "incident_ended"
    assert ended.detail["windows"] == stored[-1].windows
    summaries = [r for r in found if isinstance(r, Summary)]
    assert [r.period_start_ms for r in summaries] == [START + hour * HOUR_MS for hour in range(19)]
    assert sum(r.windows for r in summaries) == 18
    assert sum(r.warming_up for r in summaries) == 1
    assert sum(r.anomalous for r in summaries) == stored[-1].windows
    assert sum(r.values for r in summaries) == 2 * 19
    # Each signal carries half of what the windows are above the references (0.1).
    assert dict(stored[-1].contributions).keys() == {"battery", "radio"}
    top = max(stored, key=lambda r: r.anomaly_score)
    assert dict(top.contributions)["battery"] == pytest.approx((3.0 - 0.1) / 2, rel=1e-5)


def test_status_knows_how_far_scoring_is(database: EdgeDatabase, bundle: ActiveBundle) -> None:
    assert scoring_status(database)["newest_reading_ms"] is None
    scorer(database, bundle).score(group([0.1] * 4 + [3.0] * 3))
    found = scoring_status(database)
    assert found["newest_reading_ms"] == START + 6 * HOUR_MS
    assert (found["bundle"], found["readings_kept"]) == (bundle.digest, 4)
    assert (found["incident"]["windows"], found["incident"]["started_at_ms"]) == (2, START + 5 * HOUR_MS)


def test_groups_of_any_size_give_the_same_results(tmp_path: Path, bundle: ActiveBundle) -> None:
    generator = np.random.default_rng(3)
    readings = group(list(generator.choice([0.1, 0.2, 2.0, 3.0], 120)), step_ms=HOUR_MS // 3)
    expected = None
    for size in (120, 1, 7):
        database = EdgeDatabase(tmp_path / f"{size}.db")
        for start in range(0, 120, size):
            # Each group in a scorer of its own: the state comes back from the database.
            scorer(database, bundle).score(readings.select(np.arange(start, min(120, start + size))))
        found = results(database)
        assert expected is None or found == expected
        expected = found


def test_feeding_everything_again_changes_no_result(database: EdgeDatabase, bundle: ActiveBundle) -> None:
    readings = group([0.1] * 6 + [2.0] * 6)
    first = scorer(database, bundle)
    first.score(readings)
    before = [r for r in records(database) if isinstance(r, Anomaly)]
    again = scorer(database, bundle).score(readings)
    # The window still holds the last four readings: those are known to be duplicates.
    assert outcomes(again) == ["late"] * 8 + ["duplicate"] * 4
    after = records(database)
    assert [r for r in after if isinstance(r, Anomaly)] == before
    # One summary says that late readings came, in the newest hour, instead of one for every hour fed again.
    assert sum(r.late for r in after if isinstance(r, Summary)) == 8
    assert sum(r.windows for r in after if isinstance(r, Summary)) == 11
    assert len([r for r in after if isinstance(r, Summary)]) == 13


def test_an_upload_in_the_middle_of_an_hour_splits_its_summary(database: EdgeDatabase, bundle: ActiveBundle) -> None:
    who = scorer(database, bundle)
    who.score(group([0.1] * 4, step_ms=HOUR_MS // 10))
    assert close_open_summaries(database) == 1
    assert close_open_summaries(database) == 0
    who.score(ReadingGroup(START + np.int64([HOUR_MS - 2, HOUR_MS - 1]), np.zeros((2, 2), np.float32)))
    parts = [r for r in records(database) if isinstance(r, Summary)]
    assert [(r.period_start_ms, r.windows, r.warming_up) for r in parts] == [(START, 0, 4), (START, 0, 2)]


def test_readings_out_of_order_and_from_the_future(database: EdgeDatabase, bundle: ActiveBundle) -> None:
    times = np.array([START, START + 5, START + 3, START + 5, NOW + 86_400_001, START + 9], dtype=np.int64)
    verdicts = scorer(database, bundle).score(ReadingGroup(times, np.full((6, 2), 0.5, np.float32)))
    assert outcomes(verdicts) == ["warming_up", "warming_up", "late", "duplicate", "future", "warming_up"]


def test_a_clock_that_steps_back_starts_the_window_afresh(database: EdgeDatabase, bundle: ActiveBundle) -> None:
    ahead = NOW + 30 * 24 * HOUR_MS
    readings = ReadingGroup(ahead + np.arange(5, dtype=np.int64) * HOUR_MS, np.full((5, 2), 2, np.float32))
    scorer(database, bundle, clock_ms=ahead).score(readings)
    right = ReadingGroup(NOW + np.arange(1, 4, dtype=np.int64) * HOUR_MS, np.full((3, 2), 0.1, np.float32))
    verdicts = scorer(database, bundle).score(right)
    assert outcomes(verdicts) == ["warming_up", "scored", "scored"]
    events = [r for r in records(database) if isinstance(r, Event)]
    assert [r.name for r in events] == ["incident_ended", "clock_stepped"]
    assert events[1].detail == {"from_ms": ahead, "to_ms": NOW}
    # Once is enough.
    scorer(database, bundle).score(group([0.1]))
    assert len([r for r in records(database) if isinstance(r, Event)]) == 2


def test_another_bundle_of_the_same_signals_keeps_the_window(
    database: EdgeDatabase, bundle: ActiveBundle, tmp_path: Path
) -> None:
    scorer(database, bundle).score(group([3.0] * 6))
    newer = tiny_bundle(salt="2")
    assert newer.digest != bundle.digest
    verdicts = scorer(database, newer).score(group([3.0] * 2, first_hour=6))
    assert outcomes(verdicts) == ["scored"] * 2
    assert verdicts[0].raw_score == pytest.approx(3.0)
    assert verdicts[0].incident_started_at_ms == START + 6 * HOUR_MS
    found = records(database)
    [ended] = [r for r in found if isinstance(r, Event)]
    assert (ended.bundle, ended.detail["windows"]) == (bundle.digest, 5)
    assert {r.bundle for r in found if isinstance(r, Summary)} == {bundle.digest, newer.digest}


def test_another_bundle_of_other_signals_starts_afresh(
    database: EdgeDatabase, bundle: ActiveBundle, tmp_path: Path
) -> None:
    scorer(database, bundle).score(group([3.0] * 6))
    other = tiny_bundle(context=True)
    readings = ReadingGroup(group([0.1] * 2, first_hour=6).times_ms, np.zeros((2, 3), np.float32))
    assert outcomes(scorer(database, other).score(readings)) == ["warming_up", "scored"]
    # And back: of three signals, two are those of the first bundle.
    assert outcomes(scorer(database, bundle).score(group([0.1], first_hour=8))) == ["scored"]


def test_a_gap_is_not_seen_across(database: EdgeDatabase, bundle: ActiveBundle) -> None:
    scorer(database, bundle).score(group([2.0] * 4))
    assert outcomes(scorer(database, bundle).score(group([2.0] * 2, first_hour=40))) == ["warming_up", "scored"]


def test_only_the_edges_of_a_slot_are_kept() -> None:
    rule = tiny_manifest(slots=2).window
    times = np.array([5, HOUR_MS, HOUR_MS + 1, HOUR_MS + 2, 2 * HOUR_MS + 7], dtype=np.int64)
    assert kept_readings(times, rule).tolist() == [False, True, False, True, True]
    assert kept_readings(times[:0], rule).tolist() == []


def test_forgetting_readings_changes_no_window(database: EdgeDatabase, tmp_path: Path) -> None:
    bundle = tiny_bundle(minimum=1)
    generator = np.random.default_rng(5)
    times = START + np.cumsum(
        generator.choice([60_000, 600_000, 2_000_000, 7 * HOUR_MS], 300, p=[0.4, 0.4, 0.17, 0.03])
    )
    cells = generator.normal(0, 1, (300, 2)).astype(np.float32)
    cells[generator.random(cells.shape) < 0.1] = np.nan
    raws = []
    for start in range(0, 300, 11):
        part = ReadingGroup(times[start : start + 11].astype(np.int64), cells[start : start + 11])
        raws += [verdict.raw_score for verdict in scorer(database, bundle).score(part)]
    whole = gather(cells, window_indices(times.astype(np.int64), bundle.manifest.window))
    expected = scorer(database, bundle).judge_windows(whole).raw_score
    assert raws == pytest.approx(expected.tolist(), abs=1e-7)


def test_two_scorers_of_one_home_give_one_result_each(database: EdgeDatabase, bundle: ActiveBundle) -> None:
    readings = group([0.1] * 5 + [2.0] * 25)
    one, two = scorer(database, bundle), scorer(EdgeDatabase(database.path), bundle)
    fates: Counter[str] = Counter()
    for start in range(0, 30, 5):
        part = readings.select(np.arange(start, start + 5))
        for who in (one, two) if start % 2 else (two, one):
            fates.update(outcomes(who.score(part)))
    assert fates["scored"] + fates["warming_up"] == 30
    stored = [r for r in records(database) if isinstance(r, Anomaly)]
    assert len({r.observed_at_ms for r in stored}) == len(stored) > 0


def test_a_full_disk_leaves_the_group_for_later(database: EdgeDatabase, bundle: ActiveBundle) -> None:
    who = scorer(database, bundle)
    who.score(group([2.0] * 10))
    with database.reading() as sql:
        sql.execute(f"PRAGMA max_page_count = {sql.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(StorageError, match="disk is full"):
        _score_all(who)
    scored = database.counters()["readings_scored"]
    with database.reading() as sql:
        sql.execute("PRAGMA max_page_count = 1000000")
    _score_all(who)
    assert database.counters()["readings_scored"] == 2009 > scored
    assert sum(r.windows for r in records(database) if isinstance(r, Summary)) == 2009


def test_the_api_of_an_app(tmp_path: Path, bundle: ActiveBundle) -> None:
    with Device(Home(tmp_path), EdgeDatabase(tmp_path / "edge.db"), bundle, "all") as device:
        verdicts = device.score({"timestamp": hour * 3600, "battery": 2, "radio": None} for hour in range(300))
        assert len(verdicts) == 300
        line = verdicts[5].to_dict()
        assert line["timestamp"].endswith("Z")
        assert line["is_anomaly"] is True
        assert dict(verdicts[7].contributions)["battery"] == pytest.approx(1.9, rel=1e-4)
        with pytest.raises(UnusableReadingError, match="battery"):
            device.score([{"timestamp": NOW / 1000, "battery": "full"}])


def test_a_home_without_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match="no active bundle") as caught:
        Device.open(tmp_path)
    assert caught.value.reason == "no_bundle"
    assert not (tmp_path / "edge.db").exists()


def _score_all(who: ReadingScorer) -> None:
    for hour in range(10, 2000, 100):
        who.score(group([2.0] * 100, first_hour=hour))


def _feed(path: str, readings: ReadingGroup) -> None:
    who = scorer(EdgeDatabase(Path(path)), tiny_bundle())
    for start in range(0, len(readings.times_ms), 20):
        who.score(readings.select(np.arange(start, start + 20)))
        time.sleep(0.002)


def test_killed_at_any_moment_and_fed_again(tmp_path: Path, bundle: ActiveBundle) -> None:
    generator = np.random.default_rng(1)
    readings = group(list(generator.choice([0.1, 0.2, 2.0, 3.0], 1000, p=[0.4, 0.4, 0.1, 0.1])), step_ms=HOUR_MS // 2)
    calm = EdgeDatabase(tmp_path / "calm.db")
    _feed(str(calm.path), readings)
    path = tmp_path / "killed.db"
    chance = random.Random(7)
    context = multiprocessing.get_context("fork")
    for attempt in range(8):
        process = context.Process(target=_feed, args=(str(path), readings))
        process.start()
        process.join(None if attempt == 7 else chance.uniform(0.02, 0.3))
        process.kill()
        process.join()
        process.close()
    killed = EdgeDatabase(path)
    without_late = [
        [r for r in results(d) if '"windows": 0, "anomalous": 0, "warming_up": 0' not in r] for d in (killed, calm)
    ]
    assert _added_up(without_late[0]) == _added_up(without_late[1])


def _added_up(lines: list[str]) -> tuple[list[str], dict[tuple[str, int], Counter[str]]]:
    """Summaries are deltas: what counts is their sum by hour, late readings (fed again) aside."""
    others, hours = [], {}
    for line in lines:
        kind, fields = json.loads(line)
        if kind != "summaries":
            others.append(line)
            continue
        counts = hours.setdefault((fields["bundle"], fields["period_start_ms"]), Counter())
        counts.update({name: fields[name] for name in ("windows", "anomalous", "warming_up", "values", "missing")})
        counts.update({f"bin{index}": count for index, count in enumerate(fields["histogram"])})
    return others, hours


def tiny_manifest_rule(slots: int):
    from simulators.edge_models import tiny_manifest

    return tiny_manifest(slots=slots).window


def test_readings_of_a_wrong_clock_leave_the_next_window(database: EdgeDatabase, bundle: ActiveBundle) -> None:
    """The mark goes back with the clock: other readings of the same times come, and replace those on disk."""
    back = NOW - 3 * 24 * HOUR_MS
    times = back + np.arange(1, 5, dtype=np.int64) * HOUR_MS
    for value, clock in ((9.0, NOW), (0.1, back)):
        verdicts = scorer(database, bundle, clock).score(ReadingGroup(times[:3], np.full((3, 2), value, np.float32)))
        assert outcomes(verdicts) == ["warming_up", "scored", "scored"]
    # A process of its own reads the window from the disk.
    [verdict] = scorer(database, bundle, back).score(ReadingGroup(times[3:], np.full((1, 2), 0.1, np.float32)))
    assert verdict.raw_score == pytest.approx(0.1)


def test_two_deltas_that_count_the_same_are_two_records(tmp_path: Path, bundle: ActiveBundle) -> None:
    """A restored home gives its next delta a number that the server holds: equal digests would lose one of them."""
    digests = []
    for minute in (10, 20):
        with EdgeDatabase(tmp_path / f"{minute}.db") as database:
            times = START + np.arange(1, 3, dtype=np.int64) * minute * 60_000
            scorer(database, bundle).score(ReadingGroup(times, np.full((2, 2), 0.1, dtype=np.float32)))
            [summary] = records(database)
            assert isinstance(summary, Summary)
            digests.append(record_digest(summary))
    assert digests[0] != digests[1]
