"""The rest of a rollout's work: devices that do not run what they should, why, and how long the fleet took.

Reachable is a device that came within seven days and is neither revoked nor a demo.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from edge_runtime.contract.rollout import Rollout
from sync_server.rollouts.assignment import CHANNEL_DEVICES, WANTED, parameters
from sync_server.rollouts.models import RolloutRun
from sync_server.rollouts.reach import REACHABLE, count_reach

LISTED = 100

# Since when: the step by which the device came in; of those sent back, that one; of the others, the start.
_OVERDUE = text(f"""
    WITH fleet AS ({CHANNEL_DEVICES} AND d.kind = 'edge' AND d.last_seen_at >= :reachable_since),
    late AS (SELECT *, {WANTED} AS wanted FROM fleet),
    steps AS (SELECT * FROM rollout_steps WHERE rollout_id = :rollout_id)
    SELECT id, name, cohort, active_release, wanted, last_seen_at, update_outcome, update_reason,
           CASE WHEN :state = 'rolled_back' THEN (SELECT max(at) FROM steps WHERE state = 'rolled_back')
                WHEN inside THEN (SELECT min(at) FROM steps WHERE share > bucket
                                  AND (cohorts IS NULL OR cohorts @> to_jsonb(late.cohort)))
                ELSE (SELECT min(at) FROM steps) END AS since
    FROM late WHERE wanted IS DISTINCT FROM active_release AND wanted IS NOT NULL
    ORDER BY since, id LIMIT :most
""")  # noqa: S608 - our own constants
_REASONS = text(f"""
    WITH fleet AS ({CHANNEL_DEVICES} AND d.kind = 'edge' AND d.last_seen_at >= :reachable_since)
    SELECT update_outcome AS outcome, update_reason AS reason, count(*) AS devices
    FROM fleet WHERE update_outcome IN ('refused', 'failed') GROUP BY 1, 2 ORDER BY 3 DESC, 2 LIMIT :most
""")  # noqa: S608 - our own constants
_PUBLISHED = text("SELECT min(published_at) FROM bundles WHERE model = :model AND release_number = :release")


def overdue_devices(session: Session, run: RolloutRun, rollout: Rollout, now: datetime) -> list[dict[str, Any]]:
    """Return reachable devices that do not run what they should, longest overdue first, at most ``LISTED``.

    Each has ``id``, ``name``, ``cohort``, ``active_release``, ``wanted``, ``since`` (when it became so),
    ``last_seen_at`` and what it said of its last update: ``update_outcome`` and ``update_reason``.
    """
    values = _values(run.channel, rollout, now) | {"rollout_id": run.rollout_id}
    return [dict(row) for row in session.execute(_OVERDUE, values).mappings()]


def refusals(session: Session, channel: str, rollout: Rollout, now: datetime) -> list[dict[str, Any]]:
    """Count the reachable devices whose last update was refused or failed: ``outcome``, ``reason``, ``devices``."""
    return [dict(row) for row in session.execute(_REASONS, _values(channel, rollout, now)).mappings()]


def maintenance(session: Session, run: RolloutRun, rollout: Rollout, now: datetime) -> dict[str, Any]:
    """Return how a rollout's devices stand, JSON-ready.

    Returns:
        ``reachable``, ``running`` and ``overdue`` counts, ``published_at``, ``reached_95_at`` and
        ``publish_to_95_seconds`` (None until then), ``refusals`` by reason, ``overdue_devices``.
    """
    published = session.execute(_PUBLISHED, {"model": run.model, "release": run.release}).scalar_one()
    took = None if run.reach_at is None or published is None else (run.reach_at - published).total_seconds()
    return {
        **count_reach(session, run.channel, rollout, now),
        "published_at": published,
        "reached_95_at": run.reach_at,
        "publish_to_95_seconds": took,
        "refusals": refusals(session, run.channel, rollout, now),
        "overdue_devices": overdue_devices(session, run, rollout, now),
    }


def _values(channel: str, rollout: Rollout, now: datetime) -> dict[str, Any]:
    return {**parameters(channel, rollout), "reachable_since": now - REACHABLE, "most": LISTED}
