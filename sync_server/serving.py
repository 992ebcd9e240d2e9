"""``sync-server run``: gunicorn as a library, with the embedded Postgres beside it when no other is named.

One process supervises: its main thread starts Postgres (whose life Linux ties to that thread), then runs gunicorn's
arbiter, which keeps the workers alive and looks after Postgres once a second. Workers are forked before any thread or
connection exists; each builds its own app and one upkeep thread.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import resource
import signal
import socket
import struct
import sys
import time
from typing import Any

import click
from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from edge_runtime.errors import StorageError, TransportError
from sync_server import metrics_folder
from sync_server.app import create_app
from sync_server.blobs import Blobs
from sync_server.commands.database import migrate_named
from sync_server.config import ServerConfig
from sync_server.embedded_postgres import EmbeddedPostgres
from sync_server.gunicorn_log import GunicornLogger
from sync_server.migrations import migrate
from sync_server.patient_worker import PatientWorker
from sync_server.postgres_folder import APP
from sync_server.postgres_process import die_with_parent
from sync_server.repository.answers import remember_metadata
from sync_server.repository.online_key import load_or_create
from sync_server.scoring.worker import start_warming
from sync_server.upkeep import start_upkeep
from sync_server.webhooks.delivery import start_deliveries

log = logging.getLogger(__name__)

_BIND_SECONDS = 3.0  # the workers of a killed server may hold the port for a moment
# A command such as `token create` runs the embedded database itself for the two seconds it takes.
_COMMAND_SECONDS = 10.0
_RESTART_SECONDS = 5.0
# Connections of a worker: an idle one costs a file and two kilobytes. Files besides: database, blobs, uploads.
_CONNECTIONS, _OTHER_FILES = 8_192, 512


def serve(config: ServerConfig, *, as_json: bool = False) -> None:
    """Serve until a signal says stop; leaves through SystemExit, as gunicorn does.

    Args:
        config: The settings.
        as_json: Print the address as a JSON object.

    Raises:
        TransportError: The address cannot be listened on.
        StorageError: The data folder, the online key or the database cannot be used.
    """
    signal.signal(signal.SIGTERM, _leave)  # until gunicorn takes over
    try:
        config.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"The data folder {config.data_dir} cannot be made: {error.strerror}.", advice="Choose another --data-dir."
        ) from error
    listener = _listen(config)
    config = dataclasses.replace(config, port=listener.getsockname()[1])
    load_or_create(config.online_key_path)
    Blobs.from_config(config)  # what is wrong with it is told once, here, and not by every worker
    postgres = None
    try:
        if config.database_url:
            migrate_named(config)
        else:
            # Each worker pools a connection a thread and two more; commands and migrations need a few.
            connections = config.workers * (config.threads + 2) + 20
            postgres = EmbeddedPostgres(config.data_dir / "postgres", connections=connections)
            postgres.start(patience_seconds=_COMMAND_SECONDS)
            migrate(postgres.owner_url, app_role=APP)
            config = dataclasses.replace(config, database_url=postgres.app_url)
        _Server(config, listener, postgres, as_json=as_json).run()
    finally:
        if postgres is not None:
            postgres.stop()


def _leave(_signal: int, _frame: object) -> None:
    sys.exit(0)


def _listen(config: ServerConfig) -> socket.socket:
    """Bind the address before anything else is started, so that a mistake costs nothing."""
    deadline = time.monotonic() + _BIND_SECONDS
    while True:
        try:
            family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
            listener = socket.create_server((config.host, config.port), family=family, backlog=2048)
            _bound_silence(listener, config.client_seconds)
            return listener
        except OSError as error:
            if (error.errno or 0) < 0:  # getaddrinfo's own numbers
                raise TransportError(
                    f"The host {config.host} is not known here.", advice="Give --host an address of this machine."
                ) from error
            if error.errno != errno.EADDRINUSE:
                raise TransportError(
                    f"Port {config.port} on {config.host} cannot be used: {os.strerror(error.errno or 0)}.",
                    advice="Choose another --host or --port; ports below 1024 need privileges.",
                ) from error
            if time.monotonic() > deadline:
                raise TransportError(
                    f"Port {config.port} on {config.host} is in use by another program.",
                    advice="Stop that program, or choose another --port (0 takes any free one).",
                ) from error
            time.sleep(0.1)


def _bound_silence(listener: socket.socket, seconds: int) -> None:
    """Let the kernel end connections whose other end falls silent in the middle of a request or an answer.

    A request holds a thread until its body is there, and gunicorn waits for ever: as many phones that lose their
    network during an upload as there are threads would stop the server. Accepted sockets inherit the options (Linux).
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, 0))
    if hasattr(socket, "TCP_DEFER_ACCEPT"):  # who connects and says nothing stays with the kernel; Linux only
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, seconds)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # milliseconds that what was sent may stay unconfirmed; Linux only
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)


def _allow_connections() -> int:
    """Return how many connections a worker may hold, most of them idle, and raise the limit of open files to it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _CONNECTIONS + _OTHER_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(min(_CONNECTIONS, soft - _OTHER_FILES), soft // 2)


class _Server(BaseApplication):  # type: ignore[misc]
    """gunicorn's application: where its settings come from, and what it serves."""

    def __init__(
        self, config: ServerConfig, listener: socket.socket, postgres: EmbeddedPostgres | None, *, as_json: bool
    ) -> None:
        self.config = config
        self.listener = listener
        self.postgres = postgres
        self.as_json = as_json
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn up: threads, the socket that we bound, and no files or control sockets of its own."""
        settings = {
            "bind": f"fd://{os.dup(self.listener.fileno())}",
            "worker_class": PatientWorker,
            "workers": self.config.workers,
            "threads": self.config.threads,
            "worker_connections": _allow_connections(),
            "timeout": 60,
            "graceful_timeout": 15,
            "keepalive": 5,
            "control_socket_disable": True,
            "forwarded_allow_ips": "",  # the app trusts as many proxies as its own setting says, and no header else
            "when_ready": self._announce,
            "post_fork": self._in_worker,
            "post_worker_init": _begin_work,
            "child_exit": lambda _arbiter, worker: metrics_folder.bury(worker.pid),
            "logger_class": GunicornLogger,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Build the app; called in each worker."""
        app = create_app(self.config)
        remember_metadata(app)
        return app

    def run(self) -> None:
        """Serve until a signal; leaves through SystemExit."""
        _Supervisor(self).run()

    def _announce(self, _arbiter: Arbiter) -> None:
        address = self.config.address
        text = json.dumps({"address": address}) if self.as_json else f"Serving at {address}"
        click.echo(text)
        sys.stdout.flush()

    def _in_worker(self, _arbiter: Arbiter, _worker: Any) -> None:
        """Cut a worker loose from what only the supervisor holds, and let it die when the supervisor is killed."""
        if self.postgres is not None:
            self.postgres.forget()
        die_with_parent(signal.SIGKILL)


class _Supervisor(Arbiter):  # type: ignore[misc]
    """gunicorn's arbiter, which also looks after Postgres each time it looks after its workers."""

    _next_try = 0.0

    def handle_hup(self) -> None:
        """Stop: a terminal that is closed ends what runs in it. There is nothing to reload."""
        self.handle_term()

    def handle_usr2(self) -> None:
        """Do nothing: gunicorn would start a second arbiter, which could not have this one's Postgres."""
        log.warning("SIGUSR2 is not supported; start a second server behind the same proxy instead")

    def manage_workers(self) -> None:
        """Keep the workers alive, and Postgres; while that is down, requests get 503."""
        super().manage_workers()
        postgres: EmbeddedPostgres | None = self.app.postgres
        if postgres is None or postgres.poll() is None or time.monotonic() < self._next_try:
            return
        log.error("the embedded database ended by itself; starting it again")
        try:
            postgres.restart()
        except StorageError as error:
            log.error("%s", error)
            self._next_try = time.monotonic() + _RESTART_SECONDS


def _begin_work(worker: Any) -> None:
    """Finish a worker's start: silent clients are no errors that a log should tell of; upkeep and webhooks begin."""
    worker.log.error_log.addFilter(_is_no_silence)
    start_upkeep(worker.app.callable)
    start_deliveries(worker.app.callable)
    start_warming(worker.app.callable)


def _is_no_silence(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], BlockingIOError))
