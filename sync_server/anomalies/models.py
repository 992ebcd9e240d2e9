"""The one table of this room: how far the search for recovered incidents is. Incidents themselves are ingest's."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, text, true
from sqlalchemy.orm import Mapped, mapped_column

from sync_server.db import Base


class RecoveryProgress(Base):
    """One row: the incident after which the next turn begins, see :mod:`sync_server.anomalies.recovery`."""

    __tablename__ = "recovery_progress"
    __table_args__ = (CheckConstraint("one_row", name="one_row"),)

    one_row: Mapped[bool] = mapped_column(primary_key=True, server_default=true())
    after_id: Mapped[int] = mapped_column(server_default=text("0"))
