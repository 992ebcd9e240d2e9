"""Small, real, signed bundles: a graph that onnxruntime runs, golden windows it passes, a signature that verifies."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from onnx import TensorProto, helper, numpy_helper

from edge_runtime.contract import signature
from edge_runtime.contract.archive import pack
from edge_runtime.contract.bundle import REQUIRED_FILES
from edge_runtime.contract.golden import GoldenSpec
from edge_runtime.contract.histogram import BINS
from edge_runtime.contract.manifest import FileEntry, Manifest, Signal, Threshold
from edge_runtime.contract.names import target_path
from edge_runtime.contract.release import TargetCustom
from edge_runtime.contract.window import WindowRule

GOLDEN_WINDOWS = 4
REFERENCES = 2


@cache
def signing_key() -> ec.EllipticCurvePrivateKey:
    """The release key of every test bundle that names no other."""
    return ec.generate_private_key(ec.SECP256R1())


@cache
def small_graph(slots: int, signals: int, bias: float, threshold: float) -> bytes:
    """Raw score: |mean of the window, missing as 0| + bias. Anomaly score: raw / (1 + raw)."""
    nodes = [
        helper.make_node("IsNaN", ["window"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "window"], ["present"]),
        helper.make_node("ReduceMean", ["present", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["features"]),
        helper.make_node("Abs", ["features"], ["size"]),
        helper.make_node("Add", ["size", "bias"], ["raw_score"]),
        helper.make_node("Add", ["raw_score", "one"], ["below"]),
        helper.make_node("Div", ["raw_score", "below"], ["anomaly_score"]),
        helper.make_node("Greater", ["raw_score", "threshold"], ["is_anomaly"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
        numpy_helper.from_array(np.array([1], np.int64), "last"),
        *(
            numpy_helper.from_array(np.array(value, np.float32), name)
            for name, value in (("zero", 0), ("one", 1), ("bias", bias), ("threshold", threshold))
        ),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.BOOL if name == "is_anomaly" else TensorProto.FLOAT, ["n", 1])
        for name in ("anomaly_score", "raw_score", "is_anomaly", "features")
    ]
    window = helper.make_tensor_value_info("window", TensorProto.FLOAT, ["n", slots, signals])
    graph = helper.make_graph(nodes, "small", [window], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


@dataclass(frozen=True)
class SmallBundle:
    """What to build; every field has a value that works."""

    model: str = "pumps"
    version: str = "1.0.0"
    release_number: int = 1
    cohort: str | None = None
    channels: tuple[str, ...] = ("stable",)
    signals: tuple[str, ...] = ("heat", "load")
    window: WindowRule = field(default_factory=lambda: WindowRule(4, 60_000, 600_000, 2))
    bias: float = 0.25
    threshold: float = 1.0
    incident_gap: int = 3
    golden_shift: float = 0.0
    """Added to the expected raw scores: anything but 0 fails the self-test."""
    extra: tuple[tuple[str, bytes], ...] = ()
    below_goals: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        return target_path(self.model, self.version, self.cohort)

    def golden(self) -> bytes:
        """Windows below and above the threshold, one with missing cells."""
        shape = (GOLDEN_WINDOWS, self.window.slots, len(self.signals))
        windows = np.ones(shape, np.float32) * np.array([0.1, 0.2, 4.0, -6.0], np.float32)[:, None, None]
        windows[1, 0] = np.nan
        mean = np.nan_to_num(windows).mean(axis=(1, 2), dtype=np.float32).reshape(-1, 1)
        raw = (np.abs(mean) + np.float32(self.bias)).astype(np.float32)
        flags = (raw > self.threshold).astype(np.float32)
        parts = (windows, raw / (1 + raw), raw + np.float32(self.golden_shift), flags)
        return b"".join(part.astype("<f4").tobytes() for part in parts)

    def files(self, key: ec.EllipticCurvePrivateKey | None = None) -> dict[str, bytes]:
        """Every file of the bundle, ``manifest.json`` and ``model.sig`` included."""
        slots, signals = self.window.slots, len(self.signals)
        files = {
            "model.onnx": small_graph(slots, signals, self.bias, self.threshold),
            "golden.json": GoldenSpec(GOLDEN_WINDOWS, slots, signals).to_bytes(),
            "golden.f32": self.golden(),
            "references.f32": np.full((REFERENCES, slots, signals), 0.1, "<f4").tobytes(),
            "parity.json": b"{}",
            "MODEL_CARD.md": f"# {self.model} {self.version}\n".encode(),
            "provenance.json": json.dumps({"cohort": self.cohort}).encode(),
            **dict(self.extra),
        }
        files["manifest.json"] = self.manifest(files).to_bytes()
        files["model.sig"] = signature.sign(files, key or signing_key())
        assert set(files) >= REQUIRED_FILES
        return files

    def manifest(self, files: dict[str, bytes]) -> Manifest:
        return Manifest(
            model=self.model,
            version=self.version,
            release_number=self.release_number,
            cohort=self.cohort,
            precision="fp32",
            signals=tuple(Signal(name, "", "signal") for name in self.signals),
            window=self.window,
            features=("mean",),
            threshold=Threshold(self.threshold / (1 + self.threshold), self.threshold, 0.02),
            incident_gap=self.incident_gap,
            histogram=(1,) * BINS,
            regimes=None,
            references=REFERENCES,
            files={name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()},
            runtime={"onnxruntime": ">=1.20", "opset": 18},
            below_goals=self.below_goals,
        )

    def build(self, key: ec.EllipticCurvePrivateKey | None = None) -> BuiltBundle:
        """Pack and sign it."""
        files = self.files(key)
        return BuiltBundle(self, pack(files), files, key or signing_key())


@dataclass(frozen=True)
class BuiltBundle:
    """A bundle's bytes and what targets.json says of them."""

    what: SmallBundle
    data: bytes
    files: dict[str, bytes]
    key: ec.EllipticCurvePrivateKey

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def path(self) -> str:
        return self.what.path

    @property
    def custom(self) -> TargetCustom:
        return TargetCustom(
            model=self.what.model,
            version=self.what.version,
            cohort=self.what.cohort,
            release_number=self.what.release_number,
            channels=self.what.channels,
            size_unpacked=sum(len(content) for content in self.files.values()),
            signer=signature.public_key_text(self.key.public_key()),
        )
