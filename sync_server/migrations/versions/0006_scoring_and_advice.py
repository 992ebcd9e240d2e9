"""Server-side scoring with a challenger, and texts of advice."""

from __future__ import annotations

from alembic import op

from sync_server.advice import ddl as advice
from sync_server.scoring import ddl as scoring

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the tables and indexes."""
    connection = op.get_bind()
    for statement in (*scoring.STATEMENTS, *advice.STATEMENTS):
        connection.exec_driver_sql(statement)
