"""What lists of incidents need beyond the first schema, as plain SQL that a migration runs as the owner."""

from __future__ import annotations

STATEMENTS: tuple[str, ...] = (
    # The highest scores may be few and anywhere in time: found from the top down, see ``lists``. Only those above the
    # last edge but one of histograms, so that most incidents are stored without it.
    "CREATE INDEX ix_incidents_peak_score ON incidents (peak_score) INCLUDE (id) WHERE peak_score >= 0.9999",
    # What may still resolve by itself, in the order in which ``recovery`` goes through it.
    "CREATE INDEX ix_incidents_unsettled ON incidents (id) WHERE status <> 'resolved'",
    """
    CREATE TABLE recovery_progress (
        one_row   boolean NOT NULL DEFAULT true,
        after_id  bigint NOT NULL DEFAULT 0,
        CONSTRAINT pk_recovery_progress PRIMARY KEY (one_row),
        CONSTRAINT ck_recovery_progress_one_row CHECK (one_row)
    )
    """,
)
