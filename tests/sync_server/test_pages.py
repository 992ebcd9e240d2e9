"""Pages as a browser without a script gets them: content, forms, access, errors, and how many queries they cost."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from flask import Flask
from flask.testing import FlaskClient
from simulators.server_devices import NOON, ServerDevice, anomaly, enrolment_token
from simulators.server_fleet import populate
from sqlalchemy import event, text

from sync_server.dashboard import audit_pages
from sync_server.db import Database

LogIn = Callable[..., tuple[FlaskClient, str]]
PATHS = ("/", "/incidents", "/devices", "/rollouts", "/audit")


class Outline(HTMLParser):
    """Checks that a page is well formed, and collects what the tests ask for."""

    VOID = frozenset(("meta", "link", "input", "br", "rect", "line", "path"))

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text_of: defaultdict[str, str] = defaultdict(str)
        self.feed(page)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text_of[self.open[-1]] += data

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag, (tag, self.getpos())


@pytest.fixture
def fleet(client: FlaskClient, database: Database) -> list[ServerDevice]:
    return populate(client, database)


def page(client: FlaskClient, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert (answer.status_code, answer.mimetype) == (status, "text/html"), answer.text
    return answer.text


def paths_of(fleet: list[ServerDevice]) -> list[str]:
    return [
        *PATHS,
        f"/devices/{fleet[0].id}",
        f"/devices/{fleet[1].id}",
        "/incidents/1",
        "/incidents?status=open&signal=rpm",
    ]


def test_pages_are_well_formed_and_hold_nothing_inline(fleet: list[ServerDevice], log_in: LogIn) -> None:
    browser, _ = log_in()
    for path in paths_of(fleet):
        outline = Outline(page(browser, path))
        names = [tag for tag, _ in outline.tags]
        assert names.count("h1") == names.count("main") == 1
        assert "style" not in names
        assert outline.text_of["script"] == ""
        assert all("src" in attributes for tag, attributes in outline.tags if tag == "script")
        ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
        assert len(ids) == len(set(ids)), path
        for tag, attributes in outline.tags:
            assert not [name for name in attributes if name == "style" or name.startswith("on")], (path, tag)
            for name in ("src", "href", "action"):
                target = attributes.get(name) or ""
                assert target.startswith(("/", "#")) or not target, (path, target)


def test_answers_forbid_inline_code_and_caching(fleet: list[ServerDevice], log_in: LogIn) -> None:
    browser, _ = log_in()
    answer = browser.get("/")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "unsafe-inline" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    with browser.get("/static/style.css") as sheet:
        assert (sheet.status_code, sheet.mimetype) == (200, "text/css")
        assert "url(" not in sheet.text
    assert browser.get("/static/../pages.py").status_code == 404


@pytest.mark.parametrize("path", [*PATHS, "/incidents/1", "/devices/" + "a" * 32, "/incidents?status=open"])
def test_strangers_are_sent_to_the_log_in_and_back(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/login?next=%2F")
    Outline(page(client, answer.headers["Location"]))


def test_logging_in_and_out_by_the_forms(client: FlaskClient, log_in: LogIn) -> None:
    log_in(username="olga")
    form = page(client, "/login?next=/incidents")
    token = re.search(r'name="csrf_token" value="([^"]+)"', form)[1]
    fields = {"csrf_token": token, "next": "/incidents", "username": "olga"}
    wrong = client.post("/login", data={**fields, "password": "wrong password"})
    assert wrong.status_code == 401
    assert 'role="alert"' in wrong.text
    assert 'value="olga"' in wrong.text
    token = re.search(r'name="csrf_token" value="([^"]+)"', wrong.text)[1]
    right = client.post("/login", data={**fields, "csrf_token": token, "password": "correct horse battery"})
    assert (right.status_code, right.headers["Location"]) == (303, "/incidents")
    fleet = page(client, "/")
    assert "operator olga" in fleet
    token = re.search(r'action="/logout">\s*<input type="hidden" name="csrf_token" value="([^"]+)"', fleet)[1]
    assert client.post("/logout", data={"csrf_token": token}).status_code == 303
    assert client.get("/").status_code == 303


def test_an_empty_server_says_what_to_do(log_in: LogIn) -> None:
    browser, _ = log_in()
    assert "enrolment create" in page(browser, "/")
    assert "No incidents" in page(browser, "/incidents")
    assert "No devices yet" in page(browser, "/devices")


def test_a_device_that_has_said_nothing_yet(client: FlaskClient, database: Database, log_in: LogIn) -> None:
    device = ServerDevice.enrol(client, enrolment_token(database), cohort=None)
    browser, _ = log_in()
    shown = page(browser, f"/devices/{device.id}")
    assert "has not uploaded any scores yet" in shown
    assert "none reported" in shown
    assert "No device matches" in page(browser, "/devices?name=zzz")
    assert "Nothing was scored" in page(browser, "/")


def test_the_fleet_page(fleet: list[ServerDevice], log_in: LogIn) -> None:
    browser, _ = log_in()
    shown = page(browser, "/")
    assert ">9</span> open incidents" in shown
    assert shown.count('role="img"') == shown.count("data-plot=") == 2
    assert "The same as a table" in shown
    assert "1.7 <span" in shown
    assert page(browser, "/?hours=24&cohort=north") != shown
    assert "There is no parameter" in page(browser, "/?bogus=1", 422)


def test_one_device_shows_its_troubles(fleet: list[ServerDevice], log_in: LogIn) -> None:
    browser, _ = log_in()
    cloned = page(browser, f"/devices/{fleet[0].id}")
    for words in (
        "a copy of its home runs somewhere else",
        "records given up",
        "incident ended",
        "vibration",
        "onnxruntime 1.32.0",
    ):
        assert words in cloned, words
    stale = page(browser, f"/devices/{fleet[1].id}")
    for words in ("3 dead letters", "refused: golden_failed", "1,234", "plain http"):
        assert words in stale, words
    assert "Not found" in page(browser, "/devices/" + "0" * 32, 404)
    assert "pump-01" in page(browser, "/devices?flag=cloned")
    assert "pump-02" not in page(browser, "/devices?flag=cloned")
    assert "pump-03" in page(browser, "/devices?flag=silent")
    assert "There is no flag" in page(browser, "/devices?flag=x", 422)


def test_incident_filters_and_their_errors(fleet: list[ServerDevice], log_in: LogIn) -> None:
    browser, _ = log_in()
    assert page(browser, "/incidents").count('<tr id="incident-') == 9
    assert page(browser, "/incidents?cohort=south&signal=oil_pressure").count('<tr id="incident-') == 3
    assert page(browser, "/incidents?from=2020-01-01&to=2099-01-01").count('<tr id="incident-') == 9
    assert "No incident matches" in page(browser, "/incidents?to=2020-01-01")
    for query in (
        "minimum_score=7",
        "from=yesterday",
        "status=x",
        "device=1",
        "cursor=1",
        "from=1900-01-01&minimum_score=x",
    ):
        refused = page(browser, f"/incidents?{query}", 422)
        assert 'role="alert"' in refused
        Outline(refused)


def test_pages_of_incidents_hold_each_once(client: FlaskClient, database: Database, log_in: LogIn) -> None:
    device = ServerDevice.enrol(client, enrolment_token(database))
    device.send([anomaly(n + 1, NOON + n) for n in range(120)])
    browser, _ = log_in()
    found: list[str] = []
    path: str | None = "/incidents?signal=temperature"
    while path:
        shown = page(browser, path)
        found += re.findall(r'<tr id="incident-(\d+)"', shown)
        following = re.search(r'rel="next" href="([^"]+)"', shown)
        path = following[1].replace("&amp;", "&") if following else None
    assert [int(number) for number in found] == sorted(map(int, found), reverse=True)
    assert len(set(found)) == 120


def test_pages_of_devices_hold_each_once(client: FlaskClient, database: Database, log_in: LogIn) -> None:
    token = enrolment_token(database)
    expected = {ServerDevice.enrol(client, token).id for _ in range(53)}
    browser, _ = log_in()
    first = page(browser, "/devices")
    following = re.search(r'rel="next" href="([^"]+)"', first)[1].replace("&amp;", "&")
    second = page(browser, following)
    assert set(re.findall(r'href="/devices/([0-9a-f]{32})"', first + second)) == expected
    assert 'rel="next"' not in second
    page(browser, "/devices?after=x", 422)


def test_deciding_by_the_form(fleet: list[ServerDevice], log_in: LogIn) -> None:
    browser, csrf = log_in(username="olga")
    fields = {"status": "acknowledged", "note": "crew <b>sent</b>", "next": "/incidents?status=open#incident-1"}
    refused = browser.post("/incidents/1/status", data=fields)
    assert refused.status_code == 403
    answer = browser.post("/incidents/1/status", data={**fields, "csrf_token": csrf})
    assert (answer.status_code, answer.headers["Location"]) == (303, fields["next"])
    shown = page(browser, "/incidents/1")
    assert "crew &lt;b&gt;sent&lt;/b&gt;" in shown
    assert "operator olga" in shown
    assert page(browser, "/incidents?status=open").count('<tr id="incident-') == 8
    empty = browser.post("/incidents/1/status", data={**fields, "note": " ", "csrf_token": csrf})
    assert (empty.status_code, empty.mimetype) == (422, "text/html")
    elsewhere = browser.post("/incidents/1/status", data={**fields, "next": "//evil.example", "csrf_token": csrf})
    assert elsewhere.headers["Location"] == "/"
    assert browser.post("/incidents/99/status", data={**fields, "csrf_token": csrf}).status_code == 404


def test_viewers_see_no_forms_and_decide_nothing(fleet: list[ServerDevice], log_in: LogIn) -> None:
    browser, csrf = log_in("viewer", "vera")
    assert 'action="/incidents/' not in page(browser, "/incidents")
    fields = {"status": "resolved", "note": "x", "csrf_token": csrf}
    answer = browser.post("/incidents/1/status", data=fields)
    assert (answer.status_code, answer.mimetype) == (403, "text/html")


def test_what_devices_say_is_never_markup(client: FlaskClient, database: Database, log_in: LogIn) -> None:
    evil = '"><script>alert(1)</script>'
    device = ServerDevice.enrol(client, enrolment_token(database), cohort=evil, name=evil)
    device.send([anomaly(1, signals=(evil,))])
    device.report(cohort=evil, runtime={evil: evil}, last_update={"outcome": evil, "reason": evil})
    browser, _ = log_in()
    for path in (*PATHS, f"/devices/{device.id}", "/incidents/1"):
        assert "<script>" not in page(browser, path)


def test_queries_do_not_grow_with_the_fleet(
    client: FlaskClient, database: Database, fleet: list[ServerDevice], log_in: LogIn
) -> None:
    browser, _ = log_in()
    seen: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *call: seen.append(call[2]))

    def cost() -> list[int]:
        result = []
        for path in paths_of(fleet):
            seen.clear()
            page(browser, path)
            result.append(len(seen))
            assert not [statement for statement in seen if "OFFSET" in statement.upper()]
        return result

    few = cost()
    populate(client, database, devices=4)
    assert cost() == few
    assert max(few) <= 12


def test_a_database_that_is_away_is_a_page(app: Flask, log_in: LogIn) -> None:
    browser, _ = log_in()
    away = Database("postgresql://nobody@127.0.0.1:1/none", pool_size=1)
    app.extensions["database"] = away
    answer = browser.get("/")
    away.dispose()
    assert (answer.status_code, answer.mimetype, answer.headers["Retry-After"]) == (503, "text/html", "5")
    assert "database" in answer.text


def test_a_statement_that_fails_is_a_page_too(app: Flask, log_in: LogIn, owner_database: Database) -> None:
    browser, _ = log_in()
    with owner_database.session() as session:
        session.execute(text("ALTER TABLE hourly_rollups RENAME TO hidden"))
    try:
        answer = browser.get("/")
    finally:
        with owner_database.session() as session:
            session.execute(text("ALTER TABLE hidden RENAME TO hourly_rollups"))
    assert (answer.status_code, answer.mimetype) == (500, "text/html")
    assert "hourly_rollups" not in answer.text


def test_an_incident_says_what_it_may_be(fleet: list[ServerDevice], log_in: LogIn) -> None:
    browser, _ = log_in()
    assert "Put together from the contributions at the peak" in page(browser, "/incidents/1")


def test_incidents_can_be_taken_away_as_a_file(fleet: list[ServerDevice], log_in: LogIn) -> None:
    browser, _ = log_in()
    listed = page(browser, "/incidents?status=open&from=2026-01-01&cohort=north")
    address = re.search(r'href="(/api/incidents.csv[^"]*)"', listed)[1].replace("&amp;", "&")
    assert "from_ms=" in address
    assert "cohort=north" in address
    answer = browser.get(address)
    assert (answer.status_code, answer.mimetype) == (200, "text/csv")
    assert len(answer.text.splitlines()) - 1 == listed.count('id="incident-')


def test_the_audit_trail_as_a_page(fleet: list[ServerDevice], log_in: LogIn) -> None:
    browser, csrf = log_in()
    fields = {"status": "acknowledged", "note": "<b>seen</b>", "csrf_token": csrf}
    assert browser.post("/incidents/1/status", data=fields).status_code == 303
    shown = page(browser, "/audit?action=incident.status")
    assert shown.count("<tbody>") == 1
    assert "&lt;b&gt;seen&lt;/b&gt;" in shown
    assert "operator alice" in shown
    assert "No entry matches" in page(browser, "/audit?actor=nobody")
    assert 'role="alert"' in page(browser, "/audit?cursor=broken", 422)
    first = page(browser, "/audit")
    assert 'rel="next"' not in first or "cursor=" in first


def test_details_of_a_change_are_told_as_a_change() -> None:
    told = audit_pages.told({"before": {"share": 100, "state": "running"}, "after": {"share": 400, "state": "running"}})
    assert told == [("share", "100 → 400")]
    assert audit_pages.told({"before": None, "after": {"share": 100}, "note": "x" * 200})[0] == ("share", "100")
    assert len(audit_pages.told({"note": "x" * 200})[0][1]) == 160
    assert audit_pages.told({"added": ["a", "b"], "previous": None}) == [("added", "a, b"), ("previous", "none")]
