"""Tables of rollouts: what the timestamp says of each channel, and how each rollout went.

``channels`` is what is signed. ``rollout_runs`` holds one row a rollout, with its plan and where it stands in it;
``rollout_steps`` every change of what is signed; ``rollout_looks`` what the gates found, look by look.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Sequence,
    UniqueConstraint,
    false,
    select,
    text,
)
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


class RolloutRun(Base):
    """One rollout from its start on: its plan, where it stands, how it ended.

    A segment is a stretch in which the same devices are in: a stage, or what a person's change made of it. Only what
    devices do in it counts for its gates. ``unplanned`` says that a person began the present one, ``extra_segments``
    how many they began so far. ``watched_seconds`` is the time of the segment that the server saw pass: hours in which
    it was off, or by which its clock jumped, are none. ``reach_at`` is when 95 % of the reachable fleet ran it.
    ``silent_before`` is the share of the reachable devices that were silent when the watch began.
    """

    __tablename__ = "rollout_runs"
    __table_args__ = (
        CheckConstraint("outcome IN ('finished', 'rolled_back', 'replaced')", name="outcome"),
        Index(None, "channel", text("rollout_id DESC")),
    )

    rollout_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    channel: Mapped[str]
    model: Mapped[str]
    release: Mapped[int]
    started_at: Mapped[datetime]
    plan: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    stage: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    segment: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    extra_segments: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    unplanned: Mapped[bool] = mapped_column(server_default=false())
    segment_at: Mapped[datetime]
    ticked_at: Mapped[datetime]
    watched_seconds: Mapped[float] = mapped_column(Float(53), server_default=text("0"))
    looked_seconds: Mapped[float] = mapped_column(Float(53), server_default=text("0"))
    looks: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    silent_before: Mapped[float | None] = mapped_column(Float(53))
    reach_at: Mapped[datetime | None]
    reach_checked_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    ended_at: Mapped[datetime | None]
    trouble: Mapped[str | None]


class RolloutStep(Base):
    """One change of what is signed of a rollout. Never changed afterwards."""

    __tablename__ = "rollout_steps"
    __table_args__ = (Index(None, "rollout_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    rollout_id: Mapped[int] = mapped_column(ForeignKey("rollout_runs.rollout_id"))
    at: Mapped[datetime]
    action: Mapped[str]
    actor: Mapped[str]
    note: Mapped[str]
    share: Mapped[int]
    state: Mapped[str]
    cohorts: Mapped[list[Any] | None] = mapped_column(JSONB(none_as_null=True))


class RolloutLook(Base):
    """One look at the gates. Never changed afterwards."""

    __tablename__ = "rollout_looks"
    __table_args__ = (
        CheckConstraint("verdict IN ('holds', 'few', 'tripped')", name="verdict"),
        UniqueConstraint("rollout_id", "segment", "look"),
        Index(None, "rollout_id", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    rollout_id: Mapped[int] = mapped_column(ForeignKey("rollout_runs.rollout_id"))
    at: Mapped[datetime]
    stage: Mapped[int] = mapped_column(Integer)
    segment: Mapped[int] = mapped_column(Integer)
    look: Mapped[int] = mapped_column(Integer)
    share: Mapped[int]
    budget: Mapped[float] = mapped_column(Float(53))
    verdict: Mapped[str]
    devices: Mapped[dict[str, Any]]
    gates: Mapped[list[Any]]


def rollouts_by_channel(session: Session) -> dict[str, Rollout]:
    """Return every channel's rollout, by name, in order of names."""
    return {row.name: row.to_rollout() for row in session.scalars(select(Channel).order_by(Channel.name))}
