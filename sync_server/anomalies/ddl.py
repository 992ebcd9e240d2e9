"""What lists of incidents need beyond the first schema, as plain SQL that a migration runs as the owner."""

from __future__ import annotations

STATEMENTS: tuple[str, ...] = (
    # The highest scores are few and may be anywhere in time: found from the top down, see ``lists``.
    "CREATE INDEX ix_incidents_peak_score ON incidents (peak_score)",
)
