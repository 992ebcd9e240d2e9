"""Every route times every way to ask: who gets in, who is sent away, and that no route was forgotten here."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient

from sync_server.access.tokens import KINDS, issue_token, revoke_token
from sync_server.db import Database, utc_now

# Who may: token kinds, and "login" when a log-in of the right role will do as well. Pages take log-ins only.
EVERYBODY = frozenset({"everybody"})
LOOKS = frozenset({"ops", "view", "login"})
DECIDES = frozenset({"ops", "login"})
PAGE = frozenset({"page"})
RULES: dict[tuple[str, str], frozenset[str]] = {
    ("GET", "/health"): EVERYBODY,
    ("GET", "/health/ready"): EVERYBODY,
    ("GET", "/metrics"): frozenset({"ops", "view"}),
    ("GET", "/apidoc"): EVERYBODY,
    ("GET", "/apidoc/openapi.json"): EVERYBODY,
    ("GET", "/device"): EVERYBODY,
    ("GET", "/device/"): EVERYBODY,
    ("GET", "/device/<path:name>"): EVERYBODY,
    ("GET", "/device/recordings/<model>.csv"): EVERYBODY,
    ("GET", "/static/built/<path:name>"): EVERYBODY,
    ("GET", "/login"): EVERYBODY,
    ("POST", "/login"): EVERYBODY,  # its own CSRF token, see test_access
    ("GET", "/static/<path:filename>"): EVERYBODY,
    ("GET", "/repository/metadata/<name>"): EVERYBODY,
    ("GET", "/repository/targets/<path:name>"): EVERYBODY,
    ("POST", "/logout"): PAGE,
    ("GET", "/api/publish"): frozenset({"pub"}),
    ("POST", "/api/publish"): frozenset({"pub"}),
    ("GET", "/api/channels/<channel>"): LOOKS | {"pub"},
    ("PUT", "/api/channels/<channel>"): DECIDES | {"pub"},
    ("GET", "/api/channels/<channel>/challenger"): LOOKS,
    ("PUT", "/api/channels/<channel>/challenger"): DECIDES,
    ("DELETE", "/api/channels/<channel>/challenger"): DECIDES,
    ("GET", "/api/channels/<channel>/comparison"): LOOKS,
    ("GET", "/api/channels/<channel>/windows"): frozenset({"ops", "pub"}),
    ("POST", "/api/devices"): frozenset({"enr"}),
    ("POST", "/api/device-status"): frozenset({"dev"}),
    ("POST", "/api/results"): frozenset({"dev"}),
    ("GET", "/api/devices/<device_id>"): LOOKS,
    ("GET", "/api/anomalies"): LOOKS,
    ("POST", "/api/anomalies/score"): DECIDES | {"dev"},
    ("GET", "/api/incidents/<int(max=9223372036854775807):incident_id>"): LOOKS,
    ("POST", "/api/incidents/<int(max=9223372036854775807):incident_id>/status"): DECIDES,
    ("GET", "/api/webhooks"): DECIDES,
    ("POST", "/api/webhooks"): DECIDES,
    ("DELETE", "/api/webhooks/<int(max=9223372036854775807):webhook_id>"): DECIDES,
    ("POST", "/api/webhooks/<int(max=9223372036854775807):webhook_id>/enable"): DECIDES,
    ("POST", "/api/webhooks/<int(max=9223372036854775807):webhook_id>/test"): DECIDES,
    ("GET", "/api/incidents/<int(max=9223372036854775807):incident_id>/advice"): LOOKS,
    ("GET", "/api/dashboard/stats"): LOOKS,
    ("GET", "/api/dashboard/trends"): LOOKS,
    ("GET", "/api/dashboard/drift"): LOOKS,
    ("GET", "/api/audit"): LOOKS,
    ("GET", "/api/devices"): LOOKS,
    ("GET", "/api/incidents.csv"): LOOKS,
    ("GET", "/api/channels/<channel>/progress"): LOOKS | {"pub"},
    ("GET", "/"): PAGE,
    ("GET", "/incidents"): PAGE,
    ("GET", "/incidents/<int(max=9223372036854775807):incident_id>"): PAGE,
    ("POST", "/incidents/<int(max=9223372036854775807):incident_id>/status"): PAGE,
    ("GET", "/devices"): PAGE,
    ("GET", "/devices/<device_id>"): PAGE,
    ("GET", "/devices/add-browser"): PAGE,
    ("POST", "/devices/add-browser"): PAGE,
    ("GET", "/rollouts"): PAGE,
    ("GET", "/rollouts/<channel>"): PAGE,
    ("POST", "/rollouts/<channel>"): PAGE,
    ("GET", "/audit"): PAGE,
}
GUARDED = sorted(key for key, who in RULES.items() if who != EVERYBODY)
DENIED = {"not_authenticated", "token_unknown", "token_revoked", "token_expired", "wrong_kind", "csrf"}


def _path(rule: str) -> str:
    return re.sub("<.*>", "1", rule)


def _ask(client: FlaskClient, method: str, rule: str, token: str | None = None, csrf: str | None = None) -> str:
    """Ask and return the code of the refusal, ``in`` when the door was open, ``log in`` when sent to the log-in page."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    if csrf is not None:
        headers["X-CSRF-Token"] = csrf
    answer = client.open(_path(rule), method=method, headers=headers)
    if answer.status_code in (401, 403):
        return str(answer.json["code"]) if answer.is_json else "page refused"
    if answer.status_code == 303 and answer.headers["Location"].startswith("/login?next="):
        return "log in"
    return "in"


def test_no_route_is_forgotten(app: Flask) -> None:
    methods = {"GET", "POST", "PUT", "PATCH", "DELETE"}
    there = {(method, rule.rule) for rule in app.url_map.iter_rules() for method in (rule.methods or set()) & methods}
    assert there == set(RULES)


@pytest.fixture
def tokens(database: Database) -> dict[str, dict[str, str]]:
    """For each kind a token that is right, one that was revoked, one that has expired."""
    made: dict[str, dict[str, str]] = {}
    with database.session() as session:
        for kind in KINDS:
            past = utc_now() - timedelta(seconds=1)
            states = {"right": None, "token_revoked": None, "token_expired": past}
            issued = {state: issue_token(session, kind, name=state, expires_at=end) for state, end in states.items()}
            made[kind] = {state: token.token for state, token in issued.items()}
            revoke_token(session, issued["token_revoked"].id)
    return made


def test_every_token_at_every_door(client: FlaskClient, tokens: dict[str, dict[str, str]]) -> None:
    for method, rule in GUARDED:
        who = RULES[method, rule]
        if who == PAGE:
            assert {_ask(client, method, rule, token=made["right"]) for made in tokens.values()} == {"log in"}
            continue
        place = f"{method} {rule}"
        assert _ask(client, method, rule) == "not_authenticated", place
        assert _ask(client, method, rule, token=f"st_ops_{'A' * 43}") == "token_unknown", place
        for kind, made in tokens.items():
            for state in ("token_revoked", "token_expired"):
                assert _ask(client, method, rule, token=made[state]) == state, place
            found = _ask(client, method, rule, token=made["right"])
            if kind not in who:
                assert found == "wrong_kind", (place, kind)
            elif kind in ("dev", "enr"):
                assert found not in DENIED, (place, kind)
            else:
                assert found == "in", (place, kind)


@pytest.mark.parametrize("role", ["operator", "viewer"])
def test_every_log_in_at_every_door(role: str, log_in: Callable[..., tuple[FlaskClient, str]]) -> None:
    page, csrf = log_in(role)
    for method, rule in GUARDED:
        if rule == "/logout":
            continue  # below, it ends the log-in
        who, changes, place = RULES[method, rule], method != "GET", f"{method} {rule}"
        with_csrf, without = _ask(page, method, rule, csrf=csrf), _ask(page, method, rule)
        if who == PAGE:
            assert with_csrf == ("page refused" if changes and role == "viewer" else "in"), place
            assert without == ("page refused" if changes else "in"), place
        elif "login" not in who:
            assert with_csrf == "not_authenticated", place
        elif role == "viewer" and "view" not in who:
            assert with_csrf == "wrong_kind", place
        else:
            assert (with_csrf, without) == ("in", "csrf" if changes else "in"), place
    assert _ask(page, "POST", "/logout", csrf="wrong") == "page refused"
    assert _ask(page, "POST", "/logout", csrf=csrf) == "in"
    assert _ask(page, "GET", "/") == "log in", "the cookie opens nothing any more"
