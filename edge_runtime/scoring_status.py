"""How far scoring has come, for ``status``: without numpy or a model, so that it answers at once."""

from __future__ import annotations

from typing import Any

from edge_runtime.edge_db import EdgeDatabase


def scoring_status(database: EdgeDatabase) -> dict[str, Any]:
    """Return what scoring remembers, as JSON-ready fields.

    Args:
        database: The device's database.

    Returns:
        ``newest_reading_ms`` (or None), ``readings_kept`` for later windows, ``bundle`` that scored last (or None),
        and ``incident``: ``started_at_ms``, ``windows`` and ``highest_anomaly_score`` of the open one, or None.

    Raises:
        StorageError: The database cannot be read.
    """
    with database.reading() as sql:
        bundle, newest = sql.execute("SELECT bundle, highest_timestamp_ms FROM scoring_state").fetchone()
        (kept,) = sql.execute("SELECT count(*) FROM recent_reading").fetchone()
        incident = sql.execute("SELECT started_at_ms, windows, highest_anomaly_score FROM open_incident").fetchone()
    names = ("started_at_ms", "windows", "highest_anomaly_score")
    return {
        "bundle": bundle,
        "newest_reading_ms": newest,
        "readings_kept": kept,
        "incident": None if incident is None else dict(zip(names, incident, strict=True)),
    }
