"""A real server on a real port with a small fleet, and Debian's chromium in front of it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from simulators.chromium import ARGUMENTS, chromium, driver
from simulators.server_fleet import populate
from simulators.server_rollouts import populate_rollouts
from werkzeug.serving import make_server

from sync_server.access.sessions import create_operator
from sync_server.app import create_app
from sync_server.config import load_config
from sync_server.db import Database
from sync_server.embedded_postgres import EmbeddedPostgres
from sync_server.migrations import migrate

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's chromium."""
    with driver() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a fleet of eight devices and two rollouts, an operator `olga` and a viewer `vera`."""
    folder = tmp_path_factory.mktemp("server")
    with EmbeddedPostgres(folder / "pg") as postgres:
        migrate(postgres.owner_url, app_role="stella_app")
        database = Database(postgres.app_url, pool_size=5)
        config = dataclasses.replace(load_config(data_dir=folder, environ={}), database_url="postgresql://unused")
        app = create_app(config, database)
        populate(app.test_client(), database)
        populate_rollouts(app, database)
        with database.session() as session:
            create_operator(session, "olga", PASSWORD)
            create_operator(session, "vera", PASSWORD, role="viewer")
        server = make_server("127.0.0.1", 0, app, threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.port}"
        server.shutdown()
        thread.join()
        server.server_close()
        database.dispose()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where people find what the pages looked like: build/screenshots."""
    folder = Path(__file__).resolve().parents[2] / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
