"""Scoring: windows in, verdicts out, through the bundle's one ONNX graph on one thread of the CPU.

The graph holds features, context, detector, calibration and threshold, so that this module only runs it::

    scorer = Scorer(bundle_folder / "model.onnx")
    verdicts = scorer.score(windows)            # (n, W, S) float32, NaN = missing
    check_golden(scorer, spec, blob)            # before a new bundle becomes active

Nothing here judges, stores or explains; nothing here needs onnx, pandas or scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from edge_runtime.contract.golden import GoldenSpec
from edge_runtime.errors import ScoringError

Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]

INPUT = "window"
OUTPUTS = ("anomaly_score", "raw_score", "is_anomaly")
# Windows a run: scores do not depend on it (the graph adds up in float64), speed does. Measured with 300 trees over
# 24 x 25 windows: 15 us a window in blocks of 64 and 128, 23 to 26 us in blocks of 200 and 256, whose tensors pass
# malloc's mmap threshold and are mapped anew in each run.
BLOCK = 128
# onnxruntime's classes share no base but Exception (checked in 1.24 to 1.32).
ORT_ERRORS: tuple[type[Exception], ...] = (
    ort_errors.EPFail,
    ort_errors.EngineError,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.ModelLoaded,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the model says of n windows.

    Attributes:
        anomaly_score: (n,) float32 in [0, 1], higher is more anomalous.
        raw_score: (n,) float32, the detector's own figure.
        is_anomaly: (n,) bool.
    """

    anomaly_score: Float32s
    raw_score: Float32s
    is_anomaly: npt.NDArray[np.bool_]


class Scorer:
    """One loaded model.

    Args:
        model: The ONNX file, or its bytes.
        threads: Threads of one run; 1 is fastest for a device's single windows.

    Raises:
        ScoringError: The model cannot be loaded (``model_unloadable``) or is none of ours (``model_shape``).
    """

    def __init__(self, model: bytes | Path, *, threads: int = 1) -> None:
        try:
            data = model.read_bytes() if isinstance(model, Path) else model
            self._session = ort.InferenceSession(data, _options(threads), providers=["CPUExecutionProvider"])
        except OSError as error:
            raise ScoringError(
                f"The model {model!s} cannot be read: {error.strerror}.", reason="model_unloadable", advice=_SYNC
            ) from error
        except ORT_ERRORS as error:
            raise ScoringError(
                f"The model cannot be loaded by onnxruntime {ort.__version__}: {first_line(error)}.",
                reason="model_unloadable",
                advice="Update onnxruntime, or publish a bundle for this version.",
            ) from error
        self._outputs = {output.name for output in self._session.get_outputs()}
        inputs = self._session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 and inputs[0].name == INPUT else []
        if len(shape) != 3 or not self._outputs.issuperset(OUTPUTS):
            raise ScoringError(
                f"The model takes {[i.name for i in inputs]} and gives {sorted(self._outputs)}, which is none of ours.",
                reason="model_shape",
                advice=_SYNC,
            )
        self._expected = tuple(size if isinstance(size, int) else None for size in shape[1:])

    def score(self, windows: Float32s) -> Verdicts:
        """Score windows.

        Args:
            windows: (n, W, S) float32, oldest slot first, NaN = missing.

        Returns:
            n verdicts.

        Raises:
            ScoringError: The windows do not fit the model (``model_shape``), it fails (``run_failed``), or it answers
                something that is no number (``not_finite``).
        """
        anomaly, raw, flags = self._run(list(OUTPUTS), windows)
        _check_numbers(np.isfinite(raw) & (anomaly >= 0) & (anomaly <= 1))
        return Verdicts(anomaly.reshape(-1), raw.reshape(-1), flags.reshape(-1).astype(np.bool_))

    def raw_scores(self, windows: Float32s) -> Float32s:
        """Return the raw scores alone: (n, W, S) float32 in, (n,) float32 out.

        Raises:
            ScoringError: As ``score``.
        """
        (raw,) = self._run(["raw_score"], windows)
        _check_numbers(np.isfinite(raw))
        result: Float32s = raw.reshape(-1)
        return result

    def features(self, windows: Float32s) -> Float32s:
        """Return the features that the detector sees: (n, W, S) float32 in, (n, F) float32 out.

        Raises:
            ScoringError: The model has no such output (``model_shape``), or as ``score``.
        """
        (features,) = self._run(["features"], windows)
        result: Float32s = features
        return result

    def regimes(self, windows: Float32s) -> Int64s:
        """Return the regime of each slot: (n, W, S) float32 in, (n, W) int64 out; undefined where context is missing.

        Raises:
            ScoringError: The model has no context (``model_shape``), or as ``score``.
        """
        (regimes,) = self._run(["regime"], windows)
        result: Int64s = regimes
        return result

    def _run(self, outputs: list[str], windows: Float32s) -> list[npt.NDArray[Any]]:
        if not self._outputs.issuperset(outputs):
            raise ScoringError(f"The model has no output {outputs[0]!r}.", reason="model_shape", advice=_SYNC)
        if windows.ndim != 3 or any(e not in (None, s) for e, s in zip(self._expected, windows.shape[1:], strict=True)):
            raise ScoringError(
                f"The model takes windows of shape {self._expected}, not {windows.shape[1:]}.",
                reason="model_shape",
                advice=_SYNC,
            )
        data = np.ascontiguousarray(windows, dtype=np.float32)
        try:
            if len(data) <= BLOCK:
                run: list[npt.NDArray[Any]] = self._session.run(outputs, {INPUT: data})
                return run
            parts = [
                self._session.run(outputs, {INPUT: data[start : start + BLOCK]}) for start in range(0, len(data), BLOCK)
            ]
        except ORT_ERRORS as error:
            raise ScoringError(
                f"The model failed while scoring: {first_line(error)}.", reason="run_failed", advice=_SYNC
            ) from error
        return [np.concatenate(columns) for columns in zip(*parts, strict=True)]


def check_golden(scorer: Scorer, spec: GoldenSpec, blob: bytes) -> None:
    """Run the bundle's golden windows on this machine.

    Args:
        scorer: The bundle's model, loaded.
        spec: ``golden.json``.
        blob: ``golden.f32``.

    Raises:
        ScoringError: A raw score differs by more than the tolerance or a verdict differs (``golden_failed``), or the
            file's size is not what the spec says.
    """
    if len(blob) != spec.size:
        raise ScoringError(
            f"golden.f32 has {len(blob)} bytes instead of {spec.size}.", reason="golden_failed", advice=_GOLDEN
        )
    numbers = np.frombuffer(blob, dtype="<f4")
    arrays = {
        tensor.name: numbers[tensor.offset // 4 : (tensor.offset + tensor.size) // 4].reshape(tensor.shape)
        for tensor in spec.tensors
    }
    verdicts = scorer.score(arrays["window"].astype(np.float32))
    difference = float(np.abs(verdicts.raw_score - arrays["raw_score"].reshape(-1)).max())
    flips = int((verdicts.is_anomaly != (arrays["is_anomaly"].reshape(-1) > 0.5)).sum())
    # A NaN among the expected scores makes the difference NaN, which must not pass.
    if not difference <= spec.raw_tolerance or flips:
        raise ScoringError(
            f"The model fails its golden windows on this machine: raw scores differ by {difference:.2g}"
            f" (allowed {spec.raw_tolerance:.2g}), {flips} of {spec.windows} verdicts differ.",
            reason="golden_failed",
            advice=_GOLDEN,
            difference=difference,
            flips=flips,
        )


_SYNC = "Sync again; if it stays, publish the bundle again."
_GOLDEN = "The active bundle stays as it was; report the processor and the onnxruntime version to the release engineer."


def _check_numbers(usable: npt.NDArray[np.bool_]) -> None:
    if not usable.all():
        raise ScoringError("The model gave a score that is no number.", reason="not_finite", advice=_SYNC)


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # The arena keeps the largest block it ever needed, for ever; up to BLOCK windows are as fast without it.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # A device's log is its owner's: errors only, and those become exceptions anyway.
    options.log_severity_level = 4
    # Without this an idle pool burns a core for milliseconds after each run, which is battery.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def first_line(error: Exception) -> str:
    """Return what one of ``ORT_ERRORS`` says in its first line, at most 300 characters."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text.rstrip(".")[:300]
