"""The window rule: which readings form a window, and which readings a device accepts.

Times are whole milliseconds since 1970 UTC. A window has ``slots`` slots of ``interval_ms``; the newest slot is the
reading's own, an older slot holds the last reading that fell into it. ``edge_runtime.windows`` applies the rule to
arrays; this module holds what other languages must repeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edge_runtime.contract import checks
from edge_runtime.errors import ContractError

MAX_SLOTS = 4096
# A reading further ahead of the device's clock than this is no reading but a broken clock (contract, Windows).
FUTURE_TOLERANCE_MS = 86_400_000
# The same distance backwards means that the clock was ahead before and has been set right.
CLOCK_STEP_MS = 86_400_000

Fate = Literal["accepted", "late", "duplicate", "future"]


@dataclass(frozen=True, slots=True)
class WindowRule:
    """How readings become windows.

    Attributes:
        slots: W, the number of slots.
        interval_ms: Length of a slot in milliseconds.
        largest_gap_ms: Nothing before a longer gap between two readings is seen, in milliseconds.
        minimum_readings: Filled slots that a verdict needs, 1 to W.
    """

    slots: int
    interval_ms: int
    largest_gap_ms: int
    minimum_readings: int

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ContractError: A value is out of bounds.
        """
        checks.integer(self.slots, "slots", least=1, most=MAX_SLOTS)
        checks.integer(self.interval_ms, "interval_ms", least=1, most=366 * 86_400_000)
        checks.integer(self.largest_gap_ms, "largest_gap_ms", least=self.interval_ms)
        checks.integer(self.minimum_readings, "minimum_readings", least=1, most=self.slots)

    def slot(self, timestamp_ms: int) -> int:
        """Return the number of the slot that a time falls into: floor(t / interval)."""
        return timestamp_ms // self.interval_ms

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> WindowRule:
        """Read the rule as the manifest writes it, with times in seconds.

        Raises:
            ContractError: A field is missing or out of bounds.
        """
        return cls(
            slots=checks.integer(checks.get(value, "slots"), "slots", least=1, most=MAX_SLOTS),
            interval_ms=_milliseconds(value, "interval_seconds"),
            largest_gap_ms=_milliseconds(value, "largest_gap_seconds"),
            minimum_readings=checks.integer(checks.get(value, "minimum_readings"), "minimum_readings", least=1),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as the manifest writes it, with times in seconds."""
        return {
            "slots": self.slots,
            "interval_seconds": _seconds(self.interval_ms),
            "largest_gap_seconds": _seconds(self.largest_gap_ms),
            "minimum_readings": self.minimum_readings,
        }


def judge_reading(timestamp_ms: int, highest_ms: int | None, clock_ms: int) -> Fate:
    """Say what becomes of a reading; its identity on a device is its timestamp.

    Args:
        timestamp_ms: The reading's own time.
        highest_ms: The highest accepted time, or None before the first.
        clock_ms: The device's clock now.

    Returns:
        ``accepted``; ``duplicate`` at the mark and ``late`` below it (counted, not scored, never an error);
        ``future`` when more than a day ahead of the clock (refused).
    """
    if timestamp_ms > clock_ms + FUTURE_TOLERANCE_MS:
        return "future"
    if highest_ms is None or timestamp_ms > highest_ms:
        return "accepted"
    return "duplicate" if timestamp_ms == highest_ms else "late"


def clock_stepped(clock_ms: int, highest_clock_ms: int | None) -> bool:
    """Say whether the clock is more than a day behind the highest it has shown.

    Then the mark is lowered to now, the window starts afresh, and ``clock_stepped`` is reported.
    """
    return highest_clock_ms is not None and clock_ms < highest_clock_ms - CLOCK_STEP_MS


def _milliseconds(value: Mapping[str, Any], field: str) -> int:
    seconds = checks.number(checks.get(value, field), field, least=0.001)
    milliseconds = round(seconds * 1000)
    if abs(milliseconds - seconds * 1000) > 1e-6:
        raise ContractError(f"Field {field!r} must be a whole number of milliseconds.", field=field)
    return milliseconds


def _seconds(milliseconds: int) -> int | float:
    return milliseconds // 1000 if milliseconds % 1000 == 0 else milliseconds / 1000
