"""Batches: how records travel, and what the server answers.

A batch is JSON of columns, one table a kind of record, so that 1,000 records do not repeat every field's name 1,000
times::

    body = encode_batch(stream, sent_at_ms, records)
    batch = decode_batch(body)              # batch.records, and batch.refused for those with bad values
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_runtime.contract import checks
from edge_runtime.contract.result import RECORD_KINDS, AnyRecord, Record
from edge_runtime.errors import ContractError

FORMAT = 1
MAX_BATCH_RECORDS = 5_000
MAX_BATCH_BYTES = 8 * 2**20
MAX_BATCH_GZIP_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Refusal:
    """One record that the server does not take.

    Attributes:
        sequence: Its number in the stream.
        reason: ``bad_record``, ``sequence_reused`` or another short code.
        detail: One sentence for a person.
    """

    sequence: int
    reason: str
    detail: str

    def to_list(self) -> list[Any]:
        """Return ``[sequence, reason, detail]``."""
        return [self.sequence, self.reason, self.detail]


@dataclass(frozen=True, slots=True)
class Batch:
    """One upload, read.

    Attributes:
        stream: 32 hex digits.
        sent_at_ms: The device's clock when it sent.
        records: Those that can be used, by sequence.
        refused: Those with bad values.
    """

    stream: str
    sent_at_ms: int
    records: tuple[AnyRecord, ...]
    refused: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class ResultsAnswer:
    """What the server says to a batch.

    Attributes:
        stored: Records that are new with this batch.
        held: Ranges [first, last] of the batch's numbers that the server holds now; the device deletes these.
        refused: Records that it will never take; the device moves these to its dead letters.
    """

    stored: int
    held: tuple[tuple[int, int], ...]
    refused: tuple[Refusal, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as JSON-ready fields."""
        return {
            "stored": self.stored,
            "held": [list(run) for run in self.held],
            "refused": [refusal.to_list() for refusal in self.refused],
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ResultsAnswer:
        """Read an answer, strictly: a device deletes by it.

        Raises:
            ContractError: A field is missing or of another shape.
        """
        held = []
        for run in checks.array(checks.get(value, "held"), "held", most=MAX_BATCH_RECORDS):
            pair = checks.array(run, "held", most=2)
            if len(pair) != 2:
                raise ContractError("Field 'held' must hold pairs of numbers.")
            first = checks.integer(pair[0], "held", least=1)
            held.append((first, checks.integer(pair[1], "held", least=first)))
        refused = []
        for item in checks.array(checks.get(value, "refused"), "refused", most=MAX_BATCH_RECORDS):
            triple = checks.array(item, "refused", most=3)
            if len(triple) != 3:
                raise ContractError("Field 'refused' must hold [sequence, reason, detail].")
            refused.append(
                Refusal(
                    checks.integer(triple[0], "refused", least=1),
                    checks.text(triple[1], "refused", most=64),
                    checks.text(triple[2], "refused", most=1024),
                )
            )
        stored = checks.integer(checks.get(value, "stored"), "stored", most=MAX_BATCH_RECORDS)
        return cls(stored, tuple(held), tuple(refused))


def encode_batch(stream: str, sent_at_ms: int, records: Sequence[AnyRecord]) -> bytes:
    """Return the body of one upload, before gzip.

    Args:
        stream: 32 hex digits.
        sent_at_ms: The device's clock now.
        records: At most 5,000 records of that stream.

    Returns:
        UTF-8 JSON: ``format``, ``stream``, ``sent_at_ms`` and a table of columns for each kind that occurs.

    Raises:
        ContractError: Too many records.
    """
    if len(records) > MAX_BATCH_RECORDS:
        raise ContractError(f"A batch holds at most {MAX_BATCH_RECORDS} records, not {len(records)}.")
    body: dict[str, Any] = {"format": FORMAT, "stream": stream, "sent_at_ms": sent_at_ms}
    for kind in RECORD_KINDS:
        rows = [record.to_dict() for record in records if isinstance(record, kind)]
        if rows:
            body[kind.table] = {field: [row[field] for row in rows] for field in kind.fields}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def decode_batch(body: bytes) -> Batch:
    """Read one upload; a record with bad values is refused by itself, a batch without shape is refused whole.

    Args:
        body: At most 8 MiB of UTF-8 JSON, after gzip.

    Returns:
        The batch, its records ordered by sequence.

    Raises:
        ContractError: Too large, not JSON, another format, ragged columns, a sequence that is no number or twice there.
    """
    if len(body) > MAX_BATCH_BYTES:
        raise ContractError(f"A batch holds at most {MAX_BATCH_BYTES} bytes, not {len(body)}.")
    value = checks.parse_object(body, "The batch")
    if checks.get(value, "format") != FORMAT:
        raise ContractError(
            f"The batch has format {str(value['format'])[:20]!r}; this server reads format {FORMAT}.",
            advice="Update the server, or the device.",
        )
    stream = checks.hex32(checks.get(value, "stream"), "stream")
    sent_at_ms = checks.moment(checks.get(value, "sent_at_ms"), "sent_at_ms")
    records: list[AnyRecord] = []
    refused: list[Refusal] = []
    seen: set[int] = set()
    for kind in RECORD_KINDS:
        for row in _rows(value, kind):
            sequence = checks.integer(checks.get(row, "sequence"), "sequence", least=1)
            if sequence in seen or len(seen) == MAX_BATCH_RECORDS:
                raise ContractError(f"Sequence {sequence} is twice in the batch, or the batch holds too many records.")
            seen.add(sequence)
            try:
                records.append(kind.from_dict(row))
            except ContractError as error:
                refused.append(Refusal(sequence, "bad_record", error.message))
    records.sort(key=lambda record: record.sequence)
    return Batch(stream, sent_at_ms, tuple(records), tuple(refused))


def ranges(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Return sorted runs [first, last] that cover exactly the given numbers."""
    runs: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return tuple(runs)


def _rows(value: Mapping[str, Any], kind: type[Record]) -> list[dict[str, Any]]:
    if kind.table not in value:
        return []
    columns = checks.table(value[kind.table], kind.table)
    lists = [checks.array(checks.get(columns, field), field, most=MAX_BATCH_RECORDS) for field in kind.fields]
    if len({len(column) for column in lists}) != 1:
        raise ContractError(f"The columns of {kind.table!r} differ in length.")
    return [dict(zip(kind.fields, row, strict=True)) for row in zip(*lists, strict=True)]
