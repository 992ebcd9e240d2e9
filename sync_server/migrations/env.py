"""Alembic's entry point: the connection comes from :func:`sync_server.migrations.migrate`, never from a file."""

from __future__ import annotations

from alembic import context

from sync_server import rooms
from sync_server.db import Base

rooms.load_models()
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transaction_per_migration=True,
    # In the transaction of each migration: whoever sees what it made may use it.
    on_version_apply=context.config.attributes.get("after_each", ()),
)
with context.begin_transaction():
    context.run_migrations()
