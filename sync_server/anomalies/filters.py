"""What a list of incidents or windows is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from edge_runtime.contract import checks
from edge_runtime.contract.names import MAX_COHORT_CHARACTERS
from edge_runtime.errors import ContractError
from sync_server.ingest.models import STATUSES
from sync_server.paging import digest_of, whole_number

VIEWS = ("incidents", "windows")
_PARAMETERS = frozenset(
    ("view", "device", "cohort", "status", "signal", "from_ms", "to_ms", "minimum_score", "limit", "cursor")
)


@dataclass(frozen=True, slots=True)
class Filters:
    """What to list; None is no restriction.

    Attributes:
        view: ``incidents`` or ``windows``.
        device: A device's id.
        cohort: A cohort, whole.
        status: ``open``, ``acknowledged`` or ``resolved``; incidents only.
        signal: A signal among the contributions.
        from_ms: At or after. Of windows it is when they were observed, the devices' claim; of incidents when they were
            last seen (``listed_at_ms``), so a long one is found at its end.
        to_ms: Before, of the same moment.
        minimum_score: Least (peak) anomaly score, in [0, 1].
    """

    view: str = "incidents"
    device: str | None = None
    cohort: str | None = None
    status: str | None = None
    signal: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    minimum_score: float | None = None

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Self:
        """Read the parameters of a URL; empty ones are no restriction, as a form sends them.

        Raises:
            ContractError: A parameter that does not exist, or a value out of bounds. A misspelt filter is never
                passed over, because the answer would look like a finding.
        """
        for name in query:
            if name not in _PARAMETERS:
                raise ContractError(
                    f"There is no parameter {name[:40]!r}.", advice=f"Use {', '.join(sorted(_PARAMETERS))}."
                )
        given = {name: value for name, value in query.items() if value != ""}
        view, status = given.get("view", "incidents"), given.get("status")
        if view not in VIEWS:
            raise ContractError("Parameter 'view' must be 'incidents' or 'windows'.")
        if status is not None and (status not in STATUSES or view == "windows"):
            raise ContractError(f"Parameter 'status' must be one of {', '.join(STATUSES)}, for incidents only.")
        return cls(
            view=view,
            device=checks.hex32(given["device"], "device") if "device" in given else None,
            cohort=_text(given, "cohort", MAX_COHORT_CHARACTERS),
            status=status,
            signal=_text(given, "signal", 128),
            from_ms=_moment(given, "from_ms"),
            to_ms=_moment(given, "to_ms"),
            minimum_score=_score(given),
        )

    def parameters(self) -> dict[str, Any]:
        """Return the restrictions that are set, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def digest(self) -> str:
        """Return a short digest that tells these filters from others."""
        return digest_of(asdict(self))


def _text(given: Mapping[str, str], name: str, most: int) -> str | None:
    return checks.text(given[name], name, most=most) if name in given else None


def _moment(given: Mapping[str, str], name: str) -> int | None:
    return whole_number(given[name], name, least=0, most=checks.LATEST_MS) if name in given else None


def _score(given: Mapping[str, str]) -> float | None:
    if "minimum_score" not in given:
        return None
    try:
        return checks.number(float(given["minimum_score"]), "minimum_score", least=0, most=1)
    except ValueError as error:
        raise ContractError("Parameter 'minimum_score' must be a number from 0 to 1.") from error
