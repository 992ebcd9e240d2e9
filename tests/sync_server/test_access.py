"""Who may do what: tokens, log-in, CSRF, the rate limit, and the trail that all of it leaves."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from edge_runtime.errors import InputError
from sync_server.access import sessions
from sync_server.access.audit import audit
from sync_server.access.models import AccessToken, AuditEntry, LoginAttempt, LoginSession, Operator
from sync_server.access.routes import safe_next
from sync_server.access.tokens import KINDS, digest_of, find_token, issue_token, revoke_token
from sync_server.app import create_app
from sync_server.config import ServerConfig
from sync_server.db import Database, utc_now
from sync_server.errors import RequestError

PASSWORD = "correct horse battery"
_CSRF = re.compile(r'name="csrf_token"[^>]*value="([^"]+)"')


def test_tokens_are_stored_as_digests_only(database: Database) -> None:
    with database.session() as session:
        issued = [issue_token(session, kind, name="n", subject="d") for kind in KINDS]
    for token in issued:
        assert re.fullmatch(rf"st_{token.kind}_[A-Za-z0-9_-]{{43}}", token.token)
    with database.session() as session:
        rows = session.scalars(select(AccessToken).order_by(AccessToken.id)).all()
        assert [row.digest for row in rows] == [digest_of(token.token) for token in issued]
        everything = session.execute(text("SELECT string_agg(t::text, '') FROM access_tokens t")).scalar_one()
    actors = [find_token(database, token.token, now=utc_now()) for token in issued]
    assert all(token.token not in everything for token in issued)
    assert [actor.kind for actor in actors] == list(KINDS)
    assert actors[0].subject == "d"


@pytest.mark.parametrize(
    "token", ["", "st_pub_short", f"st_pub_{'A' * 43}", f"st_pub_{'A' * 43}\n", "x" * 5000, "st_pub_é"]
)
def test_unknown_tokens(token: str, database: Database) -> None:
    with pytest.raises(RequestError) as caught:
        find_token(database, token, now=utc_now())
    assert (caught.value.status, caught.value.code) == (401, "token_unknown")


def test_expiry_and_revocation(database: Database) -> None:
    now = utc_now()
    with database.session() as session:
        issued = issue_token(session, "pub", name="n", expires_at=now + timedelta(days=1))
    assert find_token(database, issued.token, now=now).token_id == issued.id
    with pytest.raises(RequestError) as caught:
        find_token(database, issued.token, now=now + timedelta(days=1))
    assert caught.value.code == "token_expired"
    with database.session() as session:
        revoke_token(session, issued.id)
        first = session.get_one(AccessToken, issued.id).revoked_at
        revoke_token(session, issued.id)
        assert session.get_one(AccessToken, issued.id).revoked_at == first
    with pytest.raises(RequestError) as caught:
        find_token(database, issued.token, now=now)
    assert caught.value.code == "token_revoked"
    with pytest.raises(InputError), database.session() as session:
        revoke_token(session, 999)


@pytest.mark.parametrize("header", ["Basic abc", "Bearer", "Bearer ", "st_pub_x", "", "Bearer st_pub_x"])
def test_headers_that_are_no_token(header: str, client: FlaskClient) -> None:
    answer = client.get("/api/publish", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("username", "password", "role"),
    [("", PASSWORD, "operator"), ("a b", PASSWORD, "operator"), ("a", "short", "operator"), ("a", PASSWORD, "king")],
)
def test_operators_that_cannot_be(username: str, password: str, role: str, database: Database) -> None:
    with pytest.raises(InputError), database.session() as session:
        sessions.create_operator(session, username, password, role=role)


@pytest.fixture
def alice(database: Database) -> None:
    with database.session() as session:
        sessions.create_operator(session, "alice", PASSWORD)


def _form(client: FlaskClient, **query: str) -> str:
    page = client.get("/login", query_string=query)
    assert page.status_code == 200
    found = _CSRF.search(page.text)
    assert found, page.text
    return found[1]


def _log_in(client: FlaskClient, password: str = PASSWORD, **fields: str) -> Any:
    token = _form(client)
    return client.post("/login", data={"username": "alice", "password": password, "csrf_token": token, **fields})


@pytest.mark.usefixtures("alice")
def test_log_in_and_out(client: FlaskClient, database: Database) -> None:
    answer = _log_in(client, next="/incidents?status=open")
    assert (answer.status_code, answer.location) == (303, "/incidents?status=open")
    cookie = next(c for c in answer.headers.getlist("Set-Cookie") if c.startswith("stella_session="))
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    secret = client.get_cookie(sessions.SESSION_COOKIE)
    assert secret is not None
    with database.session() as session:
        actor = sessions.find_session(session, secret.value, now=utc_now())
        assert actor is not None
        assert (actor.kind, actor.label) == ("ops", "operator alice")
        assert session.scalars(select(LoginAttempt)).all() == []
        assert session.scalars(select(LoginSession.digest)).one() != secret.value.encode()
    assert client.post("/logout").status_code == 403  # without CSRF
    done = client.post("/logout", data={"csrf_token": sessions.csrf_of(secret.value)})
    assert (done.status_code, done.location) == (303, "/login")
    with database.session() as session:
        assert sessions.find_session(session, secret.value, now=utc_now()) is None
        trail = session.scalars(select(AuditEntry.action).order_by(AuditEntry.id)).all()
    assert trail == ["login.done", "login.ended"]


@pytest.mark.usefixtures("alice")
def test_a_log_in_is_a_new_one_and_ends_the_one_before(client: FlaskClient, database: Database) -> None:
    client.set_cookie(sessions.SESSION_COOKIE, "chosen-by-somebody-else")
    seen = []
    for _ in range(2):
        assert _log_in(client).status_code == 303
        cookie = client.get_cookie(sessions.SESSION_COOKIE)
        assert cookie is not None
        seen.append(cookie.value)
    assert len({*seen, "chosen-by-somebody-else"}) == 3
    with database.session() as session:
        assert [sessions.find_session(session, secret, now=utc_now()) is None for secret in seen] == [True, False]


@pytest.mark.usefixtures("alice")
def test_behind_a_proxy_with_tls(server_config: ServerConfig, database: Database) -> None:
    """Cookies insist on https when people come by it; addresses are a proxy's to tell only when it is trusted."""
    forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    for proxies, url, secure, address in ((0, None, False, "127.0.0.1"), (1, None, True, "203.0.113.9"),
                                          (0, "https://stella.example", True, "127.0.0.1")):  # fmt: skip
        config = dataclasses.replace(server_config, trusted_proxies=proxies, public_url=url)
        client = create_app(config, database).test_client()
        answer = client.get("/login", headers=forwarded)
        token = _CSRF.search(answer.text)
        assert token
        form = {"username": "alice", "password": "wrong", "csrf_token": token[1]}
        base = "https://localhost" if secure else "http://localhost"
        refused = client.post("/login", data=form, headers=forwarded, base_url=base)
        assert refused.status_code == 401
        assert all(("Secure" in c) == secure for a in (answer, refused) for c in a.headers.getlist("Set-Cookie"))
        assert ("Strict-Transport-Security" in answer.headers) == (proxies == 1)
        with database.session() as session:
            newest = session.scalars(select(LoginAttempt).order_by(LoginAttempt.id.desc()).limit(1)).one()
            assert newest.address == address


@pytest.mark.usefixtures("alice")
def test_the_form_needs_its_own_csrf_token(client: FlaskClient, app: Flask) -> None:
    token = _form(client)
    stranger = app.test_client()  # has not loaded the page, so holds no cookie
    form = {"username": "alice", "password": PASSWORD, "csrf_token": token}
    assert stranger.post("/login", data=form).status_code == 403
    assert client.post("/login", data={**form, "csrf_token": "x"}).status_code == 403
    assert client.post("/login", data={}).status_code == 403


@pytest.mark.usefixtures("alice")
def test_guessing_is_slowed_down(client: FlaskClient, app: Flask, database: Database) -> None:
    for _ in range(5):
        assert _log_in(client, "wrong wrong wrong").status_code == 401
    refused = _log_in(client)  # even the right password, from here
    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 901
    elsewhere = app.test_client()
    token = _form(elsewhere)
    form = {"username": "alice", "password": PASSWORD, "csrf_token": token}
    answer = elsewhere.post("/login", data=form, environ_base={"REMOTE_ADDR": "192.0.2.7"})
    assert answer.status_code == 303  # nobody locks alice out from another address
    later = utc_now() + timedelta(minutes=16)
    with database.session() as session:
        sessions.count_attempt(session, "alice", "127.0.0.1", now=later)
        sessions.sweep(session, now=later)
    with database.session() as session:
        assert len(session.scalars(select(LoginAttempt)).all()) == 1
        failed = session.scalars(select(AuditEntry).where(AuditEntry.action == "login.failed")).all()
    assert len(failed) == 5


@pytest.mark.usefixtures("alice")
def test_an_address_has_a_limit_over_all_names(database: Database) -> None:
    now = utc_now()
    with database.session() as session:
        for number in range(30):
            sessions.count_attempt(session, f"name-{number}", "192.0.2.1", now=now)
            session.flush()
        with pytest.raises(RequestError) as caught:
            sessions.count_attempt(session, "alice", "192.0.2.1", now=now)
    assert caught.value.status == 429


def test_the_addresses_of_one_customer_count_as_one() -> None:
    assert sessions.origin_of("2001:db8:1:2:3::4") == sessions.origin_of("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert sessions.origin_of("2001:db8:1:3::4") != sessions.origin_of("2001:db8:1:2::9")
    assert sessions.origin_of("::ffff:192.0.2.1") == sessions.origin_of("192.0.2.1") == "192.0.2.1"
    assert sessions.origin_of("unknown") == "unknown"


@pytest.mark.usefixtures("alice")
def test_a_new_password_or_a_disabled_name_ends_sessions(database: Database) -> None:
    now = utc_now()
    with database.session() as session:
        operator = session.scalars(select(Operator)).one()
        first = sessions.open_session(session, operator, now=now, hours=1)
        session.flush()
        assert sessions.find_session(session, first, now=now + timedelta(hours=2)) is None
        sessions.create_operator(session, "alice", "another good password", role="viewer")
        assert sessions.find_session(session, first, now=now) is None
        assert sessions.check_password(session, "alice", PASSWORD) is None
        assert sessions.check_password(session, "alice", "another good password") is operator
        second = sessions.open_session(session, operator, now=now, hours=1)
        session.flush()
        found = sessions.find_session(session, second, now=now)
        assert found is not None
        assert found.kind == "view"
        sessions.disable_operator(session, "alice")
        assert sessions.find_session(session, second, now=now) is None
        assert sessions.check_password(session, "alice", "another good password") is None


@pytest.mark.parametrize(
    ("wanted", "goes_to"),
    [
        ("/incidents?a=b", "/incidents?a=b"),
        (None, "/"),
        ("", "/"),
        ("https://evil.example/", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/a\\..\\b", "/"),
        ("/a\nLocation: x", "/"),
        ("javascript:alert(1)", "/"),
        ("/" + "a" * 3000, "/"),
    ],
)
def test_where_a_log_in_leads(wanted: str | None, goes_to: str) -> None:
    assert safe_next(wanted) == goes_to


def test_the_trail_shares_the_transaction(database: Database) -> None:
    def fails(session: Session) -> None:
        audit(session, "me", "thing.done", "x")
        session.flush()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        database.run(fails)
    with database.session() as session:
        assert session.scalars(select(AuditEntry)).all() == []


def test_pages_send_strangers_to_the_log_in(client: FlaskClient, log_in: Callable[..., Any]) -> None:
    answer = client.get("/?cohort=a")
    assert (answer.status_code, answer.location) == (303, "/login?next=%2F%3Fcohort%3Da")
    page, _ = log_in()
    shown = page.get("/")
    assert shown.status_code == 200, shown.text


def test_names_that_no_database_can_hold(client: FlaskClient) -> None:
    token = _form(client)
    form = {"username": "al\x00ice\n", "password": "x\x00", "csrf_token": token}
    assert client.post("/login", data=form).status_code == 401
