"""Bearer tokens: ``st_<kind>_<43 characters>``, 256 random bits, of which only the SHA-256 is stored.

A fast hash is right here: there is nothing to guess in 256 random bits. Kinds: ``dev`` device, ``enr`` enrolment,
``pub`` publisher, ``ops`` operator, ``view`` viewer.

Example::

    issued = issue_token(session, "pub", name="release bot")
    print(issued.token)                      # shown once, never again
    actor = find_token(database, issued.token, now=utc_now())
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from edge_runtime.errors import InputError
from sync_server.access.models import AccessToken
from sync_server.db import Database, utc_now
from sync_server.errors import RequestError

KINDS = {"dev": "device", "enr": "enrolment", "pub": "publisher", "ops": "operator", "view": "viewer"}
_FIND = "SELECT id, kind, digest, name, subject, expires_at, revoked_at FROM access_tokens WHERE digest = %(digest)s"
_TOKEN = re.compile(r"st_([a-z]{3,4})_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a request.

    Attributes:
        kind: A token kind; a log-in counts as ``ops`` or ``view``.
        label: For the audit trail: ``operator alice`` or ``publisher token 3 (release bot)``.
        token_id: The token's id, None for a log-in.
        subject: The device's id for a device token, else None.
        operator_id: The operator's id for a log-in, else None.
    """

    kind: str
    label: str
    token_id: int | None = None
    subject: str | None = None
    operator_id: int | None = None


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token that was just made; the only moment at which its text is known."""

    id: int
    kind: str
    token: str


def digest_of(token: str) -> bytes:
    """Return the SHA-256 under which a token is stored."""
    return hashlib.sha256(token.encode()).digest()


def issue_token(
    session: Session,
    kind: str,
    *,
    name: str,
    subject: str | None = None,
    expires_at: datetime | None = None,
    uses_left: int | None = None,
) -> IssuedToken:
    """Make and store a token. The caller writes the audit entry, which names why.

    Args:
        session: The open transaction.
        kind: One of :data:`KINDS`.
        name: What people call it, at most 100 characters.
        subject: The device's id for a device token.
        expires_at: When it ends; None: never.
        uses_left: How often it may be used (enrolment); None: no limit.

    Raises:
        InputError: The kind does not exist, or the name is empty or too long.
    """
    if kind not in KINDS:
        raise InputError(f"There is no token kind {kind!r}.", advice=f"The kinds are: {', '.join(KINDS)}.")
    if not 1 <= len(name) <= 100 or not name.isprintable():
        raise InputError("A token's name has 1 to 100 printable characters.", advice="Name who or what uses it.")
    token = f"st_{kind}_{secrets.token_urlsafe(32)}"
    row = AccessToken(
        kind=kind, digest=digest_of(token), name=name, subject=subject, expires_at=expires_at, uses_left=uses_left,
        created_at=utc_now(),
    )  # fmt: skip
    session.add(row)
    session.flush()
    return IssuedToken(row.id, kind, token)


def find_token(database: Database, token: str, *, now: datetime) -> Actor:
    """Return who a token that is valid now stands for. Nothing is remembered: a revoked token ends at once.

    Raises:
        RequestError: 401 with code ``token_unknown``, ``token_revoked`` or ``token_expired``.
    """
    digest = digest_of(token)
    row = database.call(_FIND, {"digest": digest}) if _TOKEN.fullmatch(token) else None
    if row is None or not hmac.compare_digest(row["digest"], digest):
        raise RequestError(401, "token_unknown", "The token is not known here.", advice="Ask for a new one.")
    if row["revoked_at"] is not None:
        raise RequestError(
            401, "token_revoked", f"Token {row['id']} was revoked.", advice="Ask an operator for a new one."
        )
    if row["expires_at"] is not None and row["expires_at"] <= now:
        raise RequestError(401, "token_expired", f"Token {row['id']} has expired.", advice="Ask for a new one.")
    kind, subject = row["kind"], row["subject"]
    label = f"device {subject}" if kind == "dev" else f"{KINDS[kind]} token {row['id']} ({row['name']})"
    return Actor(kind, label, token_id=row["id"], subject=subject)


def revoke_token(session: Session, token_id: int) -> AccessToken:
    """Revoke a token by its id; revoking it again changes nothing.

    Raises:
        InputError: There is no such token.
    """
    row = session.get(AccessToken, token_id, with_for_update=True)
    if row is None:
        raise InputError(f"There is no token {token_id}.", advice="token list shows the ids.")
    if row.revoked_at is None:
        row.revoked_at = utc_now()
    return row


def revoke_tokens_of(session: Session, kind: str, subject: str) -> int:
    """Revoke every live token of a kind and subject, such as the old ones of a device, and return how many."""
    rows = session.scalars(
        select(AccessToken).where(
            AccessToken.kind == kind, AccessToken.subject == subject, AccessToken.revoked_at.is_(None)
        )
    ).all()
    for row in rows:
        row.revoked_at = utc_now()
    return len(rows)
