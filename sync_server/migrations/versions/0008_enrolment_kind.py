"""An enrolment says which kind of device it lets in."""

from __future__ import annotations

from alembic import op

from sync_server.devices.ddl import ENROLMENT_KIND

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the column; tokens that are out already let in edge devices."""
    for statement in ENROLMENT_KIND:
        op.execute(statement)
