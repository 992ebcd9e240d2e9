"""Tables of results: streams, the four kinds of record, incidents, and the hourly roll-up.

Records are partitioned by ``received_at``, the server's clock, a partition a month (:mod:`sync_server.ingest.ddl`). A
device's own times are claims: ``BIGINT`` milliseconds, stored and indexed, never a partition key. ``ahead`` marks those
more than a day ahead of the server's clock.

A record's identity, (stream, sequence), is unique because its stream row is locked while a batch is stored and lists
every number held; no unique index over partitions would be possible without ``received_at`` in it. Record tables
carry no foreign keys: the stream row has been checked under lock, and partitions can be dropped or moved alone.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, Float, ForeignKey, Identity, Index, Text, text
from sqlalchemy.dialects.postgresql import INT8MULTIRANGE
from sqlalchemy.orm import Mapped, mapped_column

from sync_server.db import Base

STATUSES = ("open", "acknowledged", "resolved")
PERIODS = ("hour", "day")


class Stream(Base):
    """One stream of a device and the sequence numbers that are held; locked while a batch of it is stored."""

    __tablename__ = "streams"
    __table_args__ = (
        CheckConstraint("stream ~ '^[0-9a-f]{32}$'", name="stream"),
        Index(None, "device_id", "stream", unique=True),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    stream: Mapped[str]
    held: Mapped[Any] = mapped_column(INT8MULTIRANGE, server_default=text("'{}'"))
    first_seen_at: Mapped[datetime]
    # The device's clock when it sent the first batch and the newest that added something, 0 in rows that are older than
    # these columns.
    opened_at_ms: Mapped[int] = mapped_column(server_default=text("0"))
    last_sent_at_ms: Mapped[int] = mapped_column(server_default=text("0"))
    grown_at: Mapped[datetime | None]


class _Record:
    """The columns that every record has."""

    received_at: Mapped[datetime] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    stream_id: Mapped[int]
    sequence: Mapped[int]
    digest: Mapped[bytes]
    device_id: Mapped[str]


_MONTHLY: dict[str, Any] = {"postgresql_partition_by": "RANGE (received_at)"}


class AnomalyRow(_Record, Base):
    """One anomalous window that a device stored; ``signals`` repeats the contributions' names for filters."""

    __tablename__ = "anomalies"
    __table_args__ = (
        Index(None, "stream_id", "sequence"),
        Index("ix_anomalies_observed", text("observed_at_ms DESC"), text("id DESC")),
        Index(None, "device_id", text("observed_at_ms DESC"), text("id DESC")),
        _MONTHLY,
    )

    bundle: Mapped[str]
    cohort: Mapped[str | None]
    observed_at_ms: Mapped[int]
    incident_started_at_ms: Mapped[int]
    anomaly_score: Mapped[float] = mapped_column(Float(53))
    raw_score: Mapped[float] = mapped_column(Float(53))
    windows: Mapped[int]
    contributions: Mapped[list[Any]]
    signals: Mapped[list[str]] = mapped_column(ARRAY(Text))
    stale: Mapped[bool]
    ahead: Mapped[bool]


class SummaryRow(_Record, Base):
    """Counts of one period of one device; ``cells`` is the record's ``values``, a word that SQL keeps for itself."""

    __tablename__ = "summaries"
    __table_args__ = (
        Index(None, "stream_id", "sequence"),
        Index(None, "device_id", text("period_start_ms DESC")),
        _MONTHLY,
    )

    bundle: Mapped[str]
    period_start_ms: Mapped[int]
    period: Mapped[str]
    windows: Mapped[int]
    anomalous: Mapped[int]
    warming_up: Mapped[int]
    late: Mapped[int]
    cells: Mapped[int]
    missing: Mapped[int]
    histogram: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    latency_count: Mapped[int]
    latency_sum_us: Mapped[int]
    latency_max_us: Mapped[int]
    ahead: Mapped[bool]


class GapRow(_Record, Base):
    """A run of records that a device had to give up."""

    __tablename__ = "gaps"
    __table_args__ = (
        Index(None, "stream_id", "sequence"),
        Index(None, "device_id", text("id DESC")),
        _MONTHLY,
    )

    first_sequence: Mapped[int]
    last_sequence: Mapped[int]
    count: Mapped[int]
    reason: Mapped[str]


class EventRow(_Record, Base):
    """Something that happened on a device."""

    __tablename__ = "events"
    __table_args__ = (
        Index(None, "stream_id", "sequence"),
        Index(None, "device_id", text("observed_at_ms DESC"), text("id DESC")),
        _MONTHLY,
    )

    bundle: Mapped[str | None]
    observed_at_ms: Mapped[int]
    name: Mapped[str]
    detail: Mapped[dict[str, Any]]
    ahead: Mapped[bool]


class Incident(Base):
    """A run of anomalous windows of one device and bundle, put together from its records, and what people made of it.

    ``listed_at_ms`` orders the list: ``last_observed_ms``, but never later than its arrival, so that a device whose
    clock is years ahead cannot pin itself to the top. ``peak_score`` is null when only the end of an incident
    arrived: its anomalies are behind a gap record.
    """

    __tablename__ = "incidents"
    __table_args__ = (
        CheckConstraint("status IN ('open', 'acknowledged', 'resolved')", name="status"),
        Index(None, "device_id", "bundle", "started_at_ms", unique=True),
        Index("ix_incidents_listed", text("listed_at_ms DESC"), text("id DESC")),
        Index(None, "status", text("listed_at_ms DESC"), text("id DESC")),
        Index(None, "device_id", text("listed_at_ms DESC"), text("id DESC")),
        Index(None, "cohort", text("listed_at_ms DESC"), text("id DESC")),
        Index(None, "signals", postgresql_using="gin"),
        Index(None, "peak_score", postgresql_include=["id"], postgresql_where=text("peak_score >= 0.9999")),
        Index("ix_incidents_unsettled", "id", postgresql_where=text("status <> 'resolved'")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    bundle: Mapped[str]
    started_at_ms: Mapped[int]
    cohort: Mapped[str | None]
    last_observed_ms: Mapped[int]
    listed_at_ms: Mapped[int]
    ended_at_ms: Mapped[int | None]
    windows: Mapped[int]
    records: Mapped[int]
    peak_score: Mapped[float | None] = mapped_column(Float(53))
    peak_raw_score: Mapped[float | None] = mapped_column(Float(53))
    contributions: Mapped[list[Any]]
    signals: Mapped[list[str]] = mapped_column(ARRAY(Text))
    stale: Mapped[bool]
    ahead: Mapped[bool]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    status: Mapped[str] = mapped_column(server_default=text("'open'"))
    status_by: Mapped[str | None]
    status_note: Mapped[str | None]
    status_at: Mapped[datetime | None]


class IncidentStatusChange(Base):
    """One decision of a person about an incident: who, why, when. Never changed afterwards."""

    __tablename__ = "incident_status_changes"
    __table_args__ = (Index(None, "incident_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    incident_id: Mapped[int] = mapped_column(ForeignKey("incidents.id"))
    changed_at: Mapped[datetime]
    changed_by: Mapped[str]
    old_status: Mapped[str]
    new_status: Mapped[str]
    note: Mapped[str]


class HourlyRollup(Base):
    """Sums over devices, kept in the transaction of the batch, so that no page ever counts results.

    Release 0 stands for a bundle that this repository does not know, cohort '' for none: keys hold no nulls. A row of
    period ``day`` holds what devices with full stores had merged; its hours are not known.

    Present hours are rows of its child ``hourly_rollup_shards``, several for a key: whoever reads must sum.
    """

    __tablename__ = "hourly_rollups"
    __table_args__ = (CheckConstraint("period IN ('hour', 'day')", name="period"),)

    started_at_ms: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    period: Mapped[str] = mapped_column(primary_key=True)
    cohort: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    release_number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    windows: Mapped[int]
    anomalous: Mapped[int]
    incidents: Mapped[int]
    warming_up: Mapped[int]
    late: Mapped[int]
    cells: Mapped[int]
    missing: Mapped[int]
    histogram: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
