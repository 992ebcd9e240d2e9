"""The whole product in one folder: server and database as processes, release keys, a repository, devices.

Everything runs as it would on a machine of its own, on loopback; nothing is replaced. ``Stack.sql`` looks into the
database as its owner, so that tests judge what is stored and not what pages say of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row
from simulators.bundles import SmallBundle

from edge_runtime.config import Config
from edge_runtime.contract.enrolment import EnrolmentLine
from edge_runtime.contract.result import AnyRecord
from edge_runtime.device import EnrolledDevice, open_device, transport_options
from edge_runtime.edge_db import EdgeDatabase
from edge_runtime.enrolment import Wishes, enrol
from edge_runtime.files import FileSystem
from edge_runtime.home import Home
from edge_runtime.http_transport import HttpTransport
from edge_runtime.outbox import Outbox
from exporter.channels import start_rollout
from exporter.keys import ReleaseKey, create_key
from exporter.publish import publish_release
from exporter.release import adopt_release, prepare_release, sign_release
from exporter.repository import load_repository
from exporter.server import Server
from sync_server.postgres_folder import running_urls

BIN = Path(sys.executable).parent
START_SECONDS = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(program: str, *arguments: str | Path, code: int = 0) -> str:
    """Run one of our command lines to its end and return its standard output."""
    done = subprocess.run([BIN / program, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{program} {arguments} left with {done.returncode}: {done.stderr}{done.stdout}"
    return done.stdout


class Stack:
    """A server that can be started, stopped and killed, and all that speaks to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data_dir = folder / "server"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.keys: dict[str, ReleaseKey] = {}
        self.repository = folder / "repository"
        self.digests: dict[tuple[str, int], str] = {}
        self.token_files = {kind: folder / f"{kind}.token" for kind in ("publisher", "operator")}
        self._connection: psycopg.Connection[Any] | None = None

    # --- the server's process ---

    def start(self) -> None:
        """Start the server and wait until it and its database answer."""
        command = [BIN / "sync-server", "run", "--data-dir", self.data_dir, "--port", str(self.port)]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                list(map(str, command)), stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until the server and its database answer."""
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the server left: {self.log.read_text()[-2000:]}"
            with contextlib.suppress(urllib.error.URLError, OSError), self._open("/health/ready") as answer:
                if answer.status == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"the server did not come up: {self.log.read_text()[-2000:]}")

    def kill(self, *, postgres: bool = False) -> None:
        """Send SIGKILL to the server, and to its Postgres as well when asked; the kernel ends the rest."""
        assert self.process is not None
        self._disconnect()
        if postgres:
            self.kill_postgres()
        self.process.kill()
        self.process.wait(30)
        self.process = None

    def kill_postgres(self) -> None:
        """Send SIGKILL to the server's Postgres; the server lives and is to start it again."""
        self._disconnect()
        pid_file = self.data_dir / "postgres" / "cluster" / "postmaster.pid"
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid_file.read_text().splitlines()[0]), signal.SIGKILL)

    def stop(self) -> None:
        """Stop the server as an operator would."""
        self._disconnect()
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    # --- looking ---

    def sql(self, query: str, *parameters: object) -> list[dict[str, Any]]:
        """Return rows of the server's database, read as the owner of the tables."""
        if self._connection is None or self._connection.closed:
            urls = running_urls(self.data_dir / "postgres")
            assert urls is not None
            address = urls[1].replace("postgresql+psycopg://", "postgresql://")
            self._connection = psycopg.connect(address, autocommit=True, row_factory=dict_row)
        return list(self._connection.execute(query, parameters).fetchall())  # type: ignore[arg-type]

    def get(self, path: str, kind: str = "operator") -> Any:
        """Return what the API answers to a GET with an operator's or publisher's token."""
        with self._open(path, self.token_files[kind].read_text()) as answer:
            return json.load(answer)

    def _open(self, path: str, token: str | None = None) -> Any:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers), timeout=10)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- the release engineer ---

    @property
    def publisher(self) -> Server:
        """The server as a release engineer reaches it."""
        return Server(self.url, self.token_files["publisher"].read_text(), sleep=lambda _: None)

    def open_workshop(self) -> None:
        """Make keys, the repository folder that names the server's online key, and tokens."""
        for role in ("root", "targets"):
            self.keys[role] = create_key(self.folder / "keys" / f"{role}.pem", role, None)  # type: ignore[arg-type]
        online = self.folder / "online.pub.pem"
        online.write_text(run("sync-server", "online-key", "--data-dir", self.data_dir))
        run(
            "exporter", "repository", "create", self.repository, "--root-key", self.folder / "keys" / "root.pem",
            "--targets-key", self.folder / "keys" / "targets.pem", "--online-key", online,
        )  # fmt: skip

    def make_tokens(self) -> None:
        """Make a publisher's and an operator's token; the server must run."""
        for kind, path in self.token_files.items():
            path.touch(mode=0o600)
            made = run(
                "sync-server", "token", "create", "--data-dir", self.data_dir, "--kind", kind, "--name", "test"
            )  # fmt: skip
            path.write_text(made.strip())

    def small_bundle(self, release: int, *, model: str = "pumps", padding: int = 0) -> bytes:
        """Return a signed bundle of a graph that averages; padding makes its download and its disk writes longer."""
        # Pseudo-random from the release: bytes that neither compress nor differ from run to run.
        extra = (("notes.bin", _noise(release, padding)),) if padding else ()
        bundle = SmallBundle(
            model=model, version=f"1.{release}", release_number=release, bias=0.25 + release / 1000, extra=extra
        )
        built = bundle.build(self.keys["targets"].private)
        self.digests[model, release] = built.digest
        return built.data

    def prepare(self, *bundles: bytes, channels: Sequence[str] = ("stable",)) -> Path:
        """Write and sign the next release folder."""
        repository = load_repository(self.repository)
        version = 1 if repository.targets is None else repository.targets.signed.version + 1
        folder = self.folder / "releases" / str(version)
        prepare_release(repository, bundles, folder, channels=channels, now=datetime.now(UTC))
        sign_release(folder, [self.keys["targets"]])
        return folder

    def publish(self, *bundles: bytes, channels: Sequence[str] = ("stable",)) -> Path:
        """Publish one release and make the repository folder what the server holds."""
        folder = self.prepare(*bundles, channels=channels)
        publish_release(self.publisher, folder)
        adopt_release(self.repository, folder)
        return folder

    def roll_out(self, channel: str, model: str, release: int) -> None:
        """Give a release to all devices of a channel."""
        start_rollout(self.publisher, channel, model, release, 10_000)

    # --- devices ---

    def line(self, model: str, channel: str, uses: int = 100) -> str:
        """Return an enrolment line."""
        return run(
            "sync-server", "enrolment", "create", "--data-dir", self.data_dir, "--model", model, "--channel", channel,
            "--uses", str(uses), "--url", self.url,
        ).strip()  # fmt: skip

    def link(self, model: str, channel: str, *, uses: int = 1, url: str | None = None) -> str:
        """Return a link by which browsers join."""
        return run(
            "sync-server", "enrolment", "create", "--data-dir", self.data_dir, "--model", model, "--channel", channel,
            "--uses", str(uses), "--url", url or self.url, "--browser",
        ).strip()  # fmt: skip

    def enrol(self, home: Path, line: str, *, cohort: str | None = None) -> str:
        """Enrol a device in this process; returns its id."""
        parsed = EnrolmentLine.parse(line)
        place = Home(home)
        options = transport_options(Config(home=home), insecure_http=False)
        with HttpTransport(parsed.url, options) as transport, place.lock("enroll"):
            return enrol(place, parsed, transport, FileSystem(), Wishes(home.name, cohort)).device_id

    @contextlib.contextmanager
    def device(self, home: Path) -> Iterator[tuple[EnrolledDevice, EdgeDatabase]]:
        """Open an enrolled device in this process."""
        with open_device(Config(home=home)) as device, EdgeDatabase(device.home.database) as database:
            yield device, database


def _noise(seed: int, size: int) -> bytes:
    import random

    return random.Random(seed).randbytes(size)


def append(home: Path, records: Sequence[AnyRecord]) -> None:
    """Put made-up records into a device's outbox."""
    with EdgeDatabase(home / "edge.db") as database:
        Outbox(database).append(records)
