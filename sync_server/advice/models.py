"""The table of advice that an endpoint wrote, one row a pattern."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, mapped_column

from sync_server.db import Base


class AdviceText(Base):
    """What is known of one pattern.

    ``state`` says what happened last; ``not_before`` is when somebody may ask the endpoint again: the end of the lease
    while it is ``writing``, the expiry of what is ``written``, the end of the pause after it ``failed``. An older
    text stays beside a failure. ``claim`` is a random word of who asks now; whoever lost the lease changes nothing.
    """

    __tablename__ = "advice_texts"
    __table_args__ = (CheckConstraint("state IN ('writing', 'written', 'failed')", name="state"),)

    pattern: Mapped[str] = mapped_column(primary_key=True)
    parts: Mapped[dict[str, Any]]
    state: Mapped[str]
    claim: Mapped[str]
    claimed_at: Mapped[datetime] = mapped_column(index=True)
    not_before: Mapped[datetime]
    text: Mapped[str | None]
    written_by: Mapped[str | None]
    written_at: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(server_default=sql("0"))
    failed_with: Mapped[str | None]
