"""The worked cases behind the golden files: fixed inputs, and what the contract makes of them.

Python and TypeScript read the same files in ``tests/golden``: same bytes in, same decisions out.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from edge_runtime.contract import batch as batch_format
from edge_runtime.contract import checks, histogram, names, result, rollout
from edge_runtime.contract.golden import GoldenSpec
from edge_runtime.contract.manifest import FileEntry, Manifest, Regimes, Signal, Threshold
from edge_runtime.contract.window import WindowRule, judge_reading
from edge_runtime.windows import window_indices

SALT = "00112233445566778899aabbccddeeff"
STREAM = "0123456789abcdef0123456789abcdef"
# A key that signs nothing but this folder.
TEST_KEY = ec.derive_private_key(0x5EED, ec.SECP256R1())
RULE = WindowRule(slots=2, interval_ms=3_600_000, largest_gap_ms=86_400_000, minimum_readings=1)


def bundle_files() -> dict[str, bytes]:
    """Every file of a small bundle but ``model.sig``; its model is not a model, since only formats are pinned here."""
    spec = GoldenSpec(windows=2, slots=2, signals=3)
    windows = np.arange(12, dtype="<f4")
    windows[4] = np.nan
    files = {
        "model.onnx": b"not a model",
        "golden.json": spec.to_bytes(),
        "golden.f32": windows.tobytes() + struct.pack("<6f", 0.5, 0.999, 0.4, 0.7, 0.0, 1.0),
        "references.f32": np.ones(6, dtype="<f4").tobytes(),
        "parity.json": b"{}",
        "MODEL_CARD.md": b"# fridge\n",
        "provenance.json": b"{}",
    }
    return {"manifest.json": manifest(files).to_bytes(), **files}


def manifest(files: dict[str, bytes]) -> Manifest:
    return Manifest(
        model="fridge",
        version="2026.1",
        release_number=7,
        cohort="Kühl & Gefrier",
        precision="fp32",
        signals=(Signal("temperature", "°C", "signal"), Signal("power", "W", "signal"), Signal("door", "", "context")),
        window=RULE,
        features=("last:temperature", "last:power"),
        threshold=Threshold(anomaly_score=0.998, raw_score=0.61, alarms_per_device_day=0.02),
        incident_gap=3,
        histogram=tuple(range(15)),
        regimes=Regimes(((0.0,), (1.5,)), (0.2,), (0.4,), ((4.0, 80.0), (6.5, 120.0)), ((0.5, 10.0), (1.0, 20.0))),
        references=1,
        files={n: FileEntry(hashlib.sha256(c).hexdigest(), len(c)) for n, c in sorted(files.items())},
        runtime={"onnxruntime": ">=1.20", "opset": 18, "ai.onnx.ml": 5},
        unrecognized={"note": "a field of a later format is kept"},
    )


def records() -> list[result.AnyRecord]:
    bundle = "ab" * 32
    return [
        result.Anomaly(
            1,
            bundle,
            1_700_000_400_000,
            1_700_000_000_000,
            0.99925,
            0.6125,
            3,
            (("temp", 0.12), ("context", -0.5)),
            False,
        ),
        result.Summary(
            2,
            bundle,
            1_699_999_200_000,
            "hour",
            1_700_000_400_000,
            4,
            1,
            2,
            1,
            24,
            3,
            (0,) * 9 + (1, 1, 1, 0, 1, 0),
            4,
            812,
            400,
        ),
        result.Event(3, None, 1_700_000_500_000, "clock_stepped", {"by_ms": -90_000_000, "why": "ntp"}),
        result.Gap(6, 4, 5, 2, "outbox_full"),
    ]


def rollout_cases() -> list[dict[str, Any]]:
    """Twenty worked cases: who runs what."""
    base: dict[str, Any] = {"id": 4, "model": "fridge", "release": 7, "previous": 6, "share": 5000, "salt": SALT}
    inside, outside = "device-1", "device-2"
    assert rollout.bucket(SALT, inside) < 5000 <= rollout.bucket(SALT, outside)
    variants: list[tuple[str, dict[str, Any] | None, str, str | None, int | None]] = [
        ("no rollout: keep", None, inside, None, 6),
        ("no rollout, nothing active: keep", None, inside, None, None),
        ("running, in", {"state": "running"}, inside, None, 6),
        ("running, in, new device", {"state": "running"}, inside, None, None),
        ("running, out", {"state": "running"}, outside, None, 6),
        ("running, out, has the release by hand", {"state": "running"}, outside, None, 7),
        ("running, out, previous null", {"state": "running", "previous": None}, outside, None, 5),
        ("running, share 0", {"state": "running", "share": 0}, inside, None, 6),
        ("running, share 10000", {"state": "running", "share": 10000}, outside, None, 6),
        ("running, cohort listed", {"state": "running", "cohorts": ["eu", "us"]}, inside, "eu", 6),
        ("running, cohort not listed", {"state": "running", "cohorts": ["us"]}, inside, "eu", 6),
        ("running, cohorts given, device has none", {"state": "running", "cohorts": ["us"]}, inside, None, 6),
        ("running, empty list of cohorts: nobody", {"state": "running", "cohorts": []}, inside, "eu", 6),
        ("paused, in, has the release", {"state": "paused"}, inside, None, 7),
        ("paused, in, has the previous", {"state": "paused"}, inside, None, 6),
        ("paused, in, has an older one", {"state": "paused"}, inside, None, 3),
        ("paused, in, new device", {"state": "paused"}, inside, None, None),
        ("paused, out, has the release by hand", {"state": "paused"}, outside, None, 7),
        ("rolled back, in", {"state": "rolled_back"}, inside, None, 7),
        ("rolled back, previous null: keep", {"state": "rolled_back", "previous": None}, inside, None, 7),
    ]
    cases = []
    for name, change, device, cohort, active in variants:
        entry = None if change is None else {**base, **change}
        parsed = None if entry is None else rollout.Rollout.from_dict(entry)
        chosen = rollout.decide(parsed, device, cohort, active)
        cases.append(
            {
                "case": name, "rollout": entry, "device_id": device, "bucket": rollout.bucket(SALT, device),
                "cohort": cohort, "active_release": active, "release": chosen,
            }
        )  # fmt: skip
    return cases


def window_cases() -> list[dict[str, Any]]:
    hour = 3_600_000
    rule = WindowRule(slots=3, interval_ms=hour, largest_gap_ms=2 * hour, minimum_readings=2)
    times = {
        "regular": [0, hour, 2 * hour, 3 * hour],
        "two readings in a slot": [0, 10, hour, hour + 5, 2 * hour],
        "an empty slot": [0, 2 * hour, 3 * hour],
        "a gap as long as the rule allows": [0, 2 * hour],
        "a gap one millisecond longer": [hour - 1, 3 * hour],
        "a single reading": [7],
    }
    return [
        {
            "case": case, "rule": rule.to_dict(), "timestamps_ms": stamps,
            "indices": window_indices(np.array(stamps, dtype=np.int64), rule).tolist(),
        }
        for case, stamps in times.items()
    ]  # fmt: skip


def fate_cases() -> list[dict[str, Any]]:
    day = 86_400_000
    inputs = [(5, None, 5), (5, 5, 5), (4, 5, 5), (6, 5, 0), (day, None, 0), (day + 1, None, 0), (day + 1, day + 2, 0)]
    return [{"timestamp_ms": t, "highest_ms": h, "clock_ms": c, "fate": judge_reading(t, h, c)} for t, h, c in inputs]


def goldens() -> dict[str, bytes]:
    """Return every golden file by name, but ``bundle.bundle``, whose deflated bytes depend on the zlib at hand."""
    batch = batch_format.encode_batch(STREAM, 1_700_000_600_000, records())
    names_cases = [
        {
            "model": "fridge",
            "version": "2026.1",
            "cohort": cohort,
            "path": names.target_path("fridge", "2026.1", cohort),
        }
        for cohort in (None, "FD001", "Kühl & Gefrier")
    ]
    scores = [0.0, 0.05, 0.1, 0.9499, 0.95, 0.999, 0.9999, 0.99995, 1.0]
    return {
        "manifest.json": manifest({n: c for n, c in bundle_files().items() if n != "manifest.json"}).to_bytes(),
        "golden.json": bundle_files()["golden.json"],
        "golden.f32": bundle_files()["golden.f32"],
        "batch.json": batch,
        "record_digests.json": _pretty([result.record_digest(record).hex() for record in records()]),
        "answer.json": checks.canonical(
            batch_format.ResultsAnswer(
                3, ((1, 3),), (batch_format.Refusal(6, "sequence_reused", "another record"),)
            ).to_dict()
        ),
        "rollouts.json": _pretty(rollout_cases()),
        "windows.json": _pretty(window_cases()),
        "fates.json": _pretty(fate_cases()),
        "names.json": _pretty(names_cases),
        "histogram.json": _pretty(
            {"edges": histogram.EDGES, "cases": [{"score": s, "bin": histogram.bin_of(s)} for s in scores]}
        ),
    }


def _pretty(value: object) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"
