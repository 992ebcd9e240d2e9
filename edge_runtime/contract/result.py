"""Results: the records that devices make, and the digest by which a server tells them apart.

A record's identity is (device, stream, sequence). A stream is a random 128-bit id made with the device's store;
sequences start at 1 and have no holes. ``edge_runtime.contract.batch`` is what they travel in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from edge_runtime.contract import checks
from edge_runtime.contract.histogram import BINS
from edge_runtime.errors import ContractError

MAX_CONTRIBUTIONS = 8
MAX_DETAIL_FIELDS = 16
MAX_WINDOWS = 2**31 - 1

DetailValue = str | int | float | bool


class Record:
    """What every kind of record has: a sequence, a table name in the batch, and named fields."""

    __slots__ = ()
    table: ClassVar[str]
    fields: ClassVar[tuple[str, ...]]
    sequence: int

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-ready fields, without its table."""
        return {field: _plain(getattr(self, field)) for field in self.fields}


@dataclass(frozen=True, slots=True)
class Anomaly(Record):
    """One stored anomalous window: the first of its incident, a new maximum, or one an hour.

    Attributes:
        sequence: Number in the stream, from 1.
        bundle: SHA-256 of the bundle that scored it, hex.
        observed_at_ms: Time of the window's newest reading, the device's claim.
        incident_started_at_ms: Time of the incident's first anomalous window.
        anomaly_score: In [0, 1], higher is more anomalous.
        raw_score: The detector's own figure.
        windows: Anomalous windows of the incident up to and with this one.
        contributions: (signal, share of the raw score that goes away without it), largest first, at most 8.
        stale: The device's metadata had expired when it scored.
    """

    table: ClassVar[str] = "anomalies"
    fields: ClassVar[tuple[str, ...]] = (
        "sequence", "bundle", "observed_at_ms", "incident_started_at_ms", "anomaly_score", "raw_score", "windows",
        "contributions", "stale",
    )  # fmt: skip

    sequence: int
    bundle: str
    observed_at_ms: int
    incident_started_at_ms: int
    anomaly_score: float
    raw_score: float
    windows: int
    contributions: tuple[tuple[str, float], ...]
    stale: bool

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read one anomaly.

        Raises:
            ContractError: A field is missing, of another type or out of bounds, or the incident starts after it.
        """
        observed_at_ms = checks.moment(checks.get(value, "observed_at_ms"), "observed_at_ms")
        started = checks.moment(checks.get(value, "incident_started_at_ms"), "incident_started_at_ms")
        if started > observed_at_ms:
            raise ContractError("Field 'incident_started_at_ms' is later than 'observed_at_ms'.")
        return cls(
            sequence=_sequence(value),
            bundle=checks.hex64(checks.get(value, "bundle"), "bundle"),
            observed_at_ms=observed_at_ms,
            incident_started_at_ms=started,
            anomaly_score=checks.number(checks.get(value, "anomaly_score"), "anomaly_score", least=0, most=1),
            raw_score=checks.number(checks.get(value, "raw_score"), "raw_score"),
            windows=checks.integer(checks.get(value, "windows"), "windows", least=1, most=MAX_WINDOWS),
            contributions=_contributions(checks.get(value, "contributions")),
            stale=checks.flag(checks.get(value, "stale"), "stale"),
        )


@dataclass(frozen=True, slots=True)
class Summary(Record):
    """Counts of one hour (or day) and bundle since the last summary of it: a delta, the server only adds.

    Attributes:
        sequence: Number in the stream, from 1.
        bundle: SHA-256 of the bundle that scored, hex.
        period_start_ms: Start of the UTC hour or day of the readings.
        period: ``hour`` or ``day``.
        newest_reading_ms: Time of the newest reading when it was closed. Two deltas of an hour may count the same; by
            this a server tells the next one from the same one again.
        windows: Windows scored, anomalous or not.
        anomalous: Those that were anomalous.
        warming_up: Readings accepted before a verdict was possible.
        late: Readings that came at or below the mark.
        values: Cells of the accepted readings.
        missing: Those that were missing.
        histogram: 15 counts of anomaly scores over ``histogram.EDGES``.
        latency_count: Windows timed.
        latency_sum_us: Sum of their scoring times in microseconds.
        latency_max_us: The longest, in microseconds.
    """

    table: ClassVar[str] = "summaries"
    fields: ClassVar[tuple[str, ...]] = (
        "sequence", "bundle", "period_start_ms", "period", "newest_reading_ms", "windows", "anomalous", "warming_up",
        "late", "values", "missing", "histogram", "latency_count", "latency_sum_us", "latency_max_us",
    )  # fmt: skip

    sequence: int
    bundle: str
    period_start_ms: int
    period: str
    newest_reading_ms: int
    windows: int
    anomalous: int
    warming_up: int
    late: int
    values: int
    missing: int
    histogram: tuple[int, ...]
    latency_count: int
    latency_sum_us: int
    latency_max_us: int

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read one summary.

        Raises:
            ContractError: A field is missing, of another type or out of bounds, or the counts contradict each other.
        """
        period = checks.get(value, "period")
        if period not in ("hour", "day"):
            raise ContractError("Field 'period' must be 'hour' or 'day'.")
        start = checks.moment(checks.get(value, "period_start_ms"), "period_start_ms")
        length = 3_600_000 if period == "hour" else 86_400_000
        if start % length:
            raise ContractError(f"Field 'period_start_ms' is not the start of a UTC {period}.")
        newest = checks.moment(checks.get(value, "newest_reading_ms"), "newest_reading_ms")
        if not start <= newest < start + length:
            raise ContractError(f"Field 'newest_reading_ms' is outside the {period} of the summary.")
        counts = {name: _count(value, name) for name in ("windows", "anomalous", "warming_up", "late")}
        histogram = tuple(
            checks.integer(count, "histogram", most=MAX_WINDOWS)
            for count in checks.array(checks.get(value, "histogram"), "histogram", most=BINS)
        )
        if len(histogram) != BINS or sum(histogram) != counts["windows"]:
            raise ContractError(f"Field 'histogram' must hold {BINS} counts that add up to 'windows'.")
        values, missing = _count(value, "values", 2**53 - 1), _count(value, "missing", 2**53 - 1)
        if counts["anomalous"] > counts["windows"] or missing > values:
            raise ContractError("A summary counts more anomalous windows than windows, or more missing than values.")
        return cls(
            sequence=_sequence(value),
            bundle=checks.hex64(checks.get(value, "bundle"), "bundle"),
            period_start_ms=start,
            period=period,
            newest_reading_ms=newest,
            **counts,
            values=values,
            missing=missing,
            histogram=histogram,
            latency_count=_count(value, "latency_count"),
            latency_sum_us=_count(value, "latency_sum_us", 2**53 - 1),
            latency_max_us=_count(value, "latency_max_us", 2**53 - 1),
        )


@dataclass(frozen=True, slots=True)
class Gap(Record):
    """The trace of records that a full store had to give up: one contiguous run of sequence numbers.

    Attributes:
        sequence: Number in the stream, from 1.
        first_sequence: First number of the run.
        last_sequence: Last number of the run.
        count: Records that went; equals the length of the run.
        reason: Short code, such as ``outbox_full`` or ``summaries_merged``.
    """

    table: ClassVar[str] = "gaps"
    fields: ClassVar[tuple[str, ...]] = ("sequence", "first_sequence", "last_sequence", "count", "reason")

    sequence: int
    first_sequence: int
    last_sequence: int
    count: int
    reason: str

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read one gap.

        Raises:
            ContractError: A field is missing, of another type or out of bounds, or the run does not fit.
        """
        sequence = _sequence(value)
        first = checks.integer(checks.get(value, "first_sequence"), "first_sequence", least=1)
        last = checks.integer(checks.get(value, "last_sequence"), "last_sequence", least=first)
        count = checks.integer(checks.get(value, "count"), "count", least=1)
        if last >= sequence or count != last - first + 1:
            raise ContractError("A gap must name a whole run of sequence numbers below its own.")
        return cls(sequence, first, last, count, checks.text(checks.get(value, "reason"), "reason", most=64))


@dataclass(frozen=True, slots=True)
class Event(Record):
    """Something that happened on the device: an update's outcome, an incident's end, a stepped clock.

    Attributes:
        sequence: Number in the stream, from 1.
        bundle: SHA-256 of the active bundle, hex, or None.
        observed_at_ms: When, by the device's clock.
        name: Short code, such as ``incident_ended``.
        detail: At most 16 short fields.
    """

    table: ClassVar[str] = "events"
    fields: ClassVar[tuple[str, ...]] = ("sequence", "bundle", "observed_at_ms", "name", "detail")

    sequence: int
    bundle: str | None
    observed_at_ms: int
    name: str
    detail: Mapping[str, DetailValue]

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read one event.

        Raises:
            ContractError: A field is missing, of another type or out of bounds.
        """
        bundle = checks.get(value, "bundle")
        detail = checks.table(checks.get(value, "detail"), "detail")
        if len(detail) > MAX_DETAIL_FIELDS:
            raise ContractError(f"Field 'detail' must hold at most {MAX_DETAIL_FIELDS} fields.")
        return cls(
            sequence=_sequence(value),
            bundle=None if bundle is None else checks.hex64(bundle, "bundle"),
            observed_at_ms=checks.moment(checks.get(value, "observed_at_ms"), "observed_at_ms"),
            name=checks.text(checks.get(value, "name"), "name", most=64),
            detail={checks.text(key, "detail", most=64): _detail_value(item) for key, item in detail.items()},
        )


AnyRecord = Anomaly | Summary | Gap | Event
RECORD_KINDS: tuple[type[Anomaly] | type[Summary] | type[Gap] | type[Event], ...] = (Anomaly, Summary, Gap, Event)

_DIGESTED = {
    kind.table: tuple(field for field in kind.fields if not field.startswith("latency_")) for kind in RECORD_KINDS
}


def record_digest(record: AnyRecord) -> bytes:
    """Return the SHA-256 of a record's canonical JSON: how a server tells a retry from a reused number.

    Times that scoring took are left out: a device restored from a backup that is fed the same readings again finds
    the same results, only not in the same number of microseconds, and they must not count twice.
    """
    fields = {name: getattr(record, name) for name in _DIGESTED[record.table]}
    return hashlib.sha256(checks.canonical([record.table, fields])).digest()


def _sequence(value: Mapping[str, Any]) -> int:
    return checks.integer(checks.get(value, "sequence"), "sequence", least=1)


def _count(value: Mapping[str, Any], name: str, most: int = MAX_WINDOWS) -> int:
    return checks.integer(checks.get(value, name), name, most=most)


def _contributions(value: object) -> tuple[tuple[str, float], ...]:
    result = []
    for item in checks.array(value, "contributions", most=MAX_CONTRIBUTIONS):
        pair = checks.array(item, "contributions", most=2)
        if len(pair) != 2:
            raise ContractError("Field 'contributions' must hold [signal, value].")
        result.append((checks.text(pair[0], "contributions", most=128), checks.number(pair[1], "contributions")))
    return tuple(result)


def _detail_value(value: object) -> DetailValue:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return checks.integer(value, "detail", least=-(2**53)) if type(value) is int else checks.number(value, "detail")
    return checks.text(value, "detail", most=512)


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value
