"""When a device sent what it adds to a stream, by its own clock: what arrives late is no sign of a clone."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add two columns; without a rewrite of the table, since the default is a constant."""
    op.execute(
        "ALTER TABLE streams ADD COLUMN opened_at_ms bigint NOT NULL DEFAULT 0,"
        " ADD COLUMN last_sent_at_ms bigint NOT NULL DEFAULT 0"
    )
