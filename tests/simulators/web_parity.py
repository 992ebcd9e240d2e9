"""Models with windows and what Python says of them, as files that the browser's library is compared with.

One folder a case: ``model.onnx``, ``manifest.json``, ``references.f32``, ``windows.f32`` ([n, W, S]), ``raw.f32``,
``anomaly.f32``, ``flags.u8`` and ``contributions.json`` (of the most anomalous windows: number, [signal, value]...).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from simulators.charging_fleet import spec_of
from simulators.web_run import scored_run

from edge_runtime.contract.bundle import Bundle, open_bundle
from edge_runtime.explanation import Explainer
from edge_runtime.scoring import Scorer
from exporter.built import BuiltModel
from exporter.config import DetectorSpec, ModelSpec
from exporter.dataset import read_fleet
from exporter.keys import create_key
from exporter.model_build import build_models
from exporter.packing import pack_model
from exporter.provenance import Provenance
from exporter.window_sets import cut_windows, window_rule

EXPLAINED = 20


def write_small_cases(folder: Path) -> None:
    """Write forests with context and an autoencoder in every form, trained on a small simulated fleet."""
    (folder / "fleet").mkdir(parents=True)
    spec = spec_of(folder / "fleet", {"big": 12})
    for detector in (DetectorSpec(trees=30), DetectorSpec(kind="autoencoder", epochs=2)):
        chosen = replace(spec, detector=detector)
        (model, *_) = build_models(chosen).models
        bundles = write_cases(folder, chosen, model, detector.kind, most=600)
        run = scored_run(bundles[:2], folder / "fleet" / detector.kind)
        used = [{"digest": bundle.digest, "precision": bundle.manifest.precision} for bundle in bundles[:2]]
        (folder / f"{detector.kind}-run.json").write_text(json.dumps({"bundles": used, "steps": run}))


def write_cases(folder: Path, spec: ModelSpec, model: BuiltModel, name: str, *, most: int) -> list[Bundle]:
    """Write one case for each precision of a model, over windows of the data it was trained on.

    Args:
        folder: Where to.
        spec: The settings of the model.
        model: The model.
        name: What the cases begin with.
        most: So many windows at most, drawn evenly.

    Returns:
        The bundles.
    """
    key = create_key(folder / f"{name}.pem", "targets", None)
    devices = read_fleet(spec.data).devices
    cut = cut_windows(list(devices), window_rule(spec.window, list(devices)))
    windows = cut.sample(most, 0).windows()
    # Some readings do not say what the device was doing; columns are signals, then context.
    windows[::7, 0, len(spec.data.signals) :] = np.nan
    written = []
    for precision in ("fp32", "codebook8", "int8"):
        form = next((form for form, found in model.precisions.items() if found == precision), None)
        if form is None:
            continue
        packed = pack_model(replace(model, form=form), _provenance(), key, name="parity", version="1", release_number=1)
        written.append(open_bundle(packed.data))
        _write_case(folder / f"{name}-{precision}", written[-1], windows)
    return written


def _write_case(folder: Path, bundle: Bundle, windows: npt.NDArray[np.float32]) -> None:
    folder.mkdir()
    for file in ("model.onnx", "manifest.json", "references.f32"):
        (folder / file).write_bytes(bundle.files[file])
    scorer = Scorer(bundle.files["model.onnx"])
    verdicts = scorer.score(windows)
    explainer = Explainer(scorer, bundle.manifest, bundle.files["references.f32"])
    worst = np.argsort(-verdicts.raw_score)[:EXPLAINED].tolist()
    explained = {row: explainer.contributions(windows[row], float(verdicts.raw_score[row])) for row in worst}
    for file, array, kind in (
        ("windows.f32", windows, "<f4"),
        ("raw.f32", verdicts.raw_score, "<f4"),
        ("anomaly.f32", verdicts.anomaly_score, "<f4"),
        ("flags.u8", verdicts.is_anomaly, "u1"),
    ):
        (folder / file).write_bytes(np.asarray(array).astype(kind).tobytes())
    (folder / "contributions.json").write_text(json.dumps(explained))


def _provenance() -> Provenance:
    return Provenance(data_digest="0" * 64, readings=1, devices={}, settings={})
