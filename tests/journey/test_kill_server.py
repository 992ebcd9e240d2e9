"""SIGKILL of the server while it stores results and while it takes over a release; its Postgres dies with it.

Afterwards every record is stored once, the roll-up is the sum of what is stored, the repository is the one of before
or of after, and whatever was under way succeeds when it is done again.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

from journey.stack import Stack, append
from journey.stored import assert_rollups_add_up, assert_stored_once, stored
from simulators.server_devices import HOUR, NOON, anomaly, ended, summary
from tuf.ngclient import Updater

from edge_runtime.contract.result import AnyRecord
from edge_runtime.contract.routes import METADATA, TARGETS
from edge_runtime.edge_db import EdgeDatabase
from edge_runtime.errors import TransportError
from edge_runtime.outbox import Outbox
from edge_runtime.trust import refresh
from edge_runtime.upload import upload_all
from exporter.publish import Published, publish_release
from exporter.release import adopt_release

INGEST_KILLS, PUBLISH_KILLS = 12, 10
DEVICES = 3
BATCH = 5
PADDING = 400_000  # bytes of a bundle: enough for a request that takes a while


def made_up_records(bundle: str, start: int, count: int) -> list[AnyRecord]:
    """Return records of many hours: anomalies of incidents that end, and summaries."""
    records: list[AnyRecord] = []
    for number in range(start, start + count):
        at = NOON + number * HOUR
        records += [
            anomaly(0, at, bundle=bundle),
            anomaly(0, at + 60_000, started_at_ms=at, score=0.9995, windows=2, bundle=bundle),
            ended(0, at, at + 120_000, 2, bundle=bundle),
            summary(0, at, windows=20 + number % 7, anomalous=2, bundle=bundle),
        ]
    return records


class Uploader(threading.Thread):
    """A device that sends what it has, whatever the server does to it."""

    def __init__(self, stack: Stack, home: Path) -> None:
        super().__init__(daemon=True)
        self.stack, self.home = stack, home
        self.stop = threading.Event()
        self.failures = 0
        self.bug: BaseException | None = None

    def run(self) -> None:
        try:
            with self.stack.device(self.home) as (device, database):
                while not self.stop.is_set():
                    try:
                        upload_all(device, database, batch_records=BATCH)
                    except TransportError:
                        self.failures += 1
                    self.stop.wait(0.02)
        except BaseException as error:
            self.bug = error


def waiting(home: Path) -> int:
    with EdgeDatabase(home / "edge.db") as database:
        return Outbox(database).state().records


def test_killed_while_results_arrive(stack: Stack, tmp_path: Path, dice: random.Random) -> None:
    line = stack.line("pumps", "stable")
    bundle = stack.digests["pumps", 1]
    homes = {stack.enrol(home, line): home for home in (tmp_path / f"device-{n}" for n in range(DEVICES))}
    given: dict[str, list[AnyRecord]] = {device_id: [] for device_id in homes}
    uploaders = [Uploader(stack, home) for home in homes.values()]

    def give(count: int) -> None:
        for device_id, home in homes.items():
            records = made_up_records(bundle, len(given[device_id]), count)
            append(home, records)
            given[device_id] += records

    give(1)  # opens the databases
    for uploader in uploaders:
        uploader.start()
    landed = 0
    try:
        for number in range(INGEST_KILLS):
            give(60)
            before = sum(map(waiting, homes.values()))
            deadline = time.monotonic() + 30
            while sum(map(waiting, homes.values())) >= before and time.monotonic() < deadline:
                time.sleep(0.005)  # until the first of these arrived
            time.sleep(dice.uniform(0, 0.4))
            landed += sum(map(waiting, homes.values())) > 0
            if number % 3 == 2:
                stack.kill_postgres()  # the server lives, answers 503, and starts it again
                time.sleep(0.1)
                stack.wait_until_ready()
            else:
                stack.kill(postgres=number % 3 == 1)
                time.sleep(dice.uniform(0, 0.2))
                stack.start()
        deadline = time.monotonic() + 120
        while any(map(waiting, homes.values())) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        for uploader in uploaders:
            uploader.stop.set()
        for uploader in uploaders:
            uploader.join(30)
    print(f"{landed} of {INGEST_KILLS} kills met uploads under way; failures {[u.failures for u in uploaders]}")
    assert [uploader.bug for uploader in uploaders] == [None] * DEVICES
    assert landed >= INGEST_KILLS * 0.6
    assert sum(uploader.failures for uploader in uploaders) > 0
    for device_id, records in given.items():
        assert_stored_once(stack, device_id)
        found = stored(stack, device_id)
        scores = Counter((r.observed_at_ms, r.anomaly_score) for r in records if hasattr(r, "anomaly_score"))
        assert Counter((row[1], row[3]) for row in found.anomalies.elements()) == scores
        assert found.sums["windows"] == sum(r.windows for r in records if hasattr(r, "histogram"))
        assert len(found.incidents) == len(records) / 4
        assert found.gaps == 0
    assert_rollups_add_up(stack)


def test_killed_while_a_release_is_published(stack: Stack, tmp_path: Path, dice: random.Random) -> None:
    home = tmp_path / "witness"
    stack.enrol(home, stack.line("pumps", "stable"))
    folder = stack.prepare(stack.small_bundle(1, model="valves", padding=PADDING))
    begun = time.monotonic()
    publish_release(stack.publisher, folder)
    seconds = time.monotonic() - begun
    adopt_release(stack.repository, folder)
    tried = under_way = taken = 0
    while under_way < PUBLISH_KILLS and tried < 2 * PUBLISH_KILLS:
        tried += 1
        before = stack.get("/api/publish", "publisher")["targets_version"]
        folder = stack.prepare(stack.small_bundle(tried + 1, model="valves", padding=PADDING))
        answers: list[Published | TransportError] = []
        sender = threading.Thread(target=_publish, args=(stack, folder, answers))
        sender.start()
        time.sleep(dice.uniform(0, seconds))
        if answers:
            seconds *= 0.9  # the first one was slow
        under_way += not answers
        stack.kill(postgres=tried % 2 == 0)
        sender.join(60)
        stack.start()
        after = stack.get("/api/publish", "publisher")["targets_version"]
        assert after in (before, before + 1)
        if isinstance(answers[0], Published):
            assert after == before + 1, "the server said that it took the release, and forgot it"
        taken += after == before + 1
        _assert_consistent(stack, home, tmp_path / f"client-{tried}", after)
        publish_release(stack.publisher, folder)
        adopt_release(stack.repository, folder)
        assert stack.get("/api/publish", "publisher")["targets_version"] == before + 1
        _assert_consistent(stack, home, tmp_path / f"client-{tried}-again", before + 1)
    print(f"{under_way} of {tried} kills met the request under way; {taken} releases had been taken by then")
    assert under_way >= PUBLISH_KILLS


def _publish(stack: Stack, folder: Path, answers: list[Published | TransportError]) -> None:
    try:
        answers.append(publish_release(stack.publisher, folder))
    except TransportError as error:
        answers.append(error)


def _assert_consistent(stack: Stack, home: Path, client: Path, targets_version: int) -> None:
    """Check the repository as clients do: one that begins with the first root, and one that has seen all before."""
    (client / "targets").mkdir(parents=True)
    updater = Updater(
        metadata_dir=str(client),
        metadata_base_url=stack.url + METADATA,
        target_base_url=stack.url + TARGETS,
        target_dir=str(client / "targets"),
        bootstrap=(stack.repository / "metadata" / "1.root.json").read_bytes(),
    )
    updater.refresh()
    with stack.device(home) as (device, _):
        view = refresh(device.home, device.identity, device.transport, device.files)
    newest = max(
        view.customs, key=lambda path: (view.customs[path].model == "valves", view.customs[path].release_number)
    )
    info = updater.get_targetinfo(newest)
    assert info is not None
    assert Path(updater.download_target(info)).stat().st_size == info.length
    with urllib.request.urlopen(stack.url + METADATA + f"{targets_version}.targets.json", timeout=10) as answer:
        assert answer.status == 200
    for path, target in view.targets.items():
        with urllib.request.urlopen(stack.url + TARGETS + target.url_path, timeout=10) as answer:
            assert hashlib.sha256(answer.read()).hexdigest() == target.sha256, path
