"""What a run counts: answers by request and status, latencies, and every record that a server said it holds."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from edge_runtime.contract.result import AnyRecord

PERCENTILES = (50, 95, 99)


@dataclass(slots=True)
class Tally:
    """Counts of one run.

    Attributes:
        answers: By request and status.
        errors: Exchanges without an answer, by what went wrong.
        acknowledged: Records that the server holds, by table.
        refused: Records that the server will never take, by reason.
        repeated: Records of batches that were sent again although the server held them.
        events: What devices did: ``visits``, ``whole_polls``, ``activated``, ``offline``, ``returned``, ``retries``.
        lag: Seconds by which visits began later than planned; the generator was short of time then, not the server.
    """

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    acknowledged: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    events: Counter[str] = field(default_factory=Counter)
    lag: array[float] = field(default_factory=lambda: array("f"))
    _seconds: defaultdict[str, array[float]] = field(default_factory=lambda: defaultdict(lambda: array("f")))

    def answered(self, what: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self.answers[what, status] += 1
        self._seconds[what].append(seconds)

    def acknowledge(self, records: Iterable[AnyRecord]) -> None:
        """Count records that the server holds for the first time."""
        self.acknowledged.update(record.table for record in records)

    @property
    def server_errors(self) -> int:
        """Answers with a status of 500 or more."""
        return sum(count for (_, status), count in self.answers.items() if status >= 500)

    def latencies(self) -> dict[str, dict[str, float]]:
        """Return p50, p95, p99 and the longest by request, in milliseconds."""
        return {what: _percentiles(values) for what, values in sorted(self._seconds.items())}

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, JSON-ready."""
        by_request: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for (what, status), count in sorted(self.answers.items()):
            by_request[what][str(status)] = count
        return {
            "answers": dict(by_request),
            "server_errors": self.server_errors,
            "errors": dict(self.errors),
            "latency_ms": self.latencies(),
            "acknowledged": dict(self.acknowledged),
            "refused": dict(self.refused),
            "repeated": self.repeated,
            "events": dict(self.events),
            "lag_ms": _percentiles(self.lag) if self.lag else {},
        }


def _percentiles(seconds: array[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    places = {f"p{share}": min(len(ordered) - 1, len(ordered) * share // 100) for share in PERCENTILES}
    return {name: round(1e3 * ordered[place], 2) for name, place in {**places, "max": len(ordered) - 1}.items()}
