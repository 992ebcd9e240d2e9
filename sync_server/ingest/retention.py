"""How long results and roll-ups are kept. What goes is logged and stands in the audit trail."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from sync_server.access.audit import audit
from sync_server.ingest.metrics import DROPPED_PARTITIONS

log = logging.getLogger(__name__)

_DROP = text("SELECT drop_old_results(:days)")
_FORGET_ROLLUPS = text("DELETE FROM hourly_rollups WHERE started_at_ms < :before_ms")


def drop_old_results(session: Session, *, results_days: int, rollup_days: int, now: datetime) -> list[str]:
    """Drop the partitions whose newest result is too old, and the rows of the roll-up that are.

    Args:
        session: The open transaction.
        results_days: Days to keep results, 0 for ever.
        rollup_days: Days to keep the hourly roll-up, 0 for ever.
        now: The server's clock.

    Returns:
        The partitions that are gone.

    Raises:
        DBAPIError: A partition was in use for two seconds, or ``results_days`` is less than a week; nothing is gone.
    """
    dropped: list[str] = session.execute(_DROP, {"days": results_days}).scalar_one() if results_days else []
    if dropped:
        log.warning("results older than %d days were dropped: %s", results_days, ", ".join(dropped))
        audit(session, "server", "results.drop", "results", {"partitions": dropped, "keep_days": results_days})
        DROPPED_PARTITIONS.inc(len(dropped))
    if rollup_days:
        before = now - timedelta(days=rollup_days)
        session.execute(_FORGET_ROLLUPS, {"before_ms": int(before.timestamp() * 1000)})
    return dropped
