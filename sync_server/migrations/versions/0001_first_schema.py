"""The first schema: every room's tables, in the order in which they refer to each other.

The statements stand in the rooms' ``ddl`` modules, beside the code that relies on them. They are frozen with the first
release: what changes after it is a migration of its own.
"""

from __future__ import annotations

from importlib import import_module

from alembic import op

from sync_server.rooms import DDL

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables, indexes, partitions and functions."""
    connection = op.get_bind()
    for room in DDL:
        for statement in import_module(room).STATEMENTS:
            # Through the driver itself, since colons are no parameters here; it would read a lone percent sign as one.
            connection.exec_driver_sql(statement.replace("%", "%%"))
