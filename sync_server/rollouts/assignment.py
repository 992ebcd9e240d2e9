"""Who is in and who is out, in SQL: the contract's rule over the table of devices.

``bucket`` is the contract's (edge_runtime.contract.rollout), ``lot`` a second draw from the same hash by which large
fleets are sampled. Both depend on nothing but the rollout's salt and the device's id.
"""

from __future__ import annotations

from typing import Any

from edge_runtime.contract.rollout import BUCKETS, Rollout

LOTS = 65_536

HASH = "sha256(convert_to(:salt, 'UTF8') || '\\x00'::bytea || convert_to(d.id, 'UTF8'))"
BUCKET = (
    "((get_byte(h.hash, 0)::bigint << 24) + (get_byte(h.hash, 1) << 16) + (get_byte(h.hash, 2) << 8)"
    f" + get_byte(h.hash, 3)) % {BUCKETS}"
)
LOT = "(get_byte(h.hash, 4) << 8) + get_byte(h.hash, 5)"
LISTED = "(CAST(:cohorts AS text[]) IS NULL OR d.cohort = ANY (CAST(:cohorts AS text[])))"

# Every device of the channel that may come: with its bucket, whether it is in, and the release it should run.
CHANNEL_DEVICES = f"""
    SELECT d.*, {BUCKET} AS bucket, {LOT} AS lot, {LISTED} AS listed,
           {LISTED} AND {BUCKET} < :share AS inside
    FROM devices d, LATERAL (SELECT {HASH} AS hash) h
    WHERE d.channel = :channel AND d.model = :model AND d.revoked_at IS NULL
"""  # noqa: S608 - our own constants
WANTED = """
    CASE WHEN NOT inside OR :state = 'rolled_back' THEN CAST(:previous AS bigint)
         WHEN :state = 'running' THEN CAST(:release AS bigint)
         ELSE coalesce(active_release, CAST(:previous AS bigint)) END
"""


def parameters(channel: str, rollout: Rollout) -> dict[str, Any]:
    """Return the parameters of the texts above."""
    return {
        "channel": channel,
        "model": rollout.model,
        "salt": rollout.salt,
        "share": rollout.share,
        "state": rollout.state,
        "release": rollout.release,
        "previous": rollout.previous,
        "cohorts": None if rollout.cohorts is None else list(rollout.cohorts),
    }
