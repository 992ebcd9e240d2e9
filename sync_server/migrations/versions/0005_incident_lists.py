"""Indexes that lists of incidents, and what is done with them, need at millions of rows."""

from __future__ import annotations

from alembic import op

from sync_server.anomalies import ddl

revision = "0005"
down_revision = "0002"


def upgrade() -> None:
    """Make the indexes."""
    for statement in ddl.STATEMENTS:
        op.execute(statement)
