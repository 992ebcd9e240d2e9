"""What a list of incidents or windows is asked for, and where its next page begins.

A page begins behind a key (time, id), never at an offset: rows that arrive while somebody reads shift nothing, and the
thousandth page costs what the first does. The cursor is opaque text that holds this key and a digest of the
filters; with other filters it is refused. It is not secret and grants nothing, so it is checked, not signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from edge_runtime.contract import checks
from edge_runtime.contract.names import MAX_COHORT_CHARACTERS
from edge_runtime.errors import ContractError
from sync_server.ingest.models import STATUSES

VIEWS = ("incidents", "windows")
DEFAULT_LIMIT = 50
MAX_LIMIT = 500
_PARAMETERS = frozenset(
    ("view", "device", "cohort", "status", "signal", "from_ms", "to_ms", "minimum_score", "limit", "cursor")
)

Key = tuple[int, int]
"""Time in milliseconds and id of the last row of a page."""


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
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def read_limit(query: Mapping[str, str]) -> int:
    """Return the page length.

    Raises:
        ContractError: It is no number from 1 to 500.
    """
    return whole_number(query.get("limit") or str(DEFAULT_LIMIT), "limit", least=1, most=MAX_LIMIT)


def encode_cursor(filters: Filters, key: Key) -> str:
    """Return the text that asks for the page behind a key."""
    return base64.urlsafe_b64encode(json.dumps([*key, filters.digest()]).encode()).decode().rstrip("=")


def decode_cursor(filters: Filters, cursor: str) -> Key | None:
    """Return the key behind which a page begins, None for the first page.

    Raises:
        ContractError: The text is no cursor of these filters.
    """
    if not cursor:
        return None
    try:
        value = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)))
        moment, number, digest = checks.array(value, "cursor", most=3)
        key = (checks.integer(moment, "cursor"), checks.integer(number, "cursor"))
    except (ValueError, binascii.Error, ContractError, RecursionError):
        digest, key = None, (0, 0)
    if digest != filters.digest():
        raise ContractError("The cursor does not belong to this list.", advice="Begin again without a cursor.")
    return key


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


def whole_number(content: str, name: str, *, least: int, most: int) -> int:
    """Read a parameter of a URL that is a whole number.

    Raises:
        ContractError: It is none, or out of bounds.
    """
    # isascii, because int() reads other digits, too, and a length, because it is slow on long ones.
    if not (content.isascii() and content.isdigit() and len(content) <= 16):
        raise ContractError(f"Parameter {name!r} must be a whole number from {least} to {most}.")
    return checks.integer(int(content), name, least=least, most=most)
