"""The table of rollouts: one row a channel, which is what the timestamp says of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from sqlalchemy import CheckConstraint, Sequence, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, Session, mapped_column

from edge_runtime.contract.rollout import Rollout, State
from sync_server.db import Base

ROLLOUT_IDS = Sequence("rollout_ids", metadata=Base.metadata)


class Channel(Base):
    """The latest rollout of a channel; earlier ones are in the audit trail."""

    __tablename__ = "channels"
    __table_args__ = (
        CheckConstraint("share BETWEEN 0 AND 10000", name="share"),
        CheckConstraint("state IN ('running', 'paused', 'rolled_back')", name="state"),
    )

    name: Mapped[str] = mapped_column(primary_key=True)
    rollout_id: Mapped[int]
    model: Mapped[str]
    release: Mapped[int]
    previous: Mapped[int | None]
    share: Mapped[int]
    salt: Mapped[str]
    state: Mapped[str]
    cohorts: Mapped[list[Any] | None] = mapped_column(JSONB(none_as_null=True))
    updated_at: Mapped[datetime]

    def to_rollout(self) -> Rollout:
        """Return the contract's view of this row."""
        return Rollout(
            id=self.rollout_id,
            model=self.model,
            release=self.release,
            previous=self.previous,
            share=self.share,
            salt=self.salt,
            state=cast("State", self.state),
            cohorts=None if self.cohorts is None else tuple(self.cohorts),
        )


def rollouts_by_channel(session: Session) -> dict[str, Rollout]:
    """Return every channel's rollout, by name, in order of names."""
    return {row.name: row.to_rollout() for row in session.scalars(select(Channel).order_by(Channel.name))}
