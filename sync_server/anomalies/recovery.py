"""Incidents that resolve by themselves: their device has been healthy for a day since.

A device is healthy when the newest 24 hours that it reported hold windows in both halves and no anomalous one, by its
own clock; an incident is over once all of that lies after its last anomalous window. Days without reports count for
nothing: a device that fell silent has not recovered.

What a person decided wins: an incident that somebody opened again stays open until somebody resolves it, and this never
touches one that is resolved. An acknowledged one was seen, not settled, so it resolves as others do. Nothing opens one
again by itself: anomalous windows after an incident's end begin another incident with a start of its own, and what
arrives late of a resolved one is its past.

Upkeep calls this each minute. A turn looks at a bounded number of incidents and the next one goes on behind them, round
and round; each is a few look-ups in the index of summaries.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

DAY_MS = 86_400_000
RESOLVER = "server"
NOTE = "The device reported a day without anomalous windows."
EXAMINED = 2_000

_PROGRESS = text("SELECT after_id FROM recovery_progress FOR UPDATE")
_BEGIN = text("INSERT INTO recovery_progress (after_id) VALUES (0) ON CONFLICT DO NOTHING")
_GO_ON = text("UPDATE recovery_progress SET after_id = :after")
# Rows that a batch of results has locked are passed over until the next round, so neither ever waits for the other.
_LOOK = text("""
    SELECT id FROM incidents WHERE status <> 'resolved' AND id > :after ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED
""")
_RESOLVE = text("""
    WITH over AS (
        SELECT i.id, i.status, i.device_id, greatest(i.last_observed_ms, i.ended_at_ms) AS over_ms,
            newest.reaches_ms - :day_ms AS healthy_from_ms, newest.reaches_ms - :day_ms / 2 AS noon_ms
        FROM incidents i CROSS JOIN LATERAL (
            SELECT s.period_start_ms + CASE s.period WHEN 'day' THEN :day_ms ELSE 3600000 END AS reaches_ms
            FROM summaries s WHERE s.device_id = i.device_id AND NOT s.ahead
            ORDER BY s.period_start_ms DESC LIMIT 1) AS newest
        WHERE i.id = ANY(:ids) AND (i.status = 'acknowledged' OR i.status_by IS NULL)),
    healthy AS (
        SELECT over.id, over.status FROM over CROSS JOIN LATERAL (
            SELECT sum(s.anomalous) AS anomalous, sum(s.windows) AS windows, min(s.period_start_ms) AS first_ms
            FROM summaries s WHERE s.device_id = over.device_id AND NOT s.ahead
                AND s.period_start_ms >= over.healthy_from_ms) AS day
        WHERE over.over_ms <= over.healthy_from_ms AND day.anomalous = 0 AND day.windows > 0
            AND day.first_ms < over.noon_ms),
    resolved AS (
        UPDATE incidents i SET status = 'resolved', status_by = :by, status_note = :note, status_at = :now
        FROM healthy h WHERE h.id = i.id RETURNING i.id, h.status AS old_status)
    INSERT INTO incident_status_changes (incident_id, changed_at, changed_by, old_status, new_status, note)
    SELECT id, :now, :by, old_status, 'resolved', :note FROM resolved
""")


def resolve_recovered(session: Session, *, now: datetime, examined: int = EXAMINED) -> int:
    """Resolve incidents whose devices have been healthy for a day, among the next ones in turn.

    Args:
        session: The open transaction; four statements.
        now: When, for the history.
        examined: Incidents to look at.

    Returns:
        How many were resolved.
    """
    after = session.execute(_PROGRESS).scalar_one_or_none()
    if after is None:
        session.execute(_BEGIN)
        after = 0
    ids = list(session.scalars(_LOOK, {"after": after, "most": examined}))
    session.execute(_GO_ON, {"after": ids[-1] if len(ids) == examined else 0})
    if not ids:
        return 0
    given = {"ids": ids, "day_ms": DAY_MS, "by": RESOLVER, "note": NOTE, "now": now}
    return int(session.execute(_RESOLVE, given).rowcount)  # type: ignore[attr-defined]
