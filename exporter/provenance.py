"""provenance.json: what a bundle was made from, so that somebody can make it again.

No clock is read here. ``created`` appears only when the caller gives it (``--created`` or ``SOURCE_DATE_EPOCH``,
https://reproducible-builds.org/specs/source-date-epoch/); otherwise equal inputs give equal bytes on any day.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

LIBRARIES = ("numpy", "onnx", "onnxruntime", "pandas", "pyarrow", "scikit-learn", "skl2onnx")
DISTRIBUTION = "stella-edge"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model comes from.

    Attributes:
        data_digest: SHA-256 in hex over the readings and labels that were used.
        readings: Readings used.
        devices: Counts by ``trained`` and ``held_out``.
        settings: All of model.toml, defaults filled in.
        created: When, given by the caller, or None.
        source: Version control revision of the settings and data, given by the caller, or None.
    """

    data_digest: str
    readings: int
    devices: Mapping[str, int]
    settings: Mapping[str, Any]
    created: datetime | None = None
    source: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the provenance as one JSON-ready object, code and library versions of this process included."""
        value: dict[str, Any] = {
            "format": 1,
            "data": {"sha256": self.data_digest, "readings": self.readings, "devices": dict(self.devices)},
            "settings": dict(self.settings),
            "code": {"name": DISTRIBUTION, "version": metadata.version(DISTRIBUTION)},
            "python": platform.python_version(),
            "libraries": {name: metadata.version(name) for name in LIBRARIES},
        }
        if self.created is not None:
            value["created"] = self.created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if self.source is not None:
            value["source"] = self.source
        return value


def readable_json(value: object) -> bytes:
    """Return JSON for people that does not depend on the order of keys: sorted, indented, UTF-8.

    Raises:
        ValueError: The value holds NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
