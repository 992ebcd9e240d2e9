"""Tables of the scoring room: what runs beside a channel's release, and the windows that were kept."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, Double, ForeignKey, Identity, Index
from sqlalchemy.orm import Mapped, mapped_column

from sync_server.db import Base


class ChallengerSetting(Base):
    """What is done with a share of a channel's scoring requests; earlier settings are in the audit trail."""

    __tablename__ = "challengers"
    __table_args__ = (CheckConstraint("share BETWEEN 1 AND 10000", name="share"),)

    channel: Mapped[str] = mapped_column(ForeignKey("channels.name"), primary_key=True)
    release: Mapped[int | None]
    share: Mapped[int]
    set_at: Mapped[datetime]
    set_by: Mapped[str]


class ScoredWindow(Base):
    """One window that was scored for a client, kept with both verdicts.

    ``champion`` and ``challenger`` are digests of bundles; ``cells`` is the window, W x S little-endian float32, as the
    champion's manifest orders it. Without a challenger, or when it failed (``challenger_error``), its columns are null.
    """

    __tablename__ = "scored_windows"
    __table_args__ = (Index(None, "channel", "id"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    scored_at: Mapped[datetime] = mapped_column(index=True)
    channel: Mapped[str]
    device_id: Mapped[str | None]
    cohort: Mapped[str | None]
    observed_at_ms: Mapped[int | None]
    champion: Mapped[str]
    champion_score: Mapped[float] = mapped_column(Double)
    champion_raw: Mapped[float] = mapped_column(Double)
    champion_anomaly: Mapped[bool]
    champion_us: Mapped[int]
    challenger: Mapped[str | None]
    challenger_score: Mapped[float | None] = mapped_column(Double)
    challenger_raw: Mapped[float | None] = mapped_column(Double)
    challenger_anomaly: Mapped[bool | None]
    challenger_us: Mapped[int | None]
    challenger_error: Mapped[str | None]
    cells: Mapped[bytes | None]
