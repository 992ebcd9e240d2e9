"""A model that was trained elsewhere, as a detector: nothing is trained, its own score is scaled and calibrated.

Its "trained model" is the file itself, run by onnxruntime as it came; the graph that ships is the adapted one of
``exporter.importing``. Both are compared on healthy windows at once, so that an adaptation that changed anything ends
the import.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import TensorProto

from edge_runtime.scoring import ORT_ERRORS
from exporter.detectors.protocol import Candidate, FeatureMatrix, Scores
from exporter.errors import ConversionError
from exporter.graph.grafting import graft
from exporter.graph.nodes import GraphBuilder
from exporter.graph.running import BLOCK_VALUES
from exporter.graph.squash import Squash, add_squash
from exporter.importing import ForeignModel, read_foreign
from exporter.quantization.network import calibration_rows, quantize_model
from exporter.spec import OnnxSpec

# The adapted graph may add up in another order; float32 sums over some hundred trees differ by less than this.
MOST_DIFFERENCE = 1e-4
# Windows on which both are compared, and on which values are taken away.
CHECKED_ROWS = 256


@dataclass(frozen=True, slots=True, eq=False)
class FittedImport:
    """A foreign model with its scale.

    Attributes:
        foreign: The model.
        spec: Which way its score runs, and which column it is.
        fill: (F,) training means that stand for missing values, or None where the model takes them.
        squash: From its score to [0, 1].
        notes: Sentences for the report.
    """

    foreign: ForeignModel
    spec: OnnxSpec
    fill: npt.NDArray[np.float32] | None
    squash: Squash
    notes: tuple[str, ...]

    def raw_scores(self, features: FeatureMatrix) -> Scores:
        """Return the file's own scores of (n, F) float32 features, squashed: (n,) float64."""
        return self.squash(_Runner(self.foreign, self.spec).scores(_filled(features, self.fill)))

    def add_to(self, graph: GraphBuilder, features: str, name: str) -> str:
        """Add imputation, the model and the squash."""
        return add_squash(
            graph, self.squash, _add_score(graph, self.foreign, self.spec, self.fill, features), name=name
        )

    def candidates(self, features: FeatureMatrix) -> Iterator[Candidate]:
        """Yield the integer forms of a network over features; trees and networks over slots ship as they came."""
        if self.foreign.element != TensorProto.FLOAT or len(self.foreign.shape) != 1:
            return
        rows = calibration_rows(_filled(features, self.fill), self.raw_scores(features).astype(np.float32))
        for form in quantize_model(self.foreign.model, rows):
            small = replace(self, foreign=replace(self.foreign, model=form.model))
            yield Candidate(form.name, "int8", small.add_to, form.about, form.float_nodes)


@dataclass(frozen=True, slots=True)
class ImportedDetector:
    """A foreign model before its scale is known."""

    spec: OnnxSpec

    def fit(self, features: FeatureMatrix) -> FittedImport:
        """Find the scale of its scores over (n, F) float32 features of healthy windows, NaN = missing.

        Raises:
            SpecError: The file cannot be read, or has no such input or output.
            ConversionError: It does not fit the features, gives no score, or something else once it is adapted.
        """
        foreign = read_foreign(self.spec)
        _check_size(foreign, features.shape[1])
        run = _Runner(foreign, self.spec)
        fill = _means(features) if self.spec.impute else None
        run.scores(_filled(features[:1], fill))  # one alone, so that an output of a million columns stays small
        scores = run.scores(_filled(features, fill))
        _check_finite(foreign, scores, features, imputed=self.spec.impute)
        if fill is None:
            _check_missing(run, foreign, features)
        _check_adapted(foreign, self.spec, features, fill)
        return FittedImport(foreign, self.spec, fill, _scale(scores), _notes(foreign, fill))


class _Runner:
    """The file as it came, on one thread."""

    def __init__(self, foreign: ForeignModel, spec: OnnxSpec) -> None:
        self._foreign, self._spec = foreign, spec
        self._session = _session(foreign.content, foreign.name)

    def scores(self, features: npt.NDArray[np.float32]) -> Scores:
        """Return the scores of (n, F) features: (n,) float64, higher is more anomalous."""
        foreign = self._foreign
        kind = np.float64 if foreign.element == TensorProto.DOUBLE else np.float32
        values = features.astype(kind).reshape(len(features), *foreign.shape)
        size = foreign.batch or max(1, BLOCK_VALUES // max(1, features.shape[1]))
        parts = [self._block(values[start : start + size]) for start in range(0, len(values), size)]
        return np.concatenate(parts) if parts else np.empty(0, np.float64)

    def _block(self, values: npt.NDArray[np.generic]) -> Scores:
        found = _run(self._session, self._foreign, [self._foreign.output], {self._foreign.input: values})
        column = _column(self._foreign, self._spec, found.shape, len(values))
        score = np.asarray(found, np.float64).reshape(len(values), -1)[:, column]
        return -score if self._spec.higher_is == "healthy" else score


def _column(foreign: ForeignModel, spec: OnnxSpec, shape: tuple[int, ...], rows: int) -> int:
    """Return the column of an output [batch], [batch, 1] or [batch, 2] that scores."""
    width = shape[-1] if len(shape) == 2 else 1
    if len(shape) not in (1, 2) or shape[0] != rows or width not in (1, 2):
        raise ConversionError(
            f"{foreign.name} gives {foreign.output} as {list(shape)} for {rows} windows; a score is [batch], "
            "[batch, 1] or [batch, 2].",
            advice="Name another output with --output, or export the model with one score a window.",
        )
    if width == 1 and spec.column is None:
        return 0
    if width == 1:
        raise ConversionError(f"{foreign.name} gives {foreign.output} in one column.", advice="Leave --column out.")
    if spec.column is None:
        raise ConversionError(
            f"{foreign.name} gives {foreign.output} in two columns.", advice="Choose one: --column 0 or --column 1."
        )
    return spec.column


def _check_size(foreign: ForeignModel, columns: int) -> None:
    wanted = int(np.prod(foreign.shape))
    if wanted != columns:
        size = " x ".join(map(str, foreign.shape))
        raise ConversionError(
            f"{foreign.name} takes {size} values a window, and the settings make {columns} features.",
            advice="Change data.signals, window.slots or features.statistics until they are what the model was "
            "trained on.",
        )


def _check_finite(foreign: ForeignModel, scores: Scores, features: FeatureMatrix, *, imputed: bool) -> None:
    bad = ~np.isfinite(scores)
    if not bad.any():
        return
    missing = int((bad & np.isnan(features).any(axis=1)).sum())
    advice = "Check scaling and units of the signals."
    if missing and not imputed:
        advice = "Give --impute (detector.onnx.impute), so that missing values become training means."
    raise ConversionError(
        f"{foreign.name} gives no finite score for {int(bad.sum()):,} of {scores.size:,} healthy windows "
        f"({missing:,} of these have missing values).",
        advice=advice,
    )


def _check_missing(run: _Runner, foreign: ForeignModel, features: FeatureMatrix) -> None:
    """Refuse a model that has no score once a value is missing: on a device, any can be."""
    rows = np.resize(features[:CHECKED_ROWS], (features.shape[1], features.shape[1])).copy()
    np.fill_diagonal(rows, np.nan)
    if not np.isfinite(run.scores(rows)).all():
        raise ConversionError(
            f"{foreign.name} gives no score for a window with a missing value, and devices have such windows.",
            advice="Give --impute (detector.onnx.impute), so that missing values become training means.",
        )


def _check_adapted(
    foreign: ForeignModel, spec: OnnxSpec, features: FeatureMatrix, fill: npt.NDArray[np.float32] | None
) -> None:
    """Compare the adapted model over a block with the file over each window alone, as a device scores it."""
    rows = _filled(features[:CHECKED_ROWS], fill)
    run = _Runner(foreign, spec)
    expected = np.concatenate([run.scores(row[None]) for row in rows])
    session = _session(foreign.model.SerializeToString(), foreign.name)
    kind = np.float64 if foreign.element == TensorProto.DOUBLE else np.float32
    found = _run(session, foreign, ["score"], {"X": rows.astype(kind).reshape(len(rows), *foreign.shape)})
    column = _column(foreign, spec, found.shape, len(rows))
    scores = np.asarray(found, np.float64).reshape(len(rows), -1)[:, column]
    apart = np.abs(scores - (-expected if spec.higher_is == "healthy" else expected))
    if float(apart.max(initial=0.0)) > MOST_DIFFERENCE * max(1.0, float(np.abs(expected).max(initial=0.0))):
        raise ConversionError(
            f"{foreign.name}, adapted to our opsets and run over a block, scores otherwise than the file does over "
            f"each window alone, by up to {apart.max():.3g}.",
            advice="Export it for opset 18, for evaluation, and so that no window's score depends on others.",
        )


def _scale(scores: Scores) -> Squash:
    """Return the squash of healthy scores, never narrower than their standard deviation.

    A classifier gives healthy windows nearly the same score: by their interquartile range all faults would lie so far
    out that float32 no longer tells them apart (Spearman .995 instead of .99997 for XGBoost on cmapss).
    """
    fitted = Squash.fit(scores)
    return replace(fitted, spread=max(fitted.spread, float(scores.std())))


def _add_score(
    graph: GraphBuilder,
    foreign: ForeignModel,
    spec: OnnxSpec,
    fill: npt.NDArray[np.float32] | None,
    features: str,
) -> str:
    """Add imputation and model: [batch, F] float32 to the score [batch, 1], higher is more anomalous."""
    add, constant = graph.add, graph.constant
    values = features
    if fill is not None:
        values = add("Where", add("IsNaN", features), constant(fill), features)
    if len(foreign.shape) > 1:
        values = add("Reshape", values, constant(np.array([-1, *foreign.shape], np.int64)))
    values = add("Cast", values, to=foreign.element)
    found = f"{graph.prefix()}score"
    graft(graph, foreign.model, {"X": values}, {"score": found})
    score = add("Cast", found, to=TensorProto.DOUBLE)
    if spec.column is None:
        score = add("Reshape", score, constant(np.array([-1, 1], np.int64)))
    else:
        score = add("Gather", score, constant(np.array([spec.column], np.int64)), axis=1)
    return add("Neg", score) if spec.higher_is == "healthy" else score


def _session(content: bytes, name: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except ORT_ERRORS as error:
        reason = str(error).partition("\n")[0][:300]
        raise ConversionError(
            f"onnxruntime cannot load {name}: {reason}", advice="Export the model for opset 18, ai.onnx.ml 3."
        ) from error


def _run(
    session: ort.InferenceSession, foreign: ForeignModel, outputs: list[str], feed: dict[str, npt.NDArray[np.generic]]
) -> npt.NDArray[np.generic]:
    try:
        return np.asarray(session.run(outputs, feed)[0])
    except ORT_ERRORS as error:
        reason = str(error).partition("\n")[0][:300]
        advice = "Check its shapes in the training library."
        if foreign.batch is not None:
            advice = "Export it with a free first dimension (dynamic_axes, or dynamic_shapes, of torch.onnx.export)."
        raise ConversionError(f"onnxruntime cannot run {foreign.name}: {reason}", advice=advice) from error


def _means(features: FeatureMatrix) -> npt.NDArray[np.float32]:
    """Mean of each feature; 0 where training saw no value."""
    there = ~np.isnan(features)
    sums = np.where(there, features, 0).sum(axis=0, dtype=np.float64)
    return np.asarray(sums / np.maximum(there.sum(axis=0), 1), np.float32)


def _filled(features: FeatureMatrix, fill: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
    return features if fill is None else np.where(np.isnan(features), fill, features)


def _notes(foreign: ForeignModel, fill: npt.NDArray[np.float32] | None) -> tuple[str, ...]:
    notes = [
        f"{foreign.name} (sha256 {foreign.digest}) was trained elsewhere. It was calibrated on the healthy windows of "
        "this telemetry; windows that it was trained on look more normal to it than new ones, so healthy devices would "
        "raise more alarms than the threshold was chosen for.",
        *foreign.notes,
    ]
    if fill is not None:
        notes.append("Missing values become the training mean of their feature.")
    return tuple(notes)
