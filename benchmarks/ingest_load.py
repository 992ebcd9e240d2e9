"""The load of the ingest benchmark, in a process of its own: makes batches, then sends or inserts them.

Reads one command a line from standard input and answers each with one JSON line::

    {"do": "devices", "devices": [[id, token, stream], ...]}
    {"do": "make", "batches": 2000}
    {"do": "http", "port": 8080, "connections": 8, "repeat_share": 0.05}
    {"do": "raw", "url": "postgresql://...", "connections": 2, "way": "copy"}
"""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import psycopg

from benchmarks.ingest_batches import LoadDevice, MadeBatch, make_batch
from benchmarks.ingest_raw import WAYS, rows_by_table
from edge_runtime.contract.result import Anomaly, Event, Summary

_AGAIN_SECONDS = 0.05


@dataclass(slots=True)
class Tally:
    """What one thread saw.

    Attributes:
        stored: Records that the server says are new.
        statuses: Answers by status.
        seconds: Of each answered request.
        wrong: Repeated batches that stored something, or first ones that did not store everything.
    """

    stored: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: int = 0


class Connection:
    """One kept-alive HTTP connection, with as little of its own as possible."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers: IO[bytes] = self._socket.makefile("rb")

    def post(self, batch: MadeBatch) -> tuple[int, dict[str, Any]]:
        """Send a batch and return status and body of the answer."""
        head = (
            f"POST /api/results HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {batch.device.token}\r\n"
            "Content-Type: application/json\r\nContent-Encoding: gzip\r\n"
            f"Content-Length: {len(batch.body)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + batch.body)
        status = int(self._answers.readline().split()[1])
        length = 0
        while (line := self._answers.readline()) != b"\r\n":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return status, json.loads(self._answers.read(length))


def send_all(batches: deque[MadeBatch], port: int, tally: Tally, repeat_share: float) -> None:
    """Send batches until none is left; a share of them twice, and what the server was too busy for again."""
    connection, draw = Connection(port), random.Random(threading.get_ident())
    for batch in _taken(batches):
        expected = len(batch.records)
        while True:
            began = time.perf_counter()
            status, answer = connection.post(batch)
            tally.statuses[status] += 1
            if status != 200:
                time.sleep(_AGAIN_SECONDS)
                continue
            tally.seconds.append(time.perf_counter() - began)
            tally.stored += answer["stored"]
            tally.wrong += answer["stored"] != expected
            if expected == 0 or draw.random() >= repeat_share:
                break
            expected = 0


def _taken(batches: deque[Any]) -> Iterator[Any]:
    """Take batches until none is left, which another thread may see first."""
    while True:
        try:
            batch = batches.popleft()
        except IndexError:
            return
        yield batch


def insert_all(batches: deque[Any], url: str, way: str) -> None:
    """Insert batches' rows with psycopg alone, a transaction a batch, until none is left."""
    with psycopg.connect(url) as connection:
        for batch in _taken(batches):
            with connection.transaction(), connection.cursor() as cursor:
                WAYS[way](cursor, batch)


def _in_threads(count: int, work: Callable[[int], None]) -> tuple[float, float]:
    """Run ``work(k)`` in threads, and return wall-clock and processor seconds."""
    threads = [threading.Thread(target=work, args=(k,)) for k in range(count)]
    began, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began, time.process_time() - cpu


@dataclass(slots=True)
class Load:
    """The commands, and what is made and not sent yet."""

    devices: list[LoadDevice] = field(default_factory=list)
    batches: list[MadeBatch] = field(default_factory=list)

    def set_devices(self, devices: list[list[str]]) -> dict[str, Any]:
        """Take over the simulated devices."""
        self.devices = [LoadDevice(id_, token, stream, 1, random.Random(id_)) for id_, token, stream in devices]
        return {}

    def make(self, batches: int) -> dict[str, Any]:
        """Make batches, one after the other of each device in turn; returns what they count."""
        now_ms = int(time.time() * 1000)
        self.batches = [make_batch(self.devices[k % len(self.devices)], now_ms) for k in range(batches)]
        records = [record for batch in self.batches for record in batch.records]
        summaries = [record for record in records if isinstance(record, Summary)]
        return {
            "records": len(records),
            "windows": sum(record.windows for record in summaries),
            "anomalies": sum(isinstance(record, Anomaly) for record in records),
            "incidents": sum(isinstance(record, Event) for record in records),  # each one ends
            "bytes": sum(len(batch.body) for batch in self.batches),
        }

    def http(self, port: int, connections: int, repeat_share: float) -> dict[str, Any]:
        """Send what was made."""
        batches, tallies = deque(self.batches), [Tally() for _ in range(connections)]
        seconds, cpu = _in_threads(connections, lambda k: send_all(batches, port, tallies[k], repeat_share))
        return {
            "seconds": seconds,
            "cpu_seconds": cpu,
            "stored": sum(tally.stored for tally in tallies),
            "wrong": sum(tally.wrong for tally in tallies),
            "statuses": dict(sum((tally.statuses for tally in tallies), Counter())),
            "latencies": sorted(second for tally in tallies for second in tally.seconds),
        }

    def raw(self, url: str, connections: int, way: str) -> dict[str, Any]:
        """Insert the rows of what was made."""
        batches = deque(rows_by_table(batch) for batch in self.batches)
        seconds, cpu = _in_threads(connections, lambda _: insert_all(batches, url, way))
        return {"seconds": seconds, "cpu_seconds": cpu, "stored": sum(len(batch.records) for batch in self.batches)}


def main() -> None:
    """Obey standard input until it ends."""
    load = Load()
    commands: dict[str, Callable[..., dict[str, Any]]] = {
        "devices": load.set_devices,
        "make": load.make,
        "http": load.http,
        "raw": load.raw,
    }
    for line in sys.stdin:
        command = json.loads(line)
        answer = commands[command.pop("do")](**command)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
