"""manifest.json: what a bundle is, and all that a device needs to run it. Unknown fields are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from edge_runtime.contract import checks
from edge_runtime.contract.histogram import BINS
from edge_runtime.contract.names import MAX_COHORT_CHARACTERS, check_name
from edge_runtime.contract.window import WindowRule
from edge_runtime.errors import ContractError

FORMAT = 1
MAX_SIGNALS = 1024
MAX_FEATURES = 16_384
MAX_REGIMES = 16
MAX_REFERENCES = 64

Role = Literal["signal", "context"]
Precision = Literal["fp32", "codebook8", "int8"]


@dataclass(frozen=True, slots=True)
class Signal:
    """One column of a window.

    Attributes:
        name: As the readings name it.
        unit: For people; may be empty.
        role: ``context`` when it says what the device is doing.
    """

    name: str
    unit: str
    role: Role


@dataclass(frozen=True, slots=True)
class Threshold:
    """From which score on a window is an anomaly.

    Attributes:
        anomaly_score: On the calibrated score.
        raw_score: The same on the raw score.
        alarms_per_device_day: Incidents of healthy devices it was chosen for, or None when given directly.
    """

    anomaly_score: float
    raw_score: float
    alarms_per_device_day: float | None


@dataclass(frozen=True, slots=True)
class Regimes:
    """Typical contexts (K of them, over C context signals) and what is normal in each for the S' other signals.

    Attributes:
        centroids: [K][C], in training spreads.
        context_means: [C], in the signal's unit.
        context_spreads: [C], in the signal's unit; a spread of zero counts as 1.
        means: [K][S'] healthy means, in the signal's unit.
        spreads: [K][S'] healthy spreads, in the signal's unit.
    """

    centroids: tuple[tuple[float, ...], ...]
    context_means: tuple[float, ...]
    context_spreads: tuple[float, ...]
    means: tuple[tuple[float, ...], ...]
    spreads: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of the bundle: SHA-256 in hex, and size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest of a bundle.

    Attributes:
        model: The model's name.
        version: A label.
        release_number: What orders releases.
        cohort: The cohort it was trained for, or None for the default bundle.
        precision: ``fp32``, ``codebook8`` (8-bit codes held as float32) or ``int8`` (integer tensors).
        signals: The columns of a window, in order.
        window: The window rule.
        features: Names of the graph's features, in order.
        threshold: From which score on a window is an anomaly.
        incident_gap: Healthy windows that end an incident.
        histogram: 15 counts of the out-of-fold anomaly scores of healthy training windows.
        regimes: What is normal in which context, or None without context signals.
        references: R, the number of healthy windows in ``references.f32`` ([R, W, S] float32, raw values).
        files: Digest and size of every file but ``manifest.json`` and ``model.sig``.
        runtime: What it needs: ``onnxruntime`` (a version bound) and opset numbers by domain.
        below_goals: Goals of the exporter that it misses, as sentences.
        unrecognized: Fields of a later minor format, kept as they are.
    """

    model: str
    version: str
    release_number: int
    cohort: str | None
    precision: Precision
    signals: tuple[Signal, ...]
    window: WindowRule
    features: tuple[str, ...]
    threshold: Threshold
    incident_gap: int
    histogram: tuple[int, ...]
    regimes: Regimes | None
    references: int
    files: Mapping[str, FileEntry]
    runtime: Mapping[str, str | int]
    below_goals: tuple[str, ...] = ()
    unrecognized: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read manifest.json.

        Raises:
            ContractError: Not JSON, a newer format, or a field that is missing or out of bounds.
        """
        return cls.from_dict(checks.parse_object(data, "manifest.json"))

    def to_bytes(self) -> bytes:
        """Return manifest.json, canonical."""
        return checks.canonical(self.to_dict())

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Manifest:
        """Read a parsed manifest.

        Raises:
            ContractError: A newer format, or a field that is missing or out of bounds.
        """
        number = checks.integer(checks.get(value, "format"), "format", least=1)
        if number != FORMAT:
            raise ContractError(
                f"manifest.json has format {number}; this program reads format {FORMAT}.",
                advice="Update Stella Edge here, or publish a bundle of the older format.",
                newer_format=True,
            )
        rest = dict(value)
        del rest["format"]
        get = _Taker(rest)
        cohort, regimes = get("cohort"), get("regimes")
        signals = tuple(_signal(item) for item in checks.array(get("signals"), "signals", most=MAX_SIGNALS))
        manifest = cls(
            model=check_name("model", get("model")),
            version=check_name("version", get("version")),
            release_number=checks.integer(get("release_number"), "release_number", least=1),
            cohort=None if cohort is None else checks.text(cohort, "cohort", most=MAX_COHORT_CHARACTERS),
            precision=_precision(get("precision")),
            signals=signals,
            window=WindowRule.from_dict(checks.table(get("window"), "window")),
            features=tuple(
                checks.text(name, "features") for name in checks.array(get("features"), "features", most=MAX_FEATURES)
            ),
            threshold=_threshold(checks.table(get("threshold"), "threshold")),
            incident_gap=checks.integer(get("incident_gap"), "incident_gap", least=1, most=10_000),
            histogram=tuple(
                checks.integer(count, "histogram") for count in checks.array(get("histogram"), "histogram", most=BINS)
            ),
            regimes=None if regimes is None else _regimes(checks.table(regimes, "regimes"), signals),
            references=checks.integer(get("references"), "references", least=1, most=MAX_REFERENCES),
            files=_files(checks.table(get("files"), "files")),
            runtime=_runtime(checks.table(get("runtime"), "runtime")),
            below_goals=tuple(
                checks.text(goal, "below_goals", most=512)
                for goal in checks.array(rest.pop("below_goals", []), "below_goals", most=32)
            ),
            unrecognized=rest,
        )
        _check_whole(manifest)
        return manifest

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as JSON-ready fields."""
        return {
            **self.unrecognized,
            "format": FORMAT,
            "model": self.model,
            "version": self.version,
            "release_number": self.release_number,
            "cohort": self.cohort,
            "precision": self.precision,
            "signals": [{"name": s.name, "unit": s.unit, "role": s.role} for s in self.signals],
            "window": self.window.to_dict(),
            "features": list(self.features),
            "threshold": {
                "anomaly_score": self.threshold.anomaly_score,
                "raw_score": self.threshold.raw_score,
                "alarms_per_device_day": self.threshold.alarms_per_device_day,
            },
            "incident_gap": self.incident_gap,
            "histogram": list(self.histogram),
            "regimes": None
            if self.regimes is None
            else {
                "centroids": [list(row) for row in self.regimes.centroids],
                "context_means": list(self.regimes.context_means),
                "context_spreads": list(self.regimes.context_spreads),
                "means": [list(row) for row in self.regimes.means],
                "spreads": [list(row) for row in self.regimes.spreads],
            },
            "references": self.references,
            "files": {name: {"sha256": entry.sha256, "size": entry.size} for name, entry in self.files.items()},
            "runtime": dict(self.runtime),
            "below_goals": list(self.below_goals),
        }

    @property
    def context_columns(self) -> tuple[int, ...]:
        """Columns of the window that are context, in order."""
        return tuple(i for i, signal in enumerate(self.signals) if signal.role == "context")

    @property
    def signal_columns(self) -> tuple[int, ...]:
        """Columns of the window that are not context, in order."""
        return tuple(i for i, signal in enumerate(self.signals) if signal.role == "signal")


class _Taker:
    """Takes required fields out of a mapping, so that what stays is what this format does not know."""

    def __init__(self, rest: dict[str, Any]) -> None:
        self._rest = rest

    def __call__(self, name: str) -> Any:
        value = checks.get(self._rest, name)
        del self._rest[name]
        return value


def _signal(value: object) -> Signal:
    item = checks.table(value, "signals")
    role = checks.get(item, "role")
    if role not in ("signal", "context"):
        raise ContractError("Field 'role' of a signal must be 'signal' or 'context'.")
    return Signal(
        checks.text(checks.get(item, "name"), "name", most=128),
        checks.text(item.get("unit", ""), "unit", most=64),
        cast("Role", role),
    )


def _precision(value: object) -> Precision:
    if value not in ("fp32", "codebook8", "int8"):
        raise ContractError("Field 'precision' must be 'fp32', 'codebook8' or 'int8'.")
    return value


def _threshold(value: Mapping[str, Any]) -> Threshold:
    alarms = value.get("alarms_per_device_day")
    return Threshold(
        checks.number(checks.get(value, "anomaly_score"), "anomaly_score", least=0, most=1),
        checks.number(checks.get(value, "raw_score"), "raw_score"),
        None if alarms is None else checks.number(alarms, "alarms_per_device_day", least=0),
    )


def _numbers(value: object, name: str, length: int) -> tuple[float, ...]:
    result = tuple(checks.number(item, name) for item in checks.array(value, name, most=MAX_SIGNALS))
    if len(result) != length:
        raise ContractError(f"Field {name!r} must hold {length} numbers, not {len(result)}.")
    return result


def _regimes(value: Mapping[str, Any], signals: tuple[Signal, ...]) -> Regimes:
    context = sum(signal.role == "context" for signal in signals)
    others = len(signals) - context
    rows = {
        name: tuple(_numbers(row, name, width) for row in checks.array(checks.get(value, name), name, most=MAX_REGIMES))
        for name, width in (("centroids", context), ("means", others), ("spreads", others))
    }
    if len({len(table) for table in rows.values()}) != 1 or not rows["centroids"]:
        raise ContractError("Field 'regimes' must hold centroids, means and spreads for the same regimes.")
    return Regimes(
        rows["centroids"],
        _numbers(checks.get(value, "context_means"), "context_means", context),
        _numbers(checks.get(value, "context_spreads"), "context_spreads", context),
        rows["means"],
        rows["spreads"],
    )


def _files(value: Mapping[str, Any]) -> dict[str, FileEntry]:
    result = {}
    for name, item in value.items():
        entry = checks.table(item, "files")
        result[checks.text(name, "files", most=64)] = FileEntry(
            checks.hex64(checks.get(entry, "sha256"), "sha256"), checks.integer(checks.get(entry, "size"), "size")
        )
    return result


def _runtime(value: Mapping[str, Any]) -> dict[str, str | int]:
    return {
        checks.text(key, "runtime", most=64): item if type(item) is int else checks.text(item, "runtime", most=64)
        for key, item in value.items()
    }


def _check_whole(manifest: Manifest) -> None:
    names = [signal.name for signal in manifest.signals]
    if not manifest.signal_columns or len(set(names)) != len(names):
        raise ContractError("Field 'signals' must name at least one signal that is not context, and none twice.")
    if len(manifest.histogram) != BINS:
        raise ContractError(f"Field 'histogram' must hold {BINS} counts.")
    if bool(manifest.context_columns) != (manifest.regimes is not None):
        raise ContractError("A manifest has regimes exactly when it has context signals.")
