"""Rollouts by a plan: runs, their steps, and what the gates found."""

from __future__ import annotations

from alembic import op

from sync_server.rollouts.ddl import RUN_STATEMENTS

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables, and a run for each rollout that is there already."""
    for statement in RUN_STATEMENTS:
        # Through the driver itself, which reads a lone percent sign as the beginning of a parameter.
        op.get_bind().exec_driver_sql(statement.replace("%", "%%"))
