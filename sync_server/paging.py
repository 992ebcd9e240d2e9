"""Lists a page at a time, the same way everywhere.

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
from typing import Any, Protocol

from edge_runtime.contract import checks
from edge_runtime.errors import ContractError

DEFAULT_LIMIT = 50
MAX_LIMIT = 500

Key = tuple[int, int]
"""Time (in the list's own unit) and id of the last row of a page."""


class Digested(Protocol):
    """Filters of a list."""

    def digest(self) -> str:
        """Return a short digest that tells these filters from others."""


def digest_of(filters: Mapping[str, Any]) -> str:
    """Return a short digest of JSON-ready filters."""
    return hashlib.sha256(json.dumps(filters, sort_keys=True).encode()).hexdigest()[:16]


def read_limit(query: Mapping[str, str]) -> int:
    """Return the page length.

    Raises:
        ContractError: It is no number from 1 to 500.
    """
    return whole_number(query.get("limit") or str(DEFAULT_LIMIT), "limit", least=1, most=MAX_LIMIT)


def encode_cursor(filters: Digested, key: Key) -> str:
    """Return the text that asks for the page behind a key."""
    return base64.urlsafe_b64encode(json.dumps([*key, filters.digest()]).encode()).decode().rstrip("=")


def decode_cursor(filters: Digested, cursor: str) -> Key | None:
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


def whole_number(content: str, name: str, *, least: int, most: int) -> int:
    """Read a parameter of a URL that is a whole number.

    Raises:
        ContractError: It is none, or out of bounds.
    """
    # isascii, because int() reads other digits, too, and a length, because it is slow on long ones.
    if not (content.isascii() and content.isdigit() and len(content) <= 16):
        raise ContractError(f"Parameter {name!r} must be a whole number from {least} to {most}.")
    return checks.integer(int(content), name, least=least, most=most)
