"""Small strict readers for values that came from JSON: each returns the typed value or says what is wrong.

``bool`` is never taken for a number, numbers must be finite, and every message names the field.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, cast

from edge_runtime.errors import ContractError

_HEX64 = re.compile(r"[0-9a-f]{64}")
_HEX32 = re.compile(r"[0-9a-f]{32}")
_UNUSABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")

# One for all calls: a server asks for the digests of thousands of records a second. What is no dict is one of another
# make, such as a read-only view.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=dict)

_NUMBERS = (int, float)  # written out, int | float would be put together anew at each call

# 9999-12-31T23:59:59Z in milliseconds: past it neither Python nor Postgres can show a date.
LATEST_MS = 253_402_300_799_000


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """Read one JSON object from bytes.

    Args:
        data: UTF-8 JSON.
        what: Name of the document, for the error.

    Returns:
        The object.

    Raises:
        ContractError: Not UTF-8, not JSON, not an object, a repeated key, or NaN/Infinity literals.
    """
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_unique)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ContractError(f"{what} is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise ContractError(f"{what} is not a JSON object.")
    return cast("dict[str, Any]", value)


def canonical(value: object) -> bytes:
    """Return JSON bytes that do not depend on the order of keys: sorted, no spaces, UTF-8; a tuple is a list.

    Raises:
        ValueError: The value holds NaN or an infinity.
    """
    return _CANONICAL.encode(value).encode()


def get(mapping: Mapping[str, Any], field: str) -> Any:
    """Return a field that must be there.

    Raises:
        ContractError: The field is missing.
    """
    if field not in mapping:
        raise ContractError(f"Field {field!r} is missing.", field=field)
    return mapping[field]


def text(value: object, field: str, *, most: int = 256) -> str:
    """Return a string of at most ``most`` characters without control characters and lone surrogates.

    JSON can spell half of a surrogate pair (U+D800 alone), which no UTF-8 and no database can hold.

    Raises:
        ContractError: Another type, too long, or such characters inside.
    """
    if not isinstance(value, str) or len(value) > most or _UNUSABLE.search(value):
        raise ContractError(f"Field {field!r} must be text of at most {most} characters.", field=field)
    return value


def integer(value: object, field: str, *, least: int = 0, most: int = 2**53 - 1) -> int:
    """Return a whole number within bounds; the default upper bound is what JavaScript holds exactly.

    Raises:
        ContractError: Another type (``True`` and ``1.0`` included) or out of bounds.
    """
    if type(value) is not int or not least <= value <= most:
        raise ContractError(f"Field {field!r} must be a whole number from {least} to {most}.", field=field)
    return value


def moment(value: object, field: str) -> int:
    """Return a time in UTC epoch milliseconds, between 1970 and 9999.

    Raises:
        ContractError: Another type or out of bounds.
    """
    return integer(value, field, least=0, most=LATEST_MS)


def number(value: object, field: str, *, least: float = -math.inf, most: float = math.inf) -> float:
    """Return a finite number within bounds, as float.

    Raises:
        ContractError: Another type, not finite, or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, _NUMBERS):
        raise ContractError(f"Field {field!r} must be a number.", field=field)
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result) or not least <= result <= most:
        raise ContractError(f"Field {field!r} must be a finite number from {least} to {most}.", field=field)
    return result


def flag(value: object, field: str) -> bool:
    """Return a boolean.

    Raises:
        ContractError: Another type.
    """
    if not isinstance(value, bool):
        raise ContractError(f"Field {field!r} must be true or false.", field=field)
    return value


def array(value: object, field: str, *, most: int) -> list[Any]:
    """Return a list of at most ``most`` items.

    Raises:
        ContractError: Another type or too many items.
    """
    if not isinstance(value, list) or len(value) > most:
        raise ContractError(f"Field {field!r} must be a list of at most {most} items.", field=field)
    return value


def table(value: object, field: str) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        ContractError: Another type.
    """
    if not isinstance(value, dict):
        raise ContractError(f"Field {field!r} must be an object.", field=field)
    return value


def hex64(value: object, field: str) -> str:
    """Return a SHA-256 digest in 64 lower-case hex digits.

    Raises:
        ContractError: Anything else.
    """
    if not isinstance(value, str) or not _HEX64.fullmatch(value):
        raise ContractError(f"Field {field!r} must be a SHA-256 digest in 64 lower-case hex digits.", field=field)
    return value


def hex32(value: object, field: str) -> str:
    """Return a 128-bit id in 32 lower-case hex digits.

    Raises:
        ContractError: Anything else.
    """
    if not isinstance(value, str) or not _HEX32.fullmatch(value):
        raise ContractError(f"Field {field!r} must be 32 lower-case hex digits.", field=field)
    return value


def _no_constant(literal: str) -> object:
    raise ValueError(f"{literal} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice")
    return result
