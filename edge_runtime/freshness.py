"""Whether the metadata a device verified last has expired: what marks results ``stale``, without loading TUF.

Example::

    freshness = Freshness(home.trust)
    stale = freshness.is_stale(clock_ms)        # as often as one likes
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from edge_runtime.files import generation

METADATA_FOLDER = "metadata"
_ROLES = ("timestamp", "snapshot", "targets", "root")


def expires_ms(trust: Path) -> int | None:
    """Return when the earliest of the four roles verified last expires.

    The files are read as they lie there: nothing is trusted because of this figure, it is only shown and reported.

    Args:
        trust: The home's trust folder.

    Returns:
        UTC epoch milliseconds, or None when a role is missing or cannot be read.
    """
    moments = []
    for role in _ROLES:
        try:
            fields = json.loads((trust / METADATA_FOLDER / f"{role}.json").read_bytes())
            moment = datetime.fromisoformat(fields["signed"]["expires"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        moments.append(int(moment.astimezone(UTC).timestamp() * 1000))
    return min(moments)


def is_stale(trust: Path, clock_ms: int) -> bool:
    """Say whether results made now must be marked ``stale``.

    Args:
        trust: The home's trust folder.
        clock_ms: The device's clock, UTC epoch milliseconds.

    Returns:
        True when some verified metadata has expired, or none can be read.
    """
    return Freshness(trust).is_stale(clock_ms)


class Freshness:
    """The same for a process that goes on for long: the files are read again only when a sync has changed them.

    Args:
        trust: The home's trust folder.
    """

    def __init__(self, trust: Path) -> None:
        self._trust = trust
        self._seen: list[tuple[int, int] | None] | None = None
        self._expires_ms: int | None = None

    def is_stale(self, clock_ms: int) -> bool:
        """Say whether results made now must be marked ``stale``; see the function of this name."""
        there = [generation(self._trust / METADATA_FOLDER / f"{role}.json") for role in _ROLES]
        if there != self._seen:
            self._seen, self._expires_ms = there, expires_ms(self._trust)
        return self._expires_ms is None or self._expires_ms <= clock_ms
