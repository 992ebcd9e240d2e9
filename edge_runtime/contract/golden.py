"""Golden windows: inputs with the outputs expected of them, carried in every bundle.

``golden.json`` names tensors, shapes and tolerances; ``golden.f32`` holds them one after the other as little-endian
float32 in C order: ``window`` [n, W, S], ``anomaly_score`` [n, 1], ``raw_score`` [n, 1], ``is_anomaly`` [n, 1] as 0/1.
They pass when raw scores agree within the tolerance and verdicts are equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_runtime.contract import checks
from edge_runtime.errors import ContractError

FORMAT = 1
OUTPUTS = ("anomaly_score", "raw_score", "is_anomaly")
RAW_TOLERANCE = 1e-5
MAX_WINDOWS = 1024


@dataclass(frozen=True, slots=True)
class GoldenTensor:
    """One tensor in ``golden.f32``.

    Attributes:
        name: ``window`` or an output's name.
        shape: Its shape.
        offset: Byte offset in the file.
    """

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """Bytes of the tensor."""
        return 4 * math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class GoldenSpec:
    """What ``golden.json`` says.

    Attributes:
        windows: n, the number of golden windows.
        slots: W.
        signals: S.
        raw_tolerance: Largest raw score difference that passes.
    """

    windows: int
    slots: int
    signals: int
    raw_tolerance: float = RAW_TOLERANCE

    @property
    def tensors(self) -> tuple[GoldenTensor, ...]:
        """The tensors in file order."""
        first = GoldenTensor("window", (self.windows, self.slots, self.signals), 0)
        outputs = (
            GoldenTensor(name, (self.windows, 1), first.size + 4 * self.windows * i) for i, name in enumerate(OUTPUTS)
        )
        return (first, *outputs)

    @property
    def size(self) -> int:
        """Bytes of ``golden.f32``."""
        return sum(tensor.size for tensor in self.tensors)

    def to_bytes(self) -> bytes:
        """Return ``golden.json``."""
        return checks.canonical(
            {
                "format": FORMAT,
                "tensors": [{"name": tensor.name, "shape": list(tensor.shape)} for tensor in self.tensors],
                "tolerance": {"raw_score": self.raw_tolerance},
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> GoldenSpec:
        """Read ``golden.json``.

        Raises:
            ContractError: Another format, other tensors, or values out of bounds.
        """
        value = checks.parse_object(data, "golden.json")
        if checks.get(value, "format") != FORMAT:
            raise ContractError("golden.json has a format that this program does not read.", advice="Update it.")
        tensors = [
            checks.table(item, "tensors") for item in checks.array(checks.get(value, "tensors"), "tensors", most=4)
        ]
        shape = _shape(tensors[0]) if tensors else ()
        tolerance = checks.table(checks.get(value, "tolerance"), "tolerance")
        if len(shape) != 3:
            raise ContractError("golden.json does not begin with a tensor 'window' [n, W, S].")
        raw = checks.number(checks.get(tolerance, "raw_score"), "raw_score", least=0, most=1e-2)
        spec = cls(shape[0], shape[1], shape[2], raw)
        if [(item.get("name"), _shape(item)) for item in tensors] != [(t.name, t.shape) for t in spec.tensors]:
            raise ContractError("golden.json names other tensors than this format has.")
        return spec


def _shape(tensor: Mapping[str, Any]) -> tuple[int, ...]:
    dimensions = checks.array(checks.get(tensor, "shape"), "shape", most=3)
    return tuple(checks.integer(item, "shape", least=1, most=max(MAX_WINDOWS, 4096)) for item in dimensions)
