"""What the rollouts page lists: channels with their rollouts, and releases with the devices that run them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from edge_runtime.contract.release import custom_of, floors
from sync_server.repository import metadata

MAX_RELEASES = 100

_CHANNELS = text("""
    SELECT c.name, c.model, c.release, c.previous, c.share, c.state, c.cohorts, c.updated_at,
           r.plan IS NOT NULL AS planned, r.stage, jsonb_array_length(r.plan -> 'stages') AS stages, r.outcome,
           r.trouble,
           (SELECT max(b.version) FROM bundles b WHERE b.model = c.model AND b.release_number = c.release) AS version
    FROM channels c LEFT JOIN rollout_runs r ON r.rollout_id = c.rollout_id ORDER BY c.name
""")
_RELEASES = text("""
    SELECT b.model, b.release_number, max(b.version) AS version, min(b.published_at) AS published_at,
           count(*) AS bundles, sum(b.size) AS size, max(b.manifest ->> 'precision') AS precision,
           (SELECT count(*) FROM devices d
            WHERE d.model = b.model AND d.active_release = b.release_number AND d.revoked_at IS NULL) AS devices
    FROM bundles b GROUP BY b.model, b.release_number
    ORDER BY min(b.published_at) DESC, b.model, b.release_number DESC LIMIT :most
""")


def channels(session: Session) -> list[dict[str, Any]]:
    """Return every channel with its rollout, by name; at most 48, as the contract allows no more."""
    return [dict(row) for row in session.execute(_CHANNELS).mappings()]


def releases(session: Session) -> list[dict[str, Any]]:
    """Return the newest releases, each with ``standing``: ``listed``, ``withdrawn`` or ``below the floor``.

    A withdrawn release is one that targets.json no longer lists; like one below the floor that release keys set, no
    rollout can choose it.
    """
    listed, least = _listed(session)
    rows = [dict(row) for row in session.execute(_RELEASES, {"most": MAX_RELEASES}).mappings()]
    for row in rows:
        key = (row["model"], row["release_number"])
        below = row["release_number"] < least.get(row["model"], 0)
        row["standing"] = "below the floor" if below else "listed" if key in listed else "withdrawn"
        row["channels"] = sorted(listed.get(key, ()))
    return rows


def _listed(session: Session) -> tuple[dict[tuple[str, int], set[str]], dict[str, int]]:
    """Return the channels of every listed release, and the floor of every model; nothing before a first publication."""
    if metadata.latest(session, "targets") is None:
        return {}, {}
    targets = metadata.current_targets(session)
    found: dict[tuple[str, int], set[str]] = {}
    for path, target in targets.targets.items():
        custom = custom_of(path, target.unrecognized_fields)
        found.setdefault((custom.model, custom.release_number), set()).update(custom.channels)
    return found, floors(targets.unrecognized_fields)
