"""New numbers for what moves into a new stream: no holes, the same order, lost runs kept as runs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NewNumbers:
    """Old numbers to new ones.

    Attributes:
        records: New number of each record, by its old one, ascending.
        runs: New first number of each lost run, by its old first one.
    """

    records: dict[int, int]
    runs: dict[int, int]


def renumbered(records: Sequence[int], runs: Sequence[tuple[int, int]]) -> tuple[NewNumbers, int]:
    """Number records and lost runs from 1, in their old order.

    A gap record speaks of numbers of its own stream. When it moves into a new stream, the run that it names moves
    along and takes as many numbers there, so that the server finds no hole without a gap record in either.

    Args:
        records: Old numbers, ascending.
        runs: (first, last) of the lost runs that the gap records among them name, disjoint.

    Returns:
        The new numbers, and the number after the last.
    """
    result = NewNumbers({}, {})
    following = 1
    items = sorted([(number, number, True) for number in records] + [(first, last, False) for first, last in runs])
    for first, last, is_record in items:
        (result.records if is_record else result.runs)[first] = following
        following += last - first + 1
    return result, following
