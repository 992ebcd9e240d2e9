"""Indexes for lists of incidents and of the audit trail, and the place of the search for recovered incidents."""

from __future__ import annotations

from alembic import op

from sync_server.access.ddl import TRAIL
from sync_server.anomalies.ddl import STATEMENTS

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the indexes, and the row that recovery keeps its place in."""
    for statement in (*STATEMENTS, *TRAIL):
        op.execute(statement)
