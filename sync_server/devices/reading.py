"""One device as operators see it: who it is, what it runs, how its uploads stand. Seven bounded queries."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from sync_server.devices.models import Device
from sync_server.errors import RequestError

_ID = re.compile(r"[0-9a-f]{32}")
_LATEST = 20
_TIMELINE = 24 * 14  # two weeks of hours

_INCIDENTS = text("""
    SELECT i.id, i.bundle, b.version, b.release_number, i.started_at_ms, i.last_observed_ms, i.ended_at_ms, i.windows,
           i.records, i.peak_score, i.contributions, i.stale, i.ahead, i.status, i.status_by, i.status_note
    FROM incidents i LEFT JOIN bundles b ON b.digest = i.bundle
    WHERE i.device_id = :id ORDER BY i.listed_at_ms DESC, i.id DESC LIMIT :most
""")
_GAPS = text("""
    SELECT received_at, first_sequence, last_sequence, count, reason
    FROM gaps WHERE device_id = :id ORDER BY id DESC LIMIT :most
""")
_EVENTS = text("""
    SELECT received_at, observed_at_ms, name, bundle, detail, ahead
    FROM events WHERE device_id = :id ORDER BY observed_at_ms DESC, id DESC LIMIT :most
""")
_STREAMS = text("""
    SELECT stream, CAST(upper(held) - 1 AS bigint) AS highest, first_seen_at, grown_at
    FROM streams WHERE device_id = :id ORDER BY grown_at DESC NULLS LAST, id DESC LIMIT :most
""")
# The newest periods are cut out first, by the index; deltas of the same hour are then added up.
_TIMELINE_ROWS = text("""
    SELECT period_start_ms, period, sum(windows)::bigint AS windows, sum(anomalous)::bigint AS anomalous,
           sum(late)::bigint AS late, sum(cells)::bigint AS cells, sum(missing)::bigint AS missing,
           max(latency_max_us) AS latency_max_us
    FROM (SELECT * FROM summaries WHERE device_id = :id AND NOT ahead
          ORDER BY period_start_ms DESC LIMIT :most) AS newest
    GROUP BY period_start_ms, period ORDER BY period_start_ms
""")
_POINTS = text("""
    SELECT observed_at_ms, anomaly_score, contributions FROM anomalies
    WHERE device_id = :id ORDER BY observed_at_ms DESC, id DESC LIMIT :most
""")


def find_device(session: Session, device_id: str) -> Device:
    """Return a device.

    Raises:
        RequestError: 404 when there is none.
    """
    # Looked at first: a NUL, which a path may hold, is something that the database cannot even compare.
    device = session.get(Device, device_id) if _ID.fullmatch(device_id) else None
    if device is None:
        raise RequestError(404, "device_not_found", "There is no such device.", advice="Check the id.")
    return device


def device_detail(session: Session, device_id: str) -> dict[str, Any]:
    """Return one device as JSON-ready fields.

    Args:
        session: The open transaction.
        device_id: 32 hex digits.

    Returns:
        Identity, state, the latest 20 incidents, gaps, events and streams, an hourly timeline (oldest first) and the
        latest anomalies' scores (newest first). Times named ``*_ms`` are the device's claims.

    Raises:
        RequestError: 404 when there is none.
    """
    device = find_device(session, device_id)

    def rows(statement: Any, most: int = _LATEST) -> list[dict[str, Any]]:
        return [dict(row) for row in session.execute(statement, {"id": device_id, "most": most}).mappings()]

    return {
        **_identity(device),
        "incidents": rows(_INCIDENTS),
        "gaps": rows(_GAPS),
        "events": rows(_EVENTS),
        "streams": rows(_STREAMS),
        "timeline": rows(_TIMELINE_ROWS, _TIMELINE),
        "points": rows(_POINTS, 10 * _LATEST),
    }


def _identity(device: Device) -> dict[str, Any]:
    active = {"bundle": device.active_bundle, "release": device.active_release, "version": device.active_version}
    return {
        "id": device.id,
        "name": device.name,
        "cohort": device.cohort,
        "kind": device.kind,
        "model": device.model,
        "channel": device.channel,
        "created_at": device.created_at,
        "last_seen_at": device.last_seen_at,
        "last_result_at": device.last_result_at,
        "revoked_at": device.revoked_at,
        "cloned_at": device.cloned_at,
        "active": active if device.active_bundle else None,
        "outbox": {"records": device.outbox_records, "dead_letters": device.dead_letters},
        "stale": device.stale,
        "last_update": {"outcome": device.update_outcome, "reason": device.update_reason},
        "status": device.status,
        "status_at": device.status_at,
    }
