"""A server of a benchmark's own: started on loopback with a fresh data folder, and given a release that devices want.

Example::

    with BenchServer(folder, workers=1) as server:
        server.publish()
        server.url, server.cpu_seconds(), server.resident_bytes()
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

from benchmarks.machine import REPOSITORY

if TYPE_CHECKING:
    from exporter.keys import PublicKey, ReleaseKey
    from exporter.server import Server

MODEL, CHANNEL = "phones", "stable"
_COMMAND = (sys.executable, "-m", "sync_server")


class BenchServer:
    """``sync-server run`` with its embedded Postgres, as a process.

    Args:
        folder: Where its data, keys and repository go.
        workers: Worker processes.
        environment: Added to the process's own, such as ``DATABASE_URL``.
    """

    def __init__(self, folder: Path, *, workers: int = 1, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.data_dir = folder / "server"
        self.url = ""
        self._workers = workers
        self._environment = dict(os.environ) | dict(environment or {})
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Start it and wait until it serves."""
        command = [*_COMMAND, "run", "--port", "0", "--json", "--workers", str(self._workers)]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--data-dir", str(self.data_dir)], stdout=subprocess.PIPE, stderr=log, text=True,
                cwd=REPOSITORY, env=self._environment,
            )  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server did not start: {(self.folder / 'server.log').read_text()[-2000:]}")
        self.url = json.loads(line)["address"]
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it and its database."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """Process id of the supervisor."""
        assert self._process is not None
        return self._process.pid

    def run(self, *words: str) -> str:
        """Run a ``sync-server`` command on its data folder and return what it prints."""
        command = [*_COMMAND, *words, "--data-dir", str(self.data_dir)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
        return done.stdout.strip()

    def publish(self, *, releases: int = 1) -> None:
        """Make keys, publish releases of the phones' model one after the other, and roll the first one out to all.

        Args:
            releases: How many; the same model under other numbers.
        """
        from exporter.channels import start_rollout
        from exporter.keys import create_key
        from exporter.publish import publish_release
        from exporter.release import adopt_release, prepare_release, sign_release
        from exporter.repository import load_repository

        targets = create_key(self.folder / "targets.pem", "targets", None)
        self._make_repository(targets.public)
        for number, bundle in enumerate(packed_phones(self.folder / "phones", targets, releases), 1):
            repository, release = self.folder / "repository", self.folder / f"release-{number}"
            now = datetime.now(UTC).replace(microsecond=0)
            prepare_release(load_repository(repository), [bundle], release, channels=[CHANNEL], now=now, keep=releases)
            sign_release(release, [targets])
            publish_release(self.publisher, release)
            adopt_release(repository, release)
        start_rollout(self.publisher, CHANNEL, MODEL, 1, 10_000)

    @cached_property
    def publisher(self) -> Server:
        """The server as a release engineer reaches it."""
        from exporter.server import Server

        return Server(self.url, self.run("token", "create", "--kind", "publisher", "--name", "benchmark"))

    def _make_repository(self, targets: PublicKey) -> None:
        from exporter.keys import create_key, load_public_key
        from exporter.repository import create_repository

        root = create_key(self.folder / "root.pem", "root", None)
        online = self.folder / "online.pub.pem"
        online.write_text(self.run("online-key"))
        create_repository(
            self.folder / "repository", root_keys=[root.public], targets_keys=[targets],
            online_key=load_public_key(online), signers=[root], now=datetime.now(UTC).replace(microsecond=0),
        )  # fmt: skip

    def processes(self) -> list[psutil.Process]:
        """Return the supervisor, its workers, and all of Postgres."""
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]

    def cpu_seconds(self) -> dict[str, float]:
        """Return processor seconds so far: of ``server`` processes and of ``postgres``, ended children included."""
        taken = {"server": 0.0, "postgres": 0.0}
        for process in self.processes():
            try:
                name = "postgres" if process.name().startswith("postgres") else "server"
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            taken[name] += times.user + times.system + times.children_user + times.children_system
        return taken

    def resident_bytes(self) -> dict[str, int]:
        """Return memory: the workers' resident sets, and what each Postgres process has for itself (USS)."""
        held = {"server": 0, "postgres": 0}
        for process in self.processes():
            try:
                if process.name().startswith("postgres"):
                    held["postgres"] += process.memory_full_info().uss
                else:
                    held["server"] += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return held


def packed_phones(folder: Path, key: ReleaseKey, releases: int) -> list[bytes]:
    """Build the phones' model on a small fleet and pack it as several releases of it."""
    from benchmarks.models import build_phones
    from exporter.packing import pack_model
    from exporter.provenance import Provenance

    folder.mkdir()
    phones = build_phones(folder, devices=20, days=4)
    provenance = Provenance("", 0, {"trained_on": 20}, {}, created=datetime.now(UTC).replace(microsecond=0))
    return [
        pack_model(phones.built, provenance, key, name=MODEL, version=f"1.{number}", release_number=number).data
        for number in range(1, releases + 1)
    ]
