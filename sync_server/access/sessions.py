"""Log-ins of operators: passwords, sessions kept in Postgres, CSRF, and a rate limit.

The cookie holds 256 random bits; the database their SHA-256, so that a copy of it opens nothing. The CSRF token is
derived from the cookie, so that it needs no row and ends with the log-in.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import ipaddress
import re
import secrets
from datetime import datetime, timedelta

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from edge_runtime.errors import InputError
from sync_server.access.models import LoginAttempt, LoginSession, Operator
from sync_server.access.tokens import Actor
from sync_server.db import lock_for_transaction, utc_now
from sync_server.errors import RequestError

SESSION_COOKIE = "stella_session"
LOGIN_COOKIE = "stella_login"  # carries the log-in form's own CSRF token, before there is a session
MIN_PASSWORD, MAX_PASSWORD = 12, 1024

# Five wrong guesses a name from one address, thirty from an address, in a quarter of an hour: a person who mistypes is
# not locked out for long, and nobody else can lock that person out from another address.
_WINDOW = timedelta(minutes=15)
_MOST_BY_NAME = 5
_MOST_BY_ADDRESS = 30
_USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")

# argon2id with 19 MiB and 2 passes: OWASP's password storage cheat sheet. More memory would let a flood of log-ins,
# which is slowed down only by address, take the server's.
_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


@functools.cache
def _nobody() -> str:
    """The hash to check when a name does not exist, so that the time of an answer does not tell."""
    return _hasher.hash(secrets.token_urlsafe(16))


def csrf_of(secret: str) -> str:
    """Return the CSRF token that belongs to a cookie's secret."""
    mac = hmac.new(secret.encode(), b"stella-csrf", hashlib.sha256).digest()
    return base64.urlsafe_b64encode(mac).decode().rstrip("=")


def create_operator(session: Session, username: str, password: str, *, role: str = "operator") -> Operator:
    """Add an operator, or set the password and role of the one who has that name.

    Raises:
        InputError: The name, password or role breaks a rule.
    """
    if not _USERNAME.fullmatch(username):
        raise InputError(f"{username!r} is no user name.", advice="Use 1 to 64 letters, digits, '.', '_', '@' or '-'.")
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise InputError(
            f"The password has {len(password)} characters.", advice=f"Use {MIN_PASSWORD} to {MAX_PASSWORD}."
        )
    if role not in ("operator", "viewer"):
        raise InputError(f"There is no role {role!r}.", advice="The roles are operator and viewer.")
    row = session.scalars(select(Operator).where(Operator.username == username)).one_or_none()
    if row is None:
        row = Operator(username=username, created_at=utc_now(), role=role, password_hash="")
        session.add(row)
    row.password_hash = _hasher.hash(password)
    row.role, row.disabled_at = role, None
    session.flush()
    # A new password ends the log-ins that the old one opened.
    session.execute(delete(LoginSession).where(LoginSession.operator_id == row.id))
    return row


def disable_operator(session: Session, username: str) -> None:
    """End an operator's log-in and sessions.

    Raises:
        InputError: There is no such operator.
    """
    row = session.scalars(select(Operator).where(Operator.username == username)).one_or_none()
    if row is None:
        raise InputError(f"There is no operator {username!r}.", advice="Names are as they were created.")
    row.disabled_at = utc_now()
    session.execute(delete(LoginSession).where(LoginSession.operator_id == row.id))


def origin_of(address: str) -> str:
    """Return what counts as one address: IPv6 by its /64, which is what one customer gets."""
    try:
        given = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(given, ipaddress.IPv4Address):
        return address
    return str(given.ipv4_mapped or ipaddress.ip_network((given, 64), strict=False))


def count_attempt(session: Session, username: str, address: str, *, now: datetime) -> LoginAttempt:
    """Count a log-in before its password is looked at, so that guesses made at once count, too.

    Raises:
        RequestError: 429 when there were too many.
    """
    digest, address = hashlib.sha256(username.encode()).digest(), origin_of(address)
    lock_for_transaction(session, f"login:{address}")
    since = now - _WINDOW
    recent = select(func.count(), func.min(LoginAttempt.at)).where(
        LoginAttempt.address == address, LoginAttempt.at > since
    )
    for statement, most in (
        (recent.where(LoginAttempt.username_digest == digest), _MOST_BY_NAME),
        (recent, _MOST_BY_ADDRESS),
    ):
        count, oldest = session.execute(statement).one()
        if count >= most:
            wait = max(1, int((oldest + _WINDOW - now).total_seconds()) + 1)
            raise RequestError(
                429, "too_many_logins", "There were too many wrong passwords from this address.",
                advice="Wait a few minutes.", retry_after_seconds=wait,
            )  # fmt: skip
    attempt = LoginAttempt(username_digest=digest, address=address, at=now)
    session.add(attempt)
    return attempt


def forget_attempt(session: Session, attempt_id: int) -> None:
    """Take back an attempt that turned out to be a success."""
    session.execute(delete(LoginAttempt).where(LoginAttempt.id == attempt_id))


def check_password(session: Session, username: str, password: str) -> Operator | None:
    """Return the operator whose password this is, or None; takes as long for a name that does not exist."""
    row = session.scalars(
        select(Operator).where(Operator.username == username, Operator.disabled_at.is_(None))
    ).one_or_none()
    try:
        _hasher.verify(row.password_hash if row else _nobody(), password[:MAX_PASSWORD])
    except (VerificationError, InvalidHashError):
        return None
    if row is not None and _hasher.check_needs_rehash(row.password_hash):
        row.password_hash = _hasher.hash(password[:MAX_PASSWORD])
    return row


def open_session(session: Session, operator: Operator, *, now: datetime, hours: int) -> str:
    """Log an operator in and return the cookie's secret."""
    secret = secrets.token_urlsafe(32)
    session.add(
        LoginSession(
            digest=hashlib.sha256(secret.encode()).digest(),
            operator_id=operator.id,
            created_at=now,
            expires_at=now + timedelta(hours=hours),
        )
    )
    return secret


def find_session(session: Session, secret: str, *, now: datetime) -> Actor | None:
    """Return who a cookie stands for, None when the log-in has ended or never was."""
    row = session.execute(
        select(Operator)
        .join(LoginSession, LoginSession.operator_id == Operator.id)
        .where(
            LoginSession.digest == hashlib.sha256(secret.encode()).digest(),
            LoginSession.expires_at > now,
            Operator.disabled_at.is_(None),
        )
    ).scalar_one_or_none()
    if row is None:
        return None
    return Actor("ops" if row.role == "operator" else "view", f"{row.role} {row.username}", operator_id=row.id)


def close_session(session: Session, secret: str) -> None:
    """Log out; a session that has ended already is no error."""
    session.execute(delete(LoginSession).where(LoginSession.digest == hashlib.sha256(secret.encode()).digest()))


def sweep(session: Session, *, now: datetime) -> None:
    """Delete log-ins and attempts that no longer count."""
    session.execute(delete(LoginSession).where(LoginSession.expires_at < now))
    session.execute(delete(LoginAttempt).where(LoginAttempt.at < now - _WINDOW))
