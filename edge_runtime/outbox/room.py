"""How a full outbox gives way: which records go, and which runs of numbers the gap records name. Pure.

Hourly summaries merge into daily ones, then the oldest summaries go, then the oldest anomalies and events. What the
server may hold already (``sent``) is never merged, because the server adds summaries and would count it twice, and it
is dropped only when nothing else is left. Gap records that were not sent are rewritten with each plan, so that
neighbouring runs become one and the gaps themselves stay few.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

FULL = "outbox_full"
MERGED = "summaries_merged"
JOINED = "gaps_joined"
# A joined run is named after the worst that happened in it.
_WORST_FIRST = (FULL, MERGED, JOINED)
# Where clearing stops, as a share of the limits: room for a day's records before the next plan.
TARGET_SHARE = 0.9
# What a gap and a daily summary take, in bytes: hourly ones take 300 (measured), and days have longer numbers.
GAP_BYTES = 90
SUMMARY_BYTES = 330
# A plan is costed after every so many steps: each costing sorts what is lost so far.
_COSTINGS = 64


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """What a plan knows of one record in the outbox.

    Attributes:
        sequence: Its number.
        kind: Table name of its kind (``anomalies``, ``summaries``, ``gaps``, ``events``).
        size: Bytes.
        sent: The server may hold it.
        day: (bundle, day) of a summary, else None.
        run: (first, last, reason) of a gap, else None.
    """

    sequence: int
    kind: str
    size: int
    sent: bool
    day: tuple[str, int] | None = None
    run: tuple[int, int, str] | None = None


@dataclass(slots=True)
class RoomPlan:
    """What to do to the outbox.

    Attributes:
        removed: Numbers of the records to delete, those that are merged or rewritten included.
        merges: Groups of summaries, each to be added up into one daily summary.
        runs: (first, last, reason) of the gap records to write.
        dropped: How many records are given up for good.
    """

    removed: set[int] = field(default_factory=set)
    merges: list[tuple[int, ...]] = field(default_factory=list)
    runs: list[tuple[int, int, str]] = field(default_factory=list)
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class _Step:
    records: tuple[StoredRecord, ...]
    merge: bool


def plan_room(records: Sequence[StoredRecord], *, max_records: int, max_bytes: int) -> RoomPlan:
    """Choose what goes until the outbox is at nine tenths of its limits.

    Args:
        records: Everything in the outbox, by sequence.
        max_records: Limit of the outbox.
        max_bytes: Limit of the outbox.

    Returns:
        The plan; when nothing can go, one that removes nothing.
    """
    steps = _steps(records)
    every = max(1, len(steps) // _COSTINGS)
    plan = _apply(records, steps[:0])
    for end in [*range(every, len(steps), every), len(steps)]:
        plan = _apply(records, steps[:end])
        count, size = _cost(records, plan)
        if count <= max_records * TARGET_SHARE and size <= max_bytes * TARGET_SHARE:
            break
    return plan


def _steps(records: Sequence[StoredRecord]) -> list[_Step]:
    """Return every step in the order of the contract: later ones undo the merge of what they drop."""
    days: dict[tuple[str, int], list[StoredRecord]] = {}
    for record in records:
        if record.day is not None and not record.sent:
            days.setdefault(record.day, []).append(record)
    by_age = sorted(days.items(), key=lambda item: (item[0][1], item[0][0]))
    merges = [_Step(tuple(group), merge=True) for _, group in by_age if len(group) > 1]
    summaries = [_Step(tuple(group), merge=False) for _, group in by_age]
    others = [r for r in records if r.kind not in ("summaries", "gaps") and not r.sent]
    sent = [r for r in records if r.kind != "gaps" and r.sent]
    return [*merges, *summaries, *(_Step((record,), merge=False) for record in [*others, *sent])]


def _apply(records: Sequence[StoredRecord], steps: Iterable[_Step]) -> RoomPlan:
    plan = RoomPlan()
    merged: dict[int, tuple[int, ...]] = {}
    lost: list[tuple[int, int, str]] = []
    for step in steps:
        numbers = tuple(record.sequence for record in step.records)
        plan.removed.update(numbers)
        if step.merge:
            merged[numbers[0]] = numbers
            continue
        merged.pop(numbers[0], None)
        plan.dropped += len(numbers)
        lost += [(number, number, FULL) for number in numbers]
    plan.merges = list(merged.values())
    lost += [(number, number, MERGED) for group in plan.merges for number in group]
    if not plan.removed:
        return plan
    for record in records:
        if record.run is not None and not record.sent:
            plan.removed.add(record.sequence)
            lost += [record.run, (record.sequence, record.sequence, JOINED)]
    plan.runs = joined(lost)
    return plan


def joined(runs: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Join runs that touch; the joined run takes the worst reason of its parts.

    Args:
        runs: (first, last, reason), disjoint, in any order.

    Returns:
        The fewest runs that cover the same numbers, ascending.
    """
    result: list[tuple[int, int, str]] = []
    for first, last, reason in sorted(runs):
        if result and first == result[-1][1] + 1:
            before = result[-1]
            result[-1] = (before[0], last, min(before[2], reason, key=_WORST_FIRST.index))
        else:
            result.append((first, last, reason))
    return result


def _cost(records: Sequence[StoredRecord], plan: RoomPlan) -> tuple[int, int]:
    kept = [record.size for record in records if record.sequence not in plan.removed]
    count = len(kept) + len(plan.merges) + len(plan.runs)
    return count, sum(kept) + len(plan.merges) * SUMMARY_BYTES + len(plan.runs) * GAP_BYTES
