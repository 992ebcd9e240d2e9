"""What `make web` built, as browsers get it."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from sync_server.config import ServerConfig
from sync_server.web_assets import built, routes


@pytest.fixture
def web(client: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    """A client of a server whose web folder holds a small made-up build."""
    folder = tmp_path / "web"
    files = {
        "device/index.html": "<p>page</p>",
        "device/service-worker.js": "worker",
        "device/assets/run-a1.wasm": "wasm",
        "device/assets/run-a1.wasm.br": "wasm by brotli",
        "device/assets/run-a1.wasm.gz": "wasm by gzip",
        "dashboard/manifest.json": '{"src/dashboard/main.ts": {"file": "assets/main-b2.js"}}',
        "dashboard/assets/main-b2.js": "script",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    _point_at(folder, monkeypatch)
    return client


def _point_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device, dashboard = built.BuiltFiles(folder / "device"), built.BuiltFiles(folder / "dashboard")
    built.dashboard_entry.cache_clear()
    for module in (built, routes):
        monkeypatch.setattr(module, "device_files", lambda: device)
        monkeypatch.setattr(module, "dashboard_files", lambda: dashboard)


def test_the_page_and_its_worker_are_asked_for_each_time(web: FlaskClient) -> None:
    for path in ("/device/", "/device/service-worker.js"):
        answer = web.get(path)
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "no-cache"
        again = web.get(path, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")


def test_what_is_named_by_content_is_kept_for_ever(web: FlaskClient) -> None:
    answer = web.get("/device/assets/run-a1.wasm")
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["Content-Type"] == "application/wasm"


@pytest.mark.parametrize(
    ("accepted", "encoding", "body"),
    [
        ("gzip, deflate, br, zstd", "br", b"wasm by brotli"),
        ("gzip, deflate", "gzip", b"wasm by gzip"),
        ("br;q=0, gzip", "gzip", b"wasm by gzip"),
        ("identity", None, b"wasm"),
        (None, None, b"wasm"),
    ],
)
def test_the_client_says_how_it_is_compressed(
    web: FlaskClient, accepted: str | None, encoding: str | None, body: bytes
) -> None:
    answer = web.get("/device/assets/run-a1.wasm", headers={"Accept-Encoding": accepted} if accepted else {})
    assert (answer.headers.get("Content-Encoding"), answer.data) == (encoding, body)
    assert answer.headers["Vary"] == "Accept-Encoding"


def test_the_page_has_a_policy_of_its_own(web: FlaskClient) -> None:
    policy = web.get("/device/").headers["Content-Security-Policy"]
    assert policy == web.get("/device/assets/run-a1.wasm").headers["Content-Security-Policy"]
    assert "script-src 'self' 'wasm-unsafe-eval'" in policy
    assert "unsafe-inline" not in policy
    assert "'unsafe-eval'" not in policy
    assert "wasm-unsafe-eval" not in web.get("/login").headers["Content-Security-Policy"]


def test_the_headers_that_the_worker_keeps_are_the_ones_of_every_page(web: FlaskClient) -> None:
    served, other = web.get("/device/").headers, web.get("/login").headers
    assert {name: served[name] for name in routes.DEVICE_HEADERS} == routes.DEVICE_HEADERS
    for name in ("X-Content-Type-Options", "Referrer-Policy", "Permissions-Policy"):
        assert routes.DEVICE_HEADERS[name] == other[name]


@pytest.mark.parametrize(
    "path", ["/device/missing.js", "/device/../config.py", "/device/assets/run-a1.wasm.br", "/device/%2e%2e/config.py"]
)
def test_only_built_files_are_served(web: FlaskClient, path: str) -> None:
    assert web.get(path).status_code == 404


def test_the_slash_may_be_forgotten(web: FlaskClient) -> None:
    assert web.get("/device").headers["Location"] == "/device/"


def test_pages_name_the_dashboards_script_by_its_content(web: FlaskClient) -> None:
    assert b'src="/static/built/assets/main-b2.js"' in web.get("/login").data
    assert web.get("/static/built/assets/main-b2.js").data == b"script"


def test_a_server_without_the_build_says_so_and_keeps_its_dashboard(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _point_at(tmp_path / "nothing", monkeypatch)
    answer = app.test_client().get("/device/")
    assert answer.status_code == 503
    assert b"make web" in answer.data
    page = app.test_client().get("/login")
    assert page.status_code == 200
    assert b"<script" not in page.data


def test_recordings_are_what_an_operator_put_there(client: FlaskClient, server_config: ServerConfig) -> None:
    folder = server_config.data_dir / "recordings"
    folder.mkdir(parents=True)
    (folder / "pumps.csv").write_text("timestamp,heat\n0,1\n")
    (server_config.data_dir / "secret.csv").write_text("secret")
    with client.get("/device/recordings/pumps.csv") as answer:
        assert (answer.status_code, answer.mimetype, answer.text) == (200, "text/csv", "timestamp,heat\n0,1\n")
    assert client.get("/device/recordings/other.csv").status_code == 404
    for name in ("..%2fsecret", "PUMPS", "a" * 65):
        assert client.get(f"/device/recordings/{name}.csv").status_code in (404, 422)
