"""Strict reading of TOML tables: every value is taken by name, and what nobody took is refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from edge_runtime.contract.names import check_name
from edge_runtime.errors import ContractError
from exporter.errors import SpecError, did_you_mean

_MISSING: Any = object()
_Choice = TypeVar("_Choice", bound=str)


class Table:
    """One table of the file, with typed methods that take values and a ``close`` that refuses unknown keys.

    Every method raises ``SpecError`` with the file and the key when a value is missing, of another type or out of
    bounds.

    Args:
        value: The parsed table.
        source: Name of the file, for messages.
        path: Name of the table, empty for the root.
    """

    def __init__(self, value: Mapping[str, Any], source: str, path: str) -> None:
        self._rest = dict(value)
        self._source = source
        self._path = path
        self._known: set[str] = set()

    def refuse(self, key: str, what: str, advice: str = "") -> SpecError:
        """Return the error for a key: ``what`` follows its name."""
        name = f"{self._path}.{key}" if self._path else key
        return SpecError(f"{self._source}: {name} {what}.", advice=advice, path=self._source, key=name)

    def close(self) -> None:
        """Refuse what nobody took.

        Raises:
            SpecError: A key is unknown.
        """
        for key in self._rest:
            raise self.refuse(key, "is not a setting", did_you_mean(key, self._known))

    def take(self, key: str, default: Any = _MISSING) -> Any:
        """Take a value of any type, or the default when it is absent."""
        self._known.add(key)
        value = self._rest.pop(key, default)
        if value is _MISSING:
            raise self.refuse(key, "is missing")
        return value

    def table(self, key: str) -> Table:
        """Take a table; an absent one is empty."""
        value = self.take(key, {})
        if not isinstance(value, dict):
            raise self.refuse(key, "must be a table")
        return Table(value, self._source, key)

    def tables(self, key: str) -> list[Table]:
        """Take a list of tables (``[[key]]``); an absent one is empty."""
        value = self.take(key, [])
        path = f"{self._path}.{key}" if self._path else key
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.refuse(key, f"must be tables, each begun with [[{path}]]")
        return [Table(item, self._source, f"{path}[{number}]") for number, item in enumerate(value)]

    def values(self, key: str) -> dict[str, Any]:
        """Take a table of values that somebody else checks; an absent one is empty."""
        value = self.take(key, {})
        if not isinstance(value, dict):
            raise self.refuse(key, "must be a table")
        return value

    def text(self, key: str, default: str = _MISSING) -> str:
        """Take a text that is not empty."""
        value = self.take(key, default)
        if not isinstance(value, str) or not value:
            raise self.refuse(key, "must be text that is not empty")
        return value

    def optional_text(self, key: str) -> str | None:
        """Take a text, or None when it is absent or empty."""
        value = self.take(key, "")
        if not isinstance(value, str):
            raise self.refuse(key, "must be text")
        return value or None

    def name(self, key: str) -> str:
        """Take a name that may travel in paths and URLs (contract, Names)."""
        return self.check_name(key, self.text(key))

    def check_name(self, key: str, value: str) -> str:
        """Return a name that follows the contract's rule."""
        try:
            return check_name(key, value)
        except ContractError as error:
            raise self.refuse(key, f"is {value!r}, which is no name", error.advice) from error

    def texts(self, key: str, default: tuple[str, ...] = _MISSING) -> tuple[str, ...]:
        """Take a list of texts."""
        value = self.take(key, default)
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
            raise self.refuse(key, "must be a list of texts")
        return tuple(value)

    def lists_of_texts(self, key: str, default: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
        """Take a list of lists of texts; none of them is empty."""
        value = self.take(key, default)
        if not isinstance(value, list | tuple) or not value:
            raise self.refuse(key, "must be a list of lists of texts")
        for texts in value:
            if not isinstance(texts, list | tuple) or not texts or not all(isinstance(t, str) and t for t in texts):
                raise self.refuse(key, "must be a list of lists of texts")
        return tuple(tuple(texts) for texts in value)

    def flags(self, key: str, default: tuple[bool, ...]) -> tuple[bool, ...]:
        """Take a list of true and false, at least one of them."""
        value = self.take(key, default)
        if not isinstance(value, list | tuple) or not value or not all(isinstance(item, bool) for item in value):
            raise self.refuse(key, "must be a list of true and false")
        return tuple(value)

    def text_by_name(self, key: str, *, known: tuple[str, ...]) -> dict[str, str]:
        """Take a table of texts whose keys are among ``known``."""
        value = self.take(key, {})
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise self.refuse(key, "must be a table of texts")
        for name in value:
            if name not in known:
                raise self.refuse(f"{key}.{name}", "is no signal", did_you_mean(name, known))
        return value

    def number(self, key: str, default: float = _MISSING, *, least: float = 0.0, most: float = math.inf) -> float:
        """Take a finite number within bounds."""
        value = self.take(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.refuse(key, "must be a number")
        if not least <= value <= most:
            bounds = f"from {least:g} to {most:g}" if math.isfinite(most) else f"at least {least:g}"
            raise self.refuse(key, f"is {value:g} and must be {bounds}")
        return float(value)

    def optional_number(self, key: str, *, least: float = 0.0, most: float = math.inf) -> float | None:
        """Take a finite number within bounds, or None when it is absent."""
        return self.number(key, least=least, most=most) if key in self._rest else self.take(key, None)

    def integer(self, key: str, default: int = _MISSING, *, least: int, most: int) -> int:
        """Take a whole number within bounds."""
        value = self.number(key, default, least=least, most=most)
        if value != int(value):
            raise self.refuse(key, f"is {value:g} and must be a whole number")
        return int(value)

    def integers(self, key: str, default: tuple[int, ...], *, least: int, most: int) -> tuple[int, ...]:
        """Return a list of whole numbers within bounds."""
        value = self.take(key, default)
        if not isinstance(value, list | tuple) or not all(
            type(item) is int and least <= item <= most for item in value
        ):
            raise self.refuse(key, f"must be a list of whole numbers from {least} to {most}")
        return tuple(value)

    def optional_integer(self, key: str, *, least: int, most: int) -> int | None:
        """Take a whole number within bounds, or None when it is absent."""
        return self.integer(key, least=least, most=most) if key in self._rest else self.take(key, None)

    def choice(self, key: str, among: tuple[_Choice, ...], default: _Choice) -> _Choice:
        """Take one of a few words."""
        value = self.take(key, default)
        for word in among:
            if value == word:
                return word
        raise self.refuse(key, f"is {value!r}", did_you_mean(str(value), among))

    def choice_of_numbers(self, key: str, among: tuple[int, ...], default: int) -> int:
        """Take one of a few whole numbers."""
        value = self.take(key, default)
        if isinstance(value, bool) or value not in among:
            raise self.refuse(key, f"is {value!r}", f"There are: {', '.join(map(str, among))}.")
        return int(value)

    def flag(self, key: str, default: bool) -> bool:
        """Take true or false."""
        value = self.take(key, default)
        if not isinstance(value, bool):
            raise self.refuse(key, "must be true or false")
        return value
