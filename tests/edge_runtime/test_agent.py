"""The agent: scores on, whatever the network does; takes up a new bundle; stops cleanly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from simulators.bundles import SmallBundle
from simulators.enrolled import EnrolledDevice
from simulators.http_door import served
from simulators.repository import Fault, RepositorySimulator

from edge_runtime.agent import Agent, AgentReport
from edge_runtime.config import Config
from edge_runtime.contract.result import Anomaly, Event, Summary
from edge_runtime.edge_db import EdgeDatabase
from edge_runtime.errors import InputError, StorageError
from edge_runtime.outbox import Outbox

START = 1_700_000_000
MINUTE = 60


def lines(first: int, count: int, heat: float = 0.1) -> str:
    return "".join(f"{START + n * MINUTE},{heat},{heat}\n" for n in range(first, first + count))


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def readings(tmp_path: Path) -> Path:
    path = tmp_path / "readings.csv"
    path.write_text("timestamp,heat,load\n")
    return path


@pytest.fixture
def enrolled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EnrolledDevice:
    monkeypatch.setattr("edge_runtime.feed.POLL_SECONDS", 0.01)
    monkeypatch.setattr("edge_runtime.agent.RETRY_SECONDS", 0.05)
    monkeypatch.setattr("edge_runtime.rounds.retry_delay", lambda *_: 0.02)
    server = RepositorySimulator()
    server.publish(SmallBundle().build())
    server.roll_out(1)
    return EnrolledDevice.make(tmp_path / "home", server)


def config(enrolled: EnrolledDevice, readings: Path) -> Config:
    return Config(
        home=enrolled.device.home.path,
        readings=readings,
        sync_interval_seconds=0.05,
        upload_interval_seconds=0.05,
    )


@contextmanager
def running(enrolled: EnrolledDevice, readings: Path) -> Iterator[list[AgentReport | BaseException]]:
    """Run an agent in a thread; the list holds what it ended with."""
    ended: list[AgentReport | BaseException] = []
    agent = Agent(enrolled.device, config(enrolled, readings))

    def work() -> None:
        try:
            ended.append(agent.run())
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield ended
    finally:
        agent.stop()
        thread.join(20)
        assert not thread.is_alive()


def counters(enrolled: EnrolledDevice) -> dict[str, int]:
    with EdgeDatabase(enrolled.device.home.database) as database:
        return database.counters()


def scored(enrolled: EnrolledDevice) -> int:
    return counters(enrolled).get("readings_scored", 0)


def release_seen(enrolled: EnrolledDevice) -> int | None:
    """The active release of the last status; what is read after it was sent is scored by that release."""
    statuses = enrolled.seen.statuses
    return statuses[-1]["active"]["release"] if statuses and statuses[-1]["active"] else None


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def report_of(ended: list[AgentReport | BaseException]) -> AgentReport:
    (report,) = ended
    assert isinstance(report, AgentReport), report
    return report


def test_readings_become_results_on_the_server(enrolled: EnrolledDevice, readings: Path) -> None:
    append(readings, lines(0, 20) + lines(20, 3, heat=9.0))
    with running(enrolled, readings) as ended:
        wait_for(lambda: any(isinstance(record, Anomaly) for _, record in enrolled.seen.records))
        append(readings, lines(23, 5))
        wait_for(lambda: scored(enrolled) == 27)
        wait_for(lambda: enrolled.seen.statuses and enrolled.seen.statuses[-1]["active"])
    report = report_of(ended)
    assert report.outcomes == {"warming_up": 1, "scored": 27}
    assert report.anomalies >= 3


def test_readings_wait_for_the_first_bundle(enrolled: EnrolledDevice, readings: Path) -> None:
    enrolled.server.faults.append(Fault("", "drop"))
    append(readings, lines(0, 10))
    with running(enrolled, readings) as ended:
        wait_for(lambda: len(enrolled.server.requests) > 3)
        enrolled.server.faults.clear()
        wait_for(lambda: scored(enrolled) == 9)
    assert report_of(ended).failures > 0


@pytest.mark.parametrize(
    "fault",
    [
        Fault("", "drop"),
        Fault("", "cut", after=7),
        Fault("", "lost"),
        Fault("", "answer", status=500),
        Fault("", "answer", status=200, body=b"<html>Log in</html>", headers={"Content-Type": "text/html"}),
        Fault("", "answer", status=401),
        Fault("", "endless"),
    ],
    ids=["drop", "cut", "lost", "500", "html", "401", "endless"],
)
def test_no_network_stops_the_scoring(enrolled: EnrolledDevice, readings: Path, fault: Fault) -> None:
    assert enrolled.sync().error is None
    enrolled.server.faults.append(fault)
    with running(enrolled, readings) as ended:
        for step in range(2):
            append(readings, lines(step * 10, 10))
            wait_for(lambda step=step: scored(enrolled) == step * 10 + 9)
        seen = len(enrolled.server.requests)
        wait_for(lambda: len(enrolled.server.requests) > seen)
        enrolled.server.faults.clear()
        wait_for(lambda: enrolled.seen.statuses)
    assert report_of(ended).outcomes["scored"] == 19


def test_a_new_bundle_is_taken_up_without_losing_a_reading(enrolled: EnrolledDevice, readings: Path) -> None:
    enrolled.sync()
    append(readings, lines(0, 10))
    with running(enrolled, readings) as ended:
        wait_for(lambda: scored(enrolled) == 9)
        enrolled.server.publish(SmallBundle(version="2.0", release_number=2, bias=0.5).build())
        enrolled.server.roll_out(2)
        wait_for(lambda: release_seen(enrolled) == 2)
        append(readings, lines(10, 10))
        wait_for(lambda: scored(enrolled) == 19)
    assert "duplicate" not in report_of(ended).outcomes
    with EdgeDatabase(enrolled.device.home.database) as database:
        from edge_runtime.upload import upload_all

        upload_all(enrolled.device, database)
    bundles = {record.bundle for _, record in enrolled.seen.records if isinstance(record, Summary)}
    assert len(bundles) == 2


def test_a_bundle_with_other_signals_reads_other_columns(enrolled: EnrolledDevice, tmp_path: Path) -> None:
    enrolled.sync()
    path = tmp_path / "wide.csv"
    rows = [f"{START + n * MINUTE},0.1,0.2,0.3\n" for n in range(20)]
    path.write_text("timestamp,heat,load,speed\n" + "".join(rows[:10]))
    with running(enrolled, path):
        wait_for(lambda: scored(enrolled) == 9)
        wide = SmallBundle(version="2.0", release_number=2, signals=("heat", "load", "speed")).build()
        enrolled.server.publish(wide)
        enrolled.server.roll_out(2)
        wait_for(lambda: release_seen(enrolled) == 2)
        append(path, "".join(rows[10:]))
        # One reading warms the new window up: the stored readings lack a column.
        wait_for(lambda: scored(enrolled) == 18)


def test_lines_that_cannot_be_used_are_set_aside(enrolled: EnrolledDevice, readings: Path) -> None:
    enrolled.sync()
    append(readings, "nonsense\n" + lines(0, 5) + f"{START},high,1\n")
    with running(enrolled, readings):
        wait_for(lambda: scored(enrolled) == 4)
        wait_for(lambda: sum(n for name, n in counters(enrolled).items() if name.startswith("set_aside")) == 2)


def test_columns_that_are_missing_end_the_agent(enrolled: EnrolledDevice, tmp_path: Path) -> None:
    enrolled.sync()
    path = tmp_path / "narrow.csv"
    path.write_text("timestamp,hest\n1,2\n")
    with running(enrolled, path) as ended:
        wait_for(lambda: ended)
    assert isinstance(ended[0], InputError)
    assert "heat" in ended[0].message


def test_a_release_that_asks_for_more_signals_does_not_end_the_work(enrolled: EnrolledDevice, readings: Path) -> None:
    enrolled.sync()
    append(readings, lines(0, 10))
    with running(enrolled, readings) as ended:
        wait_for(lambda: scored(enrolled) == 9)
        enrolled.server.publish(SmallBundle(version="2.0", release_number=2, signals=("heat", "load", "speed")).build())
        enrolled.server.roll_out(2)
        wait_for(lambda: release_seen(enrolled) == 2)
        append(readings, lines(10, 10))
        wait_for(lambda: scored(enrolled) == 18)
    assert report_of(ended).outcomes["warming_up"] == 2
    with running(enrolled, readings) as ended:  # a restart, by a supervisor or with the machine
        wait_for(lambda: counters(enrolled).get("readings_late"))
        append(readings, lines(20, 5))
        wait_for(lambda: scored(enrolled) == 23)
        wait_for(lambda: any(isinstance(r, Event) and r.name == "signals_missing" for _, r in enrolled.seen.records))
    assert isinstance(report_of(ended), AgentReport)
    [event, *_] = [r for _, r in enrolled.seen.records if isinstance(r, Event) and r.name == "signals_missing"]
    assert event.detail == {"signals": "speed", "count": 1}


def test_a_full_disk_makes_readings_wait(
    enrolled: EnrolledDevice, readings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_runtime.reading_scorer import ReadingScorer

    real, failures = ReadingScorer.score, iter([True, True])

    def full(self, group, aside=None):  # type: ignore[no-untyped-def]
        if next(failures, False):
            raise StorageError("The disk is full.", advice="Free some space.", reason="disk_full")
        return real(self, group, aside)

    monkeypatch.setattr(ReadingScorer, "score", full)
    enrolled.sync()
    append(readings, lines(0, 10))
    with running(enrolled, readings):
        wait_for(lambda: scored(enrolled) == 9)


def test_a_bug_in_the_rounds_is_not_hidden(
    enrolled: EnrolledDevice, readings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("edge_runtime.rounds.synchronise", broken)
    enrolled.sync()
    with running(enrolled, readings) as ended:
        wait_for(lambda: ended)
    assert isinstance(ended[0], ZeroDivisionError)


def command(enrolled: EnrolledDevice, *arguments: str) -> list[str]:
    script = "from edge_runtime.cli import main; main()"
    return [sys.executable, "-c", script, "run", "--home", str(enrolled.device.home.path), "--json", *arguments]


def test_sigterm_is_a_clean_end(tmp_path: Path, readings: Path) -> None:
    server = RepositorySimulator()
    server.publish(SmallBundle().build())
    server.roll_out(1)
    append(readings, lines(0, 50))
    with served(server):
        enrolled = EnrolledDevice.make(tmp_path / "home", server)
        process = subprocess.Popen(
            command(enrolled, "--readings", str(readings)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )
        wait_for(lambda: enrolled.device.home.database.exists() and scored(enrolled) == 49)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert json.loads(out)["outcomes"] == {"warming_up": 1, "scored": 49}
    assert "Traceback" not in err


def test_standard_input_that_ends_is_uploaded(tmp_path: Path) -> None:
    server = RepositorySimulator()
    server.publish(SmallBundle().build())
    server.roll_out(1)
    text = "timestamp,heat,load\n" + lines(0, 20) + lines(20, 1, heat=9.0)
    with served(server):
        enrolled = EnrolledDevice.make(tmp_path / "home", server)
        done = subprocess.run(command(enrolled), input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcomes"]["scored"] == 20
    with EdgeDatabase(enrolled.device.home.database) as database:
        assert Outbox(database).state().records == 0
    kinds = {type(record) for _, record in enrolled.seen.records}
    assert {Anomaly, Summary} <= kinds
