"""The cache of texts in Postgres, and who may have one written.

Single flight is a row: whoever makes it, or takes it over after ``not_before``, holds the claim, across threads,
workers and machines. A process that dies with a claim holds it for as long as a call may take and no longer.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from sync_server.advice.endpoint import EndpointError
from sync_server.advice.models import AdviceText
from sync_server.advice.patterns import Pattern
from sync_server.db import lock_for_transaction

# Failures in a row double the pause, from one minute to an hour.
FIRST_PAUSE = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=1)
# Beyond its expiry a text is kept this long: shown while it is written anew, and when the endpoint is gone.
KEPT = timedelta(days=90)
MAX_PATTERNS = 10_000
_LOCK = "advice"
_CLAIM = text("""
    INSERT INTO advice_texts (pattern, parts, state, claim, claimed_at, not_before)
    VALUES (:pattern, CAST(:parts AS jsonb), 'writing', :claim, :now, :until)
    ON CONFLICT (pattern) DO UPDATE
        SET state = 'writing', claim = excluded.claim, claimed_at = excluded.claimed_at,
            not_before = excluded.not_before
        WHERE advice_texts.not_before <= excluded.claimed_at
    RETURNING claim
""")
_SWEEP = text("""
    DELETE FROM advice_texts WHERE claimed_at < :oldest OR pattern IN (
        SELECT pattern FROM advice_texts ORDER BY claimed_at DESC OFFSET :most)
""")


@dataclass(frozen=True, slots=True)
class Claim:
    """Whether a text may be asked for.

    Attributes:
        word: What proves the claim, None without one.
        refused: ``waiting``: somebody else has it; ``limited``: the hour is used up; empty with a claim.
    """

    word: str | None
    refused: str


def find_text(session: Session, pattern: str) -> AdviceText | None:
    """Return what is known of a pattern, by its key."""
    return session.get(AdviceText, pattern)


def claim(
    session: Session, key: str, pattern: Pattern, *, now: datetime, lease: timedelta, calls_per_hour: int
) -> Claim:
    """Take the right, and the duty, to have a pattern's text written.

    Args:
        session: The open transaction.
        key: The pattern's key.
        pattern: The pattern, kept beside its text for people.
        now: The server's clock.
        lease: How long a call may take.
        calls_per_hour: How many claims the whole server makes in an hour: devices that are made up could make up
            patterns, and calls cost money.

    Returns:
        The claim, or why there is none.
    """
    lock_for_transaction(session, _LOCK)  # claims are rare; one after the other, the count is exact
    recent = select(func.count()).select_from(AdviceText).where(AdviceText.claimed_at > now - timedelta(hours=1))
    if session.execute(recent).scalar_one() >= calls_per_hour:
        return Claim(None, "limited")
    values = {
        "pattern": key, "parts": json.dumps(pattern.to_dict()), "claim": secrets.token_hex(8), "now": now,
        "until": now + lease,
    }  # fmt: skip
    word = session.execute(_CLAIM, values).scalar_one_or_none()
    return Claim(word, "" if word else "waiting")


@dataclass(frozen=True, slots=True)
class Written:
    """A text, who wrote it, and how long it is valid."""

    text: str
    writer: str
    valid: timedelta


def keep_text(session: Session, key: str, held: str, written: Written, *, now: datetime) -> None:
    """Keep a text that was written under a claim; without the claim nothing changes."""
    row = _held(session, key, held)
    if row is not None:
        row.state, row.text, row.written_by, row.written_at = "written", written.text, written.writer, now
        row.not_before, row.failures, row.failed_with = now + written.valid, 0, None


def keep_failure(session: Session, key: str, held: str, failure: EndpointError, *, now: datetime) -> None:
    """Keep that a call failed: nobody asks again before a pause that doubles with each failure in a row."""
    row = _held(session, key, held)
    if row is not None:
        pause = min(FIRST_PAUSE * 2 ** min(row.failures, 10), LONGEST_PAUSE)
        row.state, row.failed_with, row.failures = "failed", failure.reason, row.failures + 1
        row.not_before = now + max(pause, timedelta(seconds=failure.retry_seconds))


def _held(session: Session, key: str, held: str) -> AdviceText | None:
    row = session.get(AdviceText, key, with_for_update=True)
    return row if row is not None and row.claim == held else None


def sweep(session: Session, *, now: datetime) -> None:
    """Delete what nobody asked for in a long time, and the oldest patterns beyond 10,000."""
    session.execute(_SWEEP, {"oldest": now - KEPT, "most": MAX_PATTERNS})
