"""Whether the metadata a device verified last has expired: what marks results ``stale``, without loading TUF.

Example::

    stale = is_stale(home.trust, clock_ms)
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

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
    expiry = expires_ms(trust)
    return expiry is None or expiry <= clock_ms
