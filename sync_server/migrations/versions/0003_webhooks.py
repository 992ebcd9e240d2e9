"""Webhooks and their outbox."""

from __future__ import annotations

from alembic import op

from sync_server.webhooks.ddl import STATEMENTS

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make two tables."""
    for statement in STATEMENTS:
        op.execute(statement)
