"""The outbox: nothing lost without a gap record, nothing twice, whatever happens in whatever order."""

from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_runtime.contract.batch import Refusal, ResultsAnswer, ranges
from edge_runtime.contract.result import Anomaly, AnyRecord, Event, Gap, Summary, record_digest
from edge_runtime.edge_db import EdgeDatabase
from edge_runtime.edge_schema import SCHEMA_VERSION
from edge_runtime.errors import StorageError
from edge_runtime.outbox import Lease, Outbox, OutboxLimits
from edge_runtime.outbox.renumber import renumbered
from edge_runtime.outbox.room import StoredRecord, joined, plan_room

BUNDLE = "ab" * 32
HOUR = 3_600_000
NOW = 1_800_000_000_000


def anomaly(at_ms: int) -> Anomaly:
    return Anomaly(0, BUNDLE, at_ms, at_ms, 0.9995, 0.61, 1, (("battery", 0.1),), stale=False)


def summary(hour: int, windows: int = 10) -> Summary:
    histogram = (windows, *[0] * 14)
    return Summary(
        0, BUNDLE, hour * HOUR, "hour", hour * HOUR + 60_000, windows, 0, 1, 0, 50, 2, histogram, windows, 100, 20
    )


def event(at_ms: int) -> Event:
    return Event(0, None, at_ms, "update_activated", {"release": 2})


@pytest.fixture
def database(tmp_path: Path) -> EdgeDatabase:
    return EdgeDatabase(tmp_path / "edge.db")


def held(lease: Lease) -> ResultsAnswer:
    return ResultsAnswer(len(lease.records), ranges(r.sequence for r in lease.records), ())


def test_records_are_numbered_from_one_and_acknowledged_by_ranges(database: EdgeDatabase) -> None:
    outbox = Outbox(database)
    outbox.append([anomaly(NOW), summary(1)])
    outbox.append([event(NOW)])
    lease = outbox.lease()
    assert [record.sequence for record in lease.records] == [1, 2, 3]
    assert lease.records[0] == Anomaly(1, *_fields(anomaly(NOW)))
    settled = outbox.settle(lease, ResultsAnswer(2, ((1, 1), (3, 3)), ()), NOW)
    assert settled.acknowledged == 2
    assert [record.sequence for record in outbox.lease().records] == [2]
    assert outbox.state().next_sequence == 4


def test_an_answer_deletes_only_what_was_leased(database: EdgeDatabase) -> None:
    outbox = Outbox(database)
    outbox.append([event(NOW)])
    lease = outbox.lease()
    outbox.append([event(NOW)])
    assert outbox.settle(lease, ResultsAnswer(0, ((1, 2**50),), ()), NOW).acknowledged == 1
    assert outbox.state().records == 1


def test_a_refused_record_becomes_a_dead_letter(database: EdgeDatabase) -> None:
    outbox = Outbox(database, OutboxLimits(max_dead_letters=2))
    outbox.append([event(NOW)] * 3)
    refusals = tuple(Refusal(n, "bad_record", "no") for n in (1, 2, 3))
    settled = outbox.settle(outbox.lease(), ResultsAnswer(0, (), refusals), NOW)
    assert (settled.refused, settled.forked_to) == (3, None)
    state = outbox.state()
    assert (state.records, state.dead_letters) == (0, 2)
    assert database.counters() == {"dead_letters_dropped": 1, "records_refused": 3}
    assert [letter.reason for letter in outbox.dead_letters()] == ["bad_record"] * 2
    assert "update_activated" in outbox.dead_letters(1)[0].body


def test_reused_numbers_fork_the_stream(database: EdgeDatabase) -> None:
    outbox = Outbox(database)
    outbox.append([event(NOW), anomaly(NOW), summary(3)])
    lease = outbox.lease()
    answer = ResultsAnswer(0, ((1, 1),), (Refusal(2, "sequence_reused", ""), Refusal(3, "sequence_reused", "")))
    settled = outbox.settle(lease, answer, NOW)
    after = outbox.lease()
    assert settled.forked_to == after.stream != lease.stream
    assert [type(record) for record in after.records] == [Anomaly, Summary, Event]
    assert [record.sequence for record in after.records] == [1, 2, 3]
    last = after.records[-1]
    assert isinstance(last, Event)
    assert last.name == "stream_forked"
    assert last.detail["old_stream"] == lease.stream
    # The answer to something sent before the fork speaks of other records.
    assert outbox.settle(lease, held(lease), NOW).acknowledged == 0


def test_a_full_outbox_merges_summaries_into_days_first(database: EdgeDatabase) -> None:
    outbox = Outbox(database, OutboxLimits(max_records=60))
    outbox.append([anomaly(NOW)])
    outbox.append([summary(hour) for hour in range(72)])
    records = outbox.lease().records
    days = [r for r in records if isinstance(r, Summary) and r.period == "day"]
    gaps = [r for r in records if isinstance(r, Gap)]
    assert [day.windows for day in days] == [240] * len(days)
    assert sum(r.windows for r in records if isinstance(r, Summary)) == 720
    assert all(gap.reason == "summaries_merged" for gap in gaps)
    assert sum(gap.count for gap in gaps) == 24 * len(days)
    assert sum(isinstance(r, Anomaly) for r in records) == 1
    assert len(records) <= 60
    assert "records_dropped" not in database.counters()


def test_sent_summaries_are_never_merged(database: EdgeDatabase) -> None:
    outbox = Outbox(database, OutboxLimits(max_records=30))
    outbox.append([summary(hour) for hour in range(10)])
    lease = outbox.lease()
    outbox.append([summary(hour) for hour in range(10, 40)])
    outbox.settle(lease, held(lease), NOW)
    left = [r for r in outbox.lease().records if isinstance(r, Summary)]
    assert sum(r.windows for r in [*lease.records, *left] if isinstance(r, Summary)) == 400


def test_a_released_lease_counts_as_never_sent(database: EdgeDatabase) -> None:
    outbox = Outbox(database, OutboxLimits(max_records=30))
    outbox.append([summary(hour) for hour in range(24)])
    outbox.release(outbox.lease())
    outbox.append([summary(hour) for hour in range(24, 48)])
    assert any(isinstance(r, Summary) and r.period == "day" for r in outbox.lease().records)


def test_what_an_earlier_lease_held_stays_marked(database: EdgeDatabase) -> None:
    outbox = Outbox(database, OutboxLimits(max_records=30))
    outbox.append([summary(hour) for hour in range(24)])
    arrived = outbox.lease()  # and its answer was lost
    outbox.append([summary(24)])
    second = outbox.lease()
    assert second.fresh_from == 25
    outbox.release(second)
    outbox.append([summary(hour) for hour in range(25, 48)])
    outbox.settle(arrived, held(arrived), NOW)
    left = outbox.lease().records
    assert sum(r.windows for r in [*arrived.records, *left] if isinstance(r, Summary)) == 480


def test_anomalies_go_last_and_leave_a_gap(database: EdgeDatabase) -> None:
    outbox = Outbox(database, OutboxLimits(max_records=20))
    for index in range(100):
        outbox.append([anomaly(NOW + index)])
    records = outbox.lease().records
    assert len(records) <= 20
    gaps = [r for r in records if isinstance(r, Gap)]
    kept = [r.observed_at_ms - NOW for r in records if isinstance(r, Anomaly)]
    assert kept == list(range(100 - len(kept), 100))
    assert {gap.reason for gap in gaps} == {"outbox_full", "gaps_joined"}
    assert _covered(records) == list(range(1, outbox.state().next_sequence))


def test_bytes_are_bounded_too(database: EdgeDatabase) -> None:
    outbox = Outbox(database, OutboxLimits(max_bytes=20_000))
    for index in range(300):
        outbox.append([anomaly(NOW + index)])
    assert outbox.state().bytes <= 20_000


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    database = EdgeDatabase(tmp_path / "edge.db")
    outbox = Outbox(database)
    outbox.append([anomaly(NOW)])
    with database.reading() as sql:
        pages = sql.execute("PRAGMA page_count").fetchone()[0]
        sql.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match="disk is full") as caught:
        outbox.append([anomaly(NOW + index) for index in range(500)])
    assert caught.value.exit_code == 6
    assert caught.value.fields["reason"] == "disk_full"
    assert outbox.state().records == 1
    assert outbox.state().next_sequence == 2


def test_a_strange_or_damaged_file_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as sql:
        sql.execute("CREATE TABLE t (x)")
    sql.close()
    with pytest.raises(StorageError, match="not a device's"):
        EdgeDatabase(other)
    noise = tmp_path / "noise.db"
    noise.write_bytes(b"no database " * 1000)
    with pytest.raises(StorageError, match="not a database"):
        EdgeDatabase(noise)
    EdgeDatabase(tmp_path / "new.db").close()
    with sqlite3.connect(tmp_path / "new.db") as sql:
        sql.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    sql.close()
    with pytest.raises(StorageError, match="format 2"):
        EdgeDatabase(tmp_path / "new.db")
    with pytest.raises(StorageError, match="no device database"):
        EdgeDatabase(tmp_path / "absent.db", create=False)
    with pytest.raises(StorageError, match="cannot be reached"):
        EdgeDatabase(tmp_path / "missing" / "edge.db")


def test_a_locked_database_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_runtime.edge_db.BUSY_TIMEOUT_MS", 50)
    first, second = EdgeDatabase(tmp_path / "edge.db"), EdgeDatabase(tmp_path / "edge.db")
    with first.transaction(), pytest.raises(StorageError, match="another process"):
        Outbox(second).append([event(NOW)])
    Outbox(second).append([event(NOW)])


def test_renumbering_keeps_order_and_runs() -> None:
    numbers, following = renumbered([4, 9, 12], [(5, 8), (10, 10)])
    assert numbers.records == {4: 1, 9: 6, 12: 8}
    assert numbers.runs == {5: 2, 10: 7}
    assert following == 9


def test_runs_that_touch_become_one() -> None:
    assert joined([(5, 6, "summaries_merged"), (1, 4, "outbox_full"), (8, 8, "summaries_merged")]) == [
        (1, 6, "outbox_full"),
        (8, 8, "summaries_merged"),
    ]


def test_a_plan_without_candidates_removes_nothing() -> None:
    gap = StoredRecord(3, "gaps", 90, sent=True, run=(1, 2, "outbox_full"))
    assert plan_room([gap], max_records=0, max_bytes=0).removed == set()


def _write_for_ever(path: str) -> None:
    outbox = Outbox(EdgeDatabase(Path(path)), OutboxLimits(max_records=200))
    hour = outbox.state().next_sequence
    while True:
        outbox.append([summary(hour), anomaly(NOW)])
        hour += 1


def test_a_killed_writer_leaves_no_hole(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    EdgeDatabase(path).close()
    context = multiprocessing.get_context("fork")
    for delay in (0.05, 0.11, 0.17, 0.23):
        process = context.Process(target=_write_for_ever, args=(str(path),))
        process.start()
        process.join(delay)
        process.kill()
        process.join()
        process.close()
        outbox = Outbox(EdgeDatabase(path))
        lease = outbox.lease()
        outbox.release(lease)
        assert _covered(lease.records) == list(range(1, outbox.state().next_sequence))


class OutboxMachine(RuleBasedStateMachine):
    """A device with a tiny store, a server that takes, refuses or forgets, and answers that come late."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.database = EdgeDatabase(Path(self.folder.name) / "edge.db")
        self.outbox = Outbox(self.database, OutboxLimits(max_records=25))
        self.made = 0
        self.windows_made = 0
        self.leases: list[Lease] = []
        self.server: dict[tuple[str, int], AnyRecord] = {}
        self.refused: set[tuple[str, int]] = set()
        self.hour = 0

    def teardown(self) -> None:
        self.database.close()
        self.folder.cleanup()

    @rule(amount=st.integers(1, 8))
    def raise_anomalies(self, amount: int) -> None:
        self.outbox.append([anomaly(NOW + self.made + index) for index in range(amount)])
        self.made += amount

    @rule(amount=st.integers(1, 12))
    def close_summaries(self, amount: int) -> None:
        for _ in range(amount):
            self.outbox.append([summary(self.hour, windows=7)])
            self.hour += 1
        self.windows_made += 7 * amount

    @rule(most=st.integers(1, 30))
    def lease(self, most: int) -> None:
        self.leases.append(self.outbox.lease(most))

    @rule(most=st.integers(1, 30))
    def reach_nobody(self, most: int) -> None:
        self.outbox.release(self.outbox.lease(most))

    @precondition(lambda self: self.leases)
    @rule(lost=st.booleans(), data=st.data())
    def send(self, lost: bool, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        bad = data.draw(st.sets(st.sampled_from(lease.records).map(lambda r: r.sequence))) if lease.records else set()
        bad -= {r.sequence for r in lease.records if isinstance(r, Gap)}
        refusals = []
        for record in lease.records:
            key = (lease.stream, record.sequence)
            if key not in self.server and (record.sequence in bad or key in self.refused):
                self.refused.add(key)
                refusals.append(Refusal(record.sequence, "bad_record", "as drawn"))
                continue
            # A retry may never bring something else under the same number.
            assert self.server.setdefault(key, record) == record
        refused_numbers = {refusal.sequence for refusal in refusals}
        answer = ResultsAnswer(
            0, ranges(r.sequence for r in lease.records if r.sequence not in refused_numbers), tuple(refusals)
        )
        if not lost:
            self.outbox.settle(lease, answer, NOW)

    @invariant()
    def numbers_are_accounted_for(self) -> None:
        state = self.outbox.state()
        waiting = _waiting(self.database)
        numbers = [record.sequence for record in waiting]
        assert len(numbers) == len(set(numbers)) == state.records
        held_or_refused = {n for stream, n in [*self.server, *self.refused] if stream == state.stream}
        gaps = [r for r in [*waiting, *self.server.values()] if isinstance(r, Gap)]
        named = {n for gap in gaps for n in range(gap.first_sequence, gap.last_sequence + 1)}
        assert set(range(1, state.next_sequence)) <= set(numbers) | held_or_refused | named
        # What still waits was not given up.
        assert not named & set(numbers)

    @invariant()
    def windows_are_never_counted_twice(self) -> None:
        known = dict(self.server)
        stream = self.outbox.state().stream
        for record in _waiting(self.database):
            known[(stream, record.sequence)] = record
        windows = sum(record.windows for record in known.values() if isinstance(record, Summary))
        assert windows <= self.windows_made
        anomalies = [r.observed_at_ms for r in known.values() if isinstance(r, Anomaly)]
        assert len(anomalies) == len(set(anomalies)) <= self.made

    @invariant()
    def the_store_is_bounded(self) -> None:
        assert self.outbox.state().records <= 25 + 8


OutboxMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
test_any_order_of_operations = OutboxMachine.TestCase


def _waiting(database: EdgeDatabase) -> list[AnyRecord]:
    outbox = Outbox(database)
    lease = outbox.lease()
    outbox.release(lease)
    return list(lease.records)


def _covered(records: tuple[AnyRecord, ...]) -> list[int]:
    numbers = [record.sequence for record in records]
    for record in records:
        if isinstance(record, Gap):
            numbers += range(record.first_sequence, record.last_sequence + 1)
    return sorted(numbers)


def _fields(record: Anomaly) -> list[object]:
    return [getattr(record, name) for name in record.fields[1:]]


class ServerSimulator:
    """The contract's server for one device: what it holds by (stream, number), and the digest of each."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, int], AnyRecord] = {}

    def upload(self, outbox: Outbox) -> int:
        """Send all of an outbox in small batches; returns how often the device opened a new stream."""
        forks = 0
        while (lease := outbox.lease(7)).records:
            refused, kept = [], []
            for record in lease.records:
                known = self.held.setdefault((lease.stream, record.sequence), record)
                if record_digest(known) == record_digest(record):
                    kept.append(record.sequence)
                else:
                    refused.append(Refusal(record.sequence, "sequence_reused", ""))
            forks += outbox.settle(lease, ResultsAnswer(0, ranges(kept), tuple(refused)), NOW).forked_to is not None
        return forks

    def anomalies(self) -> list[int]:
        return sorted(r.observed_at_ms - NOW for r in self.held.values() if isinstance(r, Anomaly))


def test_a_home_restored_from_an_older_copy_loses_and_repeats_nothing(tmp_path: Path) -> None:
    server, path = ServerSimulator(), tmp_path / "edge.db"
    with EdgeDatabase(path) as database:
        Outbox(database).append(anomaly(NOW + index) for index in range(50))
        server.upload(Outbox(database))
    copy = path.read_bytes()
    with EdgeDatabase(path) as database:
        Outbox(database).append(anomaly(NOW + index) for index in range(50, 150))
        server.upload(Outbox(database))
    path.write_bytes(copy)
    with EdgeDatabase(path) as database:
        outbox = Outbox(database)
        # More than what is missing from the copy: some of the new numbers are free on the server, others are not.
        outbox.append(anomaly(NOW + index) for index in range(150, 320))
        assert server.upload(outbox) == 1
        assert outbox.state().records == 0
    assert server.anomalies() == list(range(320))
    assert sum(isinstance(r, Event) and r.name == "stream_forked" for r in server.held.values()) == 1


def test_two_copies_of_one_home_part_ways(tmp_path: Path) -> None:
    server = ServerSimulator()
    with EdgeDatabase(tmp_path / "one.db") as database:
        Outbox(database).append([anomaly(NOW)])
        server.upload(Outbox(database))
    (tmp_path / "two.db").write_bytes((tmp_path / "one.db").read_bytes())
    with EdgeDatabase(tmp_path / "one.db") as one, EdgeDatabase(tmp_path / "two.db") as two:
        for turn in range(10):
            for copy, which in ((0, one), (1, two)):
                Outbox(which).append([anomaly(NOW + 1 + 2 * turn + copy)])
                server.upload(Outbox(which))
    assert server.anomalies() == list(range(21))
    assert len({stream for stream, _ in server.held}) == 2
