"""Figures of a build as sheets that a person can read, whatever is in them.

``parity.json`` and the evaluation are nested and grow. Known names get a plain label and a unit; unknown ones are
shown all the same, with their name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# A list longer than this is data, not a figure.
MOST_LISTED = 8
# So many names in common make two groups of figures comparable, and columns of one sheet.
_ALIKE = 2
MISSING = "–"


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table with a title.

    Attributes:
        title: What it is about; empty for the main one.
        head: Names of the columns; the first column holds the names of the figures.
        rows: A text for each column.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def sheets(figures: Mapping[str, Any], this: str = "value") -> list[Sheet]:
    """Lay nested figures out.

    A group that holds the same figures as its surroundings (a baseline) becomes a column beside them; groups that are
    alike (the forms of a model) become the columns of one sheet; any other group gets a sheet of its own.

    Args:
        figures: JSON-ready figures.
        this: Name of the column of the figures themselves.

    Returns:
        The main sheet first; none when there is no figure.
    """
    plain = {key for key, value in figures.items() if not isinstance(value, Mapping)}
    # Sorted, here and below, so that figures that went through JSON make the same card.
    peers = {key: value for key, value in sorted(_groups(figures).items()) if len(plain & set(value)) >= _ALIKE}
    own = {key: value for key, value in figures.items() if key not in peers}
    return _laid_out({this: own} | {label(key): value for key, value in peers.items()}, "")


def _laid_out(columns: Mapping[str, Mapping[str, Any]], title: str) -> list[Sheet]:
    """Return the sheets of groups that stand side by side, and of the groups within them."""
    inner = {key: None for column in columns.values() for key in _groups(column)}
    small = {key for key in inner if all(_is_small(column.get(key)) for column in columns.values())}
    shown = {
        name: dict(flatten({key: value for key, value in column.items() if key not in inner or key in small}))
        for name, column in columns.items()
    }
    found = [_sheet(title, shown)] if any(shown.values()) else []
    large = sorted(key for key in inner if key not in small)
    if len(columns) == 1:
        (column,) = columns.values()
        alike = _alike({key: column[key] for key in large})
        if alike:
            found += _laid_out({label(key): column[key] for key in alike}, title)
        large = [key for key in large if key not in alike]
    for key in large:
        parts = {name: column[key] for name, column in columns.items() if column.get(key)}
        found += _laid_out(parts, ": ".join(part for part in (title, label(key)) if part))
    return found


def _groups(figures: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {key: value for key, value in figures.items() if isinstance(value, Mapping) and value}


def _is_small(group: Any) -> bool:
    """Say whether a group is one line at most: a sheet of its own would be more title than figures."""
    return not isinstance(group, Mapping) or (len(group) < _ALIKE and not _groups(group))


def _alike(groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the names of groups that share most of their figures with another one."""
    return [
        key
        for key, one in groups.items()
        if any(2 * len(set(one) & set(other)) > len(one) for name, other in groups.items() if name != key)
    ]


def flatten(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested figures as (name, text) rows: plain ones first, then groups, each by name; long lists as lengths.

    Args:
        value: JSON-ready figures.
        prefix: What the names of this level begin with.
    """
    rows: list[tuple[str, str]] = []
    for key, item in sorted(value.items(), key=lambda entry: (isinstance(entry[1], Mapping), entry[0])):
        name = f"{prefix}{label(key)}"
        if isinstance(item, Mapping):
            rows += flatten(item, f"{name}: ")
        elif isinstance(item, list | tuple):
            rows.append((name, _listed(item)))
        elif item is not None:
            rows.append((name, text(item, key)))
    return rows


def label(key: str) -> str:
    """Return what people call a figure."""
    return _KNOWN[key][0] if key in _KNOWN else key.replace("_", " ")


def text(value: object, key: str = "") -> str:
    """Write one value, in the unit of its name where that is known."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key in _KNOWN and isinstance(value, int | float):
        return _KNOWN[key][1](value)
    return _number(value) if isinstance(value, int | float) else str(value)


def _sheet(title: str, columns: Mapping[str, Mapping[str, str]]) -> Sheet:
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = tuple((name, *(column.get(name, MISSING) for column in columns.values())) for name in names)
    return Sheet(title, ("figure", *columns), rows)


def _listed(items: Iterable[Any]) -> str:
    items = list(items)
    if not items:
        return "none"
    return ", ".join(map(text, items)) if len(items) <= MOST_LISTED else f"{len(items)} values"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _share(value: float) -> str:
    return f"{value:.3%}" if 0 < abs(value) < 0.01 else f"{value:.1%}"


def _figure(value: float) -> str:
    return f"{value:.4f}"


def _bytes(value: float) -> str:
    return f"{value:,.0f} bytes"


def _precise(value: float) -> str:
    return f"{value:.6f}"


_KNOWN: dict[str, tuple[str, Callable[[float], str]]] = {
    "about": ("what it is", _number),
    "auc": ("AUC", _figure),
    "auc_by_cohort": ("AUC by cohort", _figure),
    "auc_change": ("AUC against the trained model", lambda value: f"{value:+.4f}"),
    "auc_loss": ("largest loss of AUC", _figure),
    "auc_raw_score": ("AUC of the raw score", _figure),
    "average_precision": ("average precision", _figure),
    "baseline": ("single readings", _number),
    "bytes": ("size on disk", _bytes),
    "bytes_deflated": ("size in the bundle", _bytes),
    "candidates": ("forms that were tried", _number),
    "chosen": ("shipped form", _number),
    "device_days": ("device-days watched", _number),
    "devices": ("devices", _number),
    "devices_without_alarm": ("devices without any", _number),
    "faulty_devices": ("faulty devices", _number),
    "faulty_devices_caught": ("faulty devices caught", _number),
    "faulty_devices_caught_share": ("share of faulty devices caught", _share),
    "float_nodes": ("operators that stayed float", _number),
    "goals": ("goals", _number),
    "healthy_alarms_per_device_day": ("false alarms per healthy device and day", _number),
    "held_out": ("held-out devices", _number),
    "incidents": ("incidents", _number),
    "label_flip_share": ("share of other verdicts", _share),
    "label_flips": ("other verdicts", _number),
    "max": ("worst device", _number),
    "max_raw_difference": ("largest difference of raw scores", _number),
    "mean_raw_difference": ("mean difference of raw scores", _number),
    "median": ("median device", _number),
    "median_hours_after_onset": ("hours from onset to alarm, median", _number),
    "median_hours_early": ("hours from alarm to the fault's end, median", _number),
    "median_readings_early": ("readings from alarm to the fault's end, median", _number),
    "missed": ("goals missed", _number),
    "p90": ("nine in ten devices at most", _number),
    "raw_difference": ("largest difference of raw scores", _number),
    "reason": ("why this one", _number),
    "sets": ("by data set", _number),
    "slots": ("readings in a window", _number),
    "spearman": ("rank correlation with the trained model", _precise),
    "spearman_loss": ("largest loss of rank correlation", _number),
    "windows": ("windows", _number),
}
