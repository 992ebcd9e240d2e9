"""How far a rollout has come: which reachable devices run what they should, and which do not."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from edge_runtime.contract.rollout import BUCKETS, Rollout
from sync_server.rollouts import metrics
from sync_server.rollouts.assignment import CHANNEL_DEVICES, WANTED, parameters
from sync_server.rollouts.models import RolloutRun

REACHABLE = timedelta(days=7)
REACHED_SHARE = 0.95
_EVERY = timedelta(minutes=10)

_REACHED = text(f"""
    WITH fleet AS ({CHANNEL_DEVICES} AND d.kind = 'edge' AND d.last_seen_at >= :reachable_since)
    SELECT count(*) AS reachable, count(*) FILTER (WHERE active_release = :release) AS running,
           count(*) FILTER (WHERE {WANTED} IS DISTINCT FROM active_release AND {WANTED} IS NOT NULL) AS overdue
    FROM fleet
""")  # noqa: S608 - our own constants
_SILENT = text(f"""
    WITH fleet AS ({CHANNEL_DEVICES} AND d.kind = 'edge' AND d.last_seen_at >= :reachable_since)
    SELECT avg(CAST(last_seen_at < :silent_since AS integer)) FROM fleet WHERE listed
""")  # noqa: S608 - our own constants


def note_silence(session: Session, run: RolloutRun, rollout: Rollout, hours: int, now: datetime) -> None:
    """Note once, before the release can have had any effect, which share of the reachable devices is silent."""
    if run.silent_before is None:
        since = {"reachable_since": now - REACHABLE, "silent_since": now - timedelta(hours=hours)}
        share = session.execute(_SILENT, parameters(run.channel, rollout) | since).scalar_one()
        run.silent_before = float(share or 0.0)


def count_reach(session: Session, channel: str, rollout: Rollout, now: datetime) -> dict[str, int]:
    """Count a channel's devices that came within seven days: ``reachable``, ``running`` the release, ``overdue``."""
    values = {**parameters(channel, rollout), "reachable_since": now - REACHABLE}
    return {name: int(count) for name, count in session.execute(_REACHED, values).mappings().one().items()}


def note_reach(session: Session, run: RolloutRun, rollout: Rollout, now: datetime) -> None:
    """Note once when 95 % of the reachable fleet ran the release; asked every ten minutes."""
    if run.reach_checked_at is not None and timedelta(0) <= now - run.reach_checked_at < _EVERY:
        return
    counts = count_reach(session, run.channel, rollout, now)
    run.reach_checked_at = now
    metrics.OVERDUE.labels(run.channel).set(counts["overdue"])
    everybody = rollout.share == BUCKETS and rollout.cohorts is None
    if run.reach_at is None and everybody and counts["running"] >= REACHED_SHARE * max(counts["reachable"], 1):
        run.reach_at = now
