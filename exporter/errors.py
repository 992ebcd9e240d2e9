"""What the exporter adds to the tree of ``edge_runtime.errors``.

::

    StellaError
    ├── InputError
    │   ├── SpecError          model.toml cannot be used                      exit 3
    │   └── TelemetryError     readings or labels cannot be used              exit 3
    ├── ConversionError        a trained model that cannot become a graph     exit 7
    └── GoalsMissedError       trained, but below a goal that was required    exit 8
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from edge_runtime.errors import InputError, StellaError


class SpecError(InputError):
    """A ``model.toml`` with a missing, unknown or impossible setting."""

    code = "spec"


class TelemetryError(InputError):
    """Readings or labels that cannot be used: not a table, empty, a column that is not there, too many bad rows."""

    code = "telemetry"


class ConversionError(StellaError):
    """A trained model that cannot become an ONNX graph, or whose graph does not score as the model does."""

    exit_code = 7
    code = "conversion"


class GoalsMissedError(StellaError):
    """A model that was trained, but is below a goal, where goals were required."""

    exit_code = 8
    code = "goals"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return advice that names the closest known name, or all of them when none is close.

    Args:
        name: What was written.
        known: What would have been right.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not close:  # a wrong case or prefix is a misspelling too, and difflib alone misses short ones
        close = [known_name for known_name in names if known_name.lower() == name.lower()]
    if close:
        return f"Did you mean {close[0]!r}?"
    shown = ", ".join(names[:40]) + (" ..." if len(names) > 40 else "")
    return f"There are: {shown}."
