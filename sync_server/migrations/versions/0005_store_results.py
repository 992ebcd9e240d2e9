"""A batch stored in one call, quotas, roll-up rows in shards, and results that may end."""

from __future__ import annotations

from alembic import op

from sync_server.ingest import retention_ddl, store_ddl

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the functions, the shards of the roll-up and the columns that count what a device sent."""
    connection = op.get_bind()
    for statement in (*store_ddl.STATEMENTS, *retention_ddl.STATEMENTS):
        # Through the driver itself, since colons are no parameters here; it would read a lone percent sign as one.
        connection.exec_driver_sql(statement.replace("%", "%%"))
