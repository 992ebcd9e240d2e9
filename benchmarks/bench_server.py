"""A server of a benchmark's own: started on loopback with a fresh data folder, and given a release that devices want.

Example::

    with BenchServer(folder, workers=1) as server:
        server.publish()
        server.url, cpu_seconds_of(server.pid), resident_bytes_of(server.pid)
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

from benchmarks.load.fleet import Fleet, enrol_in_bulk, new_secret
from benchmarks.machine import REPOSITORY

if TYPE_CHECKING:
    from exporter.built import BuiltModel
    from exporter.keys import PublicKey, ReleaseKey
    from exporter.server import Server

MODEL, CHANNEL = "phones", "stable"
_COMMAND = (sys.executable, "-m", "sync_server")
# What whoever measures has set for a server of their own must not change this one.
_OURS = ("SYNC_SERVER_", "STELLA_", "DATABASE_URL")


class BenchServer:
    """``sync-server run`` with its embedded Postgres, as a process.

    Args:
        folder: Where its data, keys and repository go.
        workers: Worker processes.
        settings: Further settings of the server, by their names, such as ``threads``.
        data_dir: Its data folder; ``folder / "server"`` unless given.
    """

    def __init__(
        self, folder: Path, *, workers: int = 1, settings: Mapping[str, object] | None = None,
        data_dir: Path | None = None,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.data_dir = data_dir or folder / "server"
        self.url = ""
        named = {"workers": workers} | dict(settings or {})
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        self._environment |= {f"SYNC_SERVER_{name.upper()}": str(value) for name, value in named.items()}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Start it and wait until it serves."""
        command = [*_COMMAND, "run", "--port", "0", "--json", "--data-dir", str(self.data_dir)]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=REPOSITORY, env=self._environment
            )
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
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        """Process id of the supervisor."""
        assert self._process is not None
        return self._process.pid

    def run(self, *words: str) -> str:
        """Run a ``sync-server`` command on its data folder and return what it prints."""
        command = [*_COMMAND, *words, "--data-dir", str(self.data_dir)]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=REPOSITORY, env=self._environment
        )
        return done.stdout.strip()

    def token(self, kind: str) -> str:
        """Make a token of a kind, such as ``operator``."""
        return self.run("token", "create", "--kind", kind, "--name", "benchmark")

    def publish(self, *, releases: int = 1, pack: Callable[[ReleaseKey, int], Sequence[bytes]] | None = None) -> None:
        """Make keys, publish releases of the phones' model one after the other, and roll the first one out to all.

        Args:
            releases: How many; the same model under other numbers.
            pack: Makes so many bundles, signed with a targets key; of a small fleet's model unless given.
        """
        from exporter.channels import start_rollout
        from exporter.keys import create_key
        from exporter.publish import publish_release
        from exporter.release import adopt_release, prepare_release, sign_release
        from exporter.repository import load_repository

        targets = create_key(self.folder / "targets.pem", "targets", None)
        self._make_repository(targets.public)
        bundles = (pack or self._small_phones)(targets, releases)
        for number, bundle in enumerate(bundles, 1):
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

        return Server(self.url, self.token("publisher"))

    def enrol(self, devices: int) -> Fleet:
        """Enrol a fleet in bulk; a release must be published."""
        fleet = Fleet(new_secret(), devices)
        enrol_in_bulk(self.database_url, fleet, url=self.url, model=MODEL, channel=CHANNEL)
        return fleet

    def _small_phones(self, key: ReleaseKey, releases: int) -> list[bytes]:
        """Build the phones' model on a small fleet and pack it."""
        from benchmarks.models import build_phones

        folder = self.folder / "phones"
        folder.mkdir()
        return packed_phones(build_phones(folder, devices=20, days=4).built, key, releases)

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

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    @property
    def database_url(self) -> str:
        """Address of its database, the app's role, as SQLAlchemy takes it."""
        from sync_server.postgres_folder import running_urls

        running = running_urls(self.data_dir / "postgres")
        assert running is not None, "the server does not run"
        return running[0]


def libpq_url(database_url: str) -> str:
    """Return SQLAlchemy's address of a database in the form that psycopg takes."""
    return database_url.replace("postgresql+psycopg://", "postgresql://", 1)


def cpu_seconds_of(pid: int) -> dict[str, float]:
    """Return processor seconds so far of a server's processes and of its Postgres, ended children included."""
    taken = {"server": 0.0, "postgres": 0.0}
    for kind, process in _processes(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            taken[kind] += times.user + times.system + times.children_user + times.children_system
    return taken


def resident_bytes_of(pid: int) -> dict[str, int]:
    """Return memory: the server's resident sets, and what each process of its Postgres has for itself (USS)."""
    held = {"server": 0, "postgres": 0}
    for kind, process in _processes(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            # Each Postgres process counts the shared buffers as its own as soon as it has touched them.
            held[kind] += process.memory_full_info().uss if kind == "postgres" else process.memory_info().rss
    return held


def _processes(pid: int) -> Iterator[tuple[str, psutil.Process]]:
    root = psutil.Process(pid)
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            yield ("postgres" if process.name().startswith("postgres") else "server"), process


def packed_phones(built: BuiltModel, key: ReleaseKey, releases: int) -> list[bytes]:
    """Pack a model as several releases of the phones' model."""
    from exporter.packing import pack_model
    from exporter.provenance import Provenance

    provenance = Provenance("", 0, {"trained_on": 20}, {}, created=datetime.now(UTC).replace(microsecond=0))
    return [
        pack_model(built, provenance, key, name=MODEL, version=f"1.{number}", release_number=number).data
        for number in range(1, releases + 1)
    ]
