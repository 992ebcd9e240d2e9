"""What incidents have in common: cohort, the signals that stand out and how, severity band, release.

A pattern holds nothing that a device wrote: names and units come from the signed manifest of the bundle, the rest is
numbers put into bands. So a text for it may be shown for every incident like it, and a prompt made of it carries no
words of an attacker.

A contribution is the share of the raw score that goes away when the signal is taken from healthy windows. Its sign says
whether the signal makes the window more or less anomalous; whether its value is high or low is not in the record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from edge_runtime.contract.checks import canonical
from edge_runtime.contract.manifest import Manifest
from edge_runtime.errors import ContractError

CONTEXT = "context"
MAX_SIGNALS = 3
# Signals below this share of all contributions come and go between incidents of one cause.
LEAST_SHARE = 0.1
# Up to .999 an anomaly score is the share of healthy windows below it, above that an order (contract, Calibration).
BANDS: tuple[tuple[float, Band], ...] = ((0.9999, "extreme"), (0.999, "clear"), (0.0, "slight"))
Band = Literal["slight", "clear", "extreme"]
Direction = Literal["raises", "lowers"]


@dataclass(frozen=True, slots=True)
class Part:
    """One signal of a pattern.

    Attributes:
        name: As the manifest names it, or ``context`` for all context signals together.
        unit: As the manifest has it, may be empty.
        direction: Whether it makes the window more anomalous or less.
    """

    name: str
    unit: str
    direction: Direction


@dataclass(frozen=True, slots=True)
class Pattern:
    """What incidents have in common.

    Attributes:
        model: The model.
        release: Its release number.
        cohort: The cohort that the bundle was trained for, None for all devices.
        band: How far from healthy the worst window is.
        parts: The signal that stands out most, then up to two others by name.
    """

    model: str
    release: int
    cohort: str | None
    band: Band
    parts: tuple[Part, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the pattern as JSON-ready fields."""
        return asdict(self)

    def key(self, writer: str) -> str:
        """Return the digest under which a text for this pattern is kept.

        Args:
            writer: Who writes, and to which prompt: another one writes other texts.
        """
        return hashlib.sha256(canonical({"writer": writer, **self.to_dict()})).hexdigest()


@dataclass(frozen=True, slots=True)
class Finding:
    """What an incident's record says, as far as the signed manifest vouches for the names.

    Attributes:
        pattern: What it has in common with others.
        shares: Signed share of all contributions by signal, largest magnitude first.
        units: Unit by signal.
        peak_score: Highest anomaly score.
        threshold: The anomaly score from which windows are anomalies.
        windows: Anomalous windows.
        is_over: Whether the device said that it ended.
    """

    pattern: Pattern
    shares: Mapping[str, float]
    units: Mapping[str, str]
    peak_score: float
    threshold: float
    windows: int
    is_over: bool


def find(incident: Mapping[str, Any], manifest: Mapping[str, Any] | None) -> Finding | None:
    """Return what an incident's record says, None when nothing signed tells what its signals are.

    Args:
        incident: A row with ``contributions``, ``peak_score``, ``windows`` and ``ended_at_ms``.
        manifest: The manifest of its bundle as it was published, None when the server does not know the bundle.
    """
    if manifest is None or incident["peak_score"] is None:
        return None
    try:
        known = Manifest.from_dict(manifest)
    except ContractError:
        return None
    units = {signal.name: signal.unit for signal in known.signals if signal.role == "signal"}
    if known.context_columns:
        units[CONTEXT] = ""
    shares = _shares(incident["contributions"], units)
    pattern = Pattern(
        known.model, known.release_number, known.cohort, band_of(incident["peak_score"]), _parts(shares, units)
    )
    return Finding(
        pattern, shares, units, incident["peak_score"], known.threshold.anomaly_score, incident["windows"],
        incident["ended_at_ms"] is not None,
    )  # fmt: skip


def band_of(peak_score: float) -> Band:
    """Return the severity band of an anomaly score."""
    return next(band for least, band in BANDS if peak_score >= least)


def _shares(contributions: Sequence[Sequence[Any]], units: Mapping[str, str]) -> dict[str, float]:
    """Return each known signal's signed share of all contributions, largest magnitude first."""
    known = [(name, float(value)) for name, value in contributions if name in units]
    total = sum(abs(value) for _, value in known)
    if total == 0:
        return {}
    ordered = sorted(known, key=lambda pair: -abs(pair[1]))
    return {name: value / total for name, value in ordered}


def _parts(shares: Mapping[str, float], units: Mapping[str, str]) -> tuple[Part, ...]:
    standing_out = [name for name, share in shares.items() if abs(share) >= LEAST_SHARE][:MAX_SIGNALS]
    # Which of the others comes second changes from window to window, and is no pattern of its own.
    ordered = [*standing_out[:1], *sorted(standing_out[1:])]
    return tuple(Part(name, units[name], "raises" if shares[name] > 0 else "lowers") for name in ordered)
