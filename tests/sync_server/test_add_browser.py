"""Browsers as devices: the link, what it lets in, and the host that they may have of their own."""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Callable
from urllib.parse import unquote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from simulators.bundles import SmallBundle
from simulators.release_engineer import ReleaseEngineer, multipart
from simulators.server_devices import enrolment_token
from sqlalchemy import text

from edge_runtime.contract.enrolment import EnrolmentLine
from edge_runtime.errors import ContractError, InputError
from sync_server.access.sessions import SESSION_COOKIE
from sync_server.app import create_app
from sync_server.config import ServerConfig, load_config
from sync_server.db import Database
from sync_server.repository.online_key import load_or_create, public_pem
from sync_server.web_assets.hosts import host_name

LogIn = Callable[..., tuple[FlaskClient, str]]
OWN_HOST = "http://device.example:8080"


@pytest.fixture
def published(app: Flask, client: FlaskClient, auth: Callable[..., dict[str, str]]) -> None:
    """One release of the model pumps, rolled out on stable."""
    engineer = ReleaseEngineer(public_pem(load_or_create(app.extensions["config"].online_key_path)))
    bundle = SmallBundle(version="v1", release_number=1, channels=("stable",)).build()
    parts = {**engineer.sign_root(), **engineer.sign_targets(bundle)}
    assert client.post("/api/publish", data=multipart(parts), headers=auth("pub")).status_code == 201
    wanted = {"action": "start", "model": "pumps", "release": 1, "share": 10_000}
    assert client.put("/api/channels/stable", json=wanted, headers=auth("pub")).status_code == 200


def made_link(page: FlaskClient, csrf: str) -> str:
    answer = page.post("/devices/add-browser", data={"csrf_token": csrf, "channel": "stable"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    found = re.search(r'href="([^"]*#enrol=[^"]*)"', answer.text)
    assert found is not None
    return html.unescape(found[1])


def enrol(client: FlaskClient, token: str, kind: str, installation: str = "1" * 32) -> tuple[int, str | None]:
    body = {"installation_id": installation, "kind": kind}
    answer = client.post("/api/devices", json=body, headers={"Authorization": f"Bearer {token}"})
    return answer.status_code, answer.get_json().get("code")


@pytest.mark.usefixtures("published")
def test_the_link_lets_in_one_browser_and_nothing_else(client: FlaskClient, log_in: LogIn, database: Database) -> None:
    address, _, fragment = made_link(*log_in()).partition("#enrol=")
    assert address == "http://127.0.0.1:8080/device/"
    line = EnrolmentLine.parse(unquote(fragment))
    assert enrol(client, line.token, "edge") == (403, "wrong_device_kind")
    assert enrol(client, line.token, "demo") == (201, None)
    assert enrol(client, line.token, "demo", installation="2" * 32) == (403, "enrolment_used_up")
    with database.session() as session:
        assert session.execute(text("SELECT kind, model, channel FROM devices")).all() == [("demo", "pumps", "stable")]
        made = session.execute(
            text("SELECT actor, detail->>'kind' FROM audit_entries WHERE action = 'enrolment.create'")
        )
        assert made.all() == [("operator alice", "demo")]
        left = session.execute(
            text("SELECT expires_at - now() < interval '1 day' FROM access_tokens WHERE kind = 'enr'")
        )
        assert left.scalar_one()


def test_a_line_for_edge_devices_lets_in_no_browser(client: FlaskClient, database: Database) -> None:
    assert enrol(client, enrolment_token(database), "demo") == (403, "wrong_device_kind")


@pytest.mark.usefixtures("published")
def test_a_link_leads_to_the_pages_own_host(own_host: FlaskClient, log_in: LogIn) -> None:
    page, csrf = log_in()
    own_host.set_cookie(SESSION_COOKIE, page.get_cookie(SESSION_COOKIE).value)  # type: ignore[union-attr]
    assert made_link(own_host, csrf).startswith(f"{OWN_HOST}/device/#enrol=stella-enroll:1:{OWN_HOST}:")


@pytest.mark.usefixtures("published")
def test_the_code_is_a_drawing_without_style(log_in: LogIn) -> None:
    page, csrf = log_in()
    shown = page.post("/devices/add-browser", data={"csrf_token": csrf, "channel": "stable"}).text
    assert '<svg viewBox="0 0 ' in shown
    assert "style=" not in shown


@pytest.mark.usefixtures("published")
def test_who_may_add_a_browser(client: FlaskClient, log_in: LogIn) -> None:
    assert client.get("/devices/add-browser").headers["Location"].startswith("/login")
    viewer, csrf = log_in("viewer", "vera")
    assert viewer.post("/devices/add-browser", data={"csrf_token": csrf, "channel": "stable"}).status_code == 403
    assert "Add a browser" not in viewer.get("/devices").text
    operator, csrf = log_in()
    assert "Add a browser" in operator.get("/devices").text
    assert operator.post("/devices/add-browser", data={"channel": "stable"}).status_code == 403
    assert operator.post("/devices/add-browser", data={"csrf_token": csrf, "channel": "none"}).status_code == 422


def test_nothing_to_follow_yet(log_in: LogIn) -> None:
    page, _ = log_in()
    assert "Nothing is published yet" in page.get("/devices/add-browser").text


@pytest.fixture
def own_host(server_config: ServerConfig, database: Database) -> FlaskClient:
    return create_app(dataclasses.replace(server_config, device_page_url=OWN_HOST), database).test_client()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/repository/metadata/timestamp.json", 404),
        ("POST", "/api/devices", 401),
        ("POST", "/api/results", 401),
        ("POST", "/api/device-status", 401),
        ("GET", "/health", 200),
        ("GET", "/", 302),
    ],
)
def test_the_devices_host_answers_what_a_device_needs(
    own_host: FlaskClient, method: str, path: str, status: int
) -> None:
    answer = own_host.open(path, method=method, base_url=OWN_HOST)
    assert answer.status_code == status
    assert "This host answers devices only" not in answer.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/login"), ("POST", "/login"), ("GET", "/devices"), ("GET", "/api/devices/" + "0" * 32),
        ("POST", "/api/publish"), ("PUT", "/api/channels/stable"), ("GET", "/api/anomalies"), ("GET", "/static/style.css"),
        ("GET", "/apidoc"), ("GET", "/metrics"),
    ],
)  # fmt: skip
def test_the_devices_host_answers_nothing_of_the_operators(own_host: FlaskClient, method: str, path: str) -> None:
    answer = own_host.open(path, method=method, base_url=OWN_HOST)
    assert answer.status_code == 404
    assert "This host answers devices only" in answer.text
    assert "Set-Cookie" not in answer.headers


def test_other_hosts_send_the_page_to_its_own(own_host: FlaskClient) -> None:
    answer = own_host.get("/device/", base_url="http://fleet.example:8080")
    assert (answer.status_code, answer.headers["Location"]) == (302, f"{OWN_HOST}/device/")
    assert own_host.get("/login", base_url="http://fleet.example:8080").status_code == 200


def test_a_worker_that_stayed_on_the_operators_host_is_told_to_leave(own_host: FlaskClient) -> None:
    path = "/device/service-worker.js"
    answer = own_host.get(path, base_url="http://fleet.example:8080")
    assert (answer.status_code, answer.mimetype) == (200, "text/javascript")
    assert answer.headers["Cache-Control"] == "no-cache"
    assert "registration.unregister()" in answer.text
    assert "unregister" not in own_host.get(path, base_url=OWN_HOST).text


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("device.example", ContractError),
        ("https://device.example/below", InputError),
        ("https://fleet.example:9443", InputError),
    ],
)
def test_a_page_address_that_is_no_host_of_its_own(url: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        load_config(environ={}, public_url="https://fleet.example", device_page_url=url)


def test_ports_are_no_part_of_a_hosts_name() -> None:
    assert host_name("Device.example:8443") == host_name("device.example:") == host_name("device.example")
    assert host_name("[::1]:8080") == host_name("[::1]") == "[::1]"
    assert host_name("device.example:x") != "device.example"


@pytest.mark.parametrize("host", ["device.example", "device.example:8443", "Device.Example:443"])
def test_a_proxy_that_leaves_the_port_out_keeps_the_hosts_apart(
    host: str, server_config: ServerConfig, database: Database
) -> None:
    """nginx's $host holds no port; the setting names one."""
    config = dataclasses.replace(server_config, device_page_url="https://device.example:8443")
    client = create_app(config, database).test_client()
    assert client.get("/", base_url=f"https://{host}").headers["Location"] == "/device/"
    assert "This host answers devices only" in client.get("/login", base_url=f"https://{host}").text
    page = client.get("/device/", base_url=f"https://{host}")
    assert (page.status_code, page.headers.get("Location")) == (200, None)
    away = client.get("/device/", base_url="https://fleet.example:8443")
    assert away.headers["Location"] == "https://device.example:8443/device/"
