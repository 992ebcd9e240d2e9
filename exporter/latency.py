"""What a model costs on this machine: milliseconds a call by batch size, loading, memory, and who runs its operators.

Windows come from the bundle itself, its golden and reference windows with a hundredth of noise, and no call sees those
of the call before: a window that comes again is found in caches, which no device's next reading is::

    subject = read_subject(Path("phones.bundle"))
    measured = measure(subject, provider="cpu", batches=(1, 100), threads=1)
    measured.batches[0].median_ms
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from edge_runtime.contract.bundle import GOLDEN_NAME, MODEL_NAME, REFERENCES_NAME, open_bundle
from edge_runtime.errors import InputError, ScoringError
from edge_runtime.scoring import BLOCK, ORT_ERRORS, first_line
from exporter.files import read_bytes
from exporter.resident import forget_peak, peak_megabytes, resident_megabytes

Windows = npt.NDArray[np.float32]

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
BATCHES = (1, 10, 100, 1_000, 10_000)
NOISE = 0.01
# Each batch size runs until it has taken this long, at least and at most so often; the first calls are a warm-up.
SECONDS, FEWEST, MOST, WARMUP = 1.0, 5, 2_000, 3
LOADS = 5
# Different windows are kept for two batches, but for no more memory than this.
MOST_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Subject:
    """The model to measure.

    Attributes:
        content: The ONNX file.
        windows: (n, ...) float32 that it was made for, as patterns of what is scored.
    """

    content: bytes
    windows: Windows


@dataclass(frozen=True, slots=True)
class BatchLatency:
    """One batch size.

    Attributes:
        batch: Windows in one call.
        calls: Calls that were timed.
        median_ms: Milliseconds a call, median.
        p95_ms: The same, 95 % quantile.
        windows_per_second: By the median.
        memory_mb: Megabytes that loading and all calls so far added to the process at most; None where the system
            does not tell.
    """

    batch: int
    calls: int
    median_ms: float
    p95_ms: float
    windows_per_second: float
    memory_mb: float | None


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured.

    Attributes:
        provider: Who was asked to run the operators.
        threads: Threads of one operator.
        model_bytes: Size of the file.
        load_ms: Milliseconds until a session can score, median.
        batches: By batch size, ascending.
        one_core_ms: Milliseconds for one window on one thread of a process that may use one core only; None where the
            system cannot pin a process or another provider was asked for.
        operators: Operators by the provider that ran them.
    """

    provider: str
    threads: int
    model_bytes: int
    load_ms: float
    batches: tuple[BatchLatency, ...]
    one_core_ms: float | None
    operators: dict[str, list[str]]

    @property
    def fallen_back(self) -> list[str]:
        """Operators that the CPU ran although another provider was asked for: it has no kernel for them."""
        return [] if self.provider == "cpu" else self.operators.get(PROVIDERS["cpu"], [])

    def to_dict(self) -> dict[str, Any]:
        """Return it as one JSON-ready object."""
        return asdict(self) | {"fallen_back": self.fallen_back, "onnxruntime": ort.__version__}


def read_subject(path: Path) -> Subject:
    """Read a bundle, or an ONNX file with one float32 input.

    Args:
        path: Of the bundle or the model.

    Raises:
        InputError: It cannot be read.
        ContractError: The bundle's parts do not agree.
        ScoringError: onnxruntime cannot load the model, or its input is nothing that windows or rows fit.
    """
    data = read_bytes(path)
    if path.suffix == ".onnx":
        return Subject(data, np.ones((1, *_row_shape(_session(data, "cpu", 1))), np.float32))
    opened = open_bundle(data)
    spec = opened.golden
    shape = (-1, spec.slots, spec.signals)
    window = spec.tensors[0]
    golden = np.frombuffer(opened.files[GOLDEN_NAME], "<f4", count=window.size // 4).reshape(shape)
    references = np.frombuffer(opened.files[REFERENCES_NAME], "<f4").reshape(shape)
    return Subject(opened.files[MODEL_NAME], np.concatenate([golden, references]).astype(np.float32))


def measure(subject: Subject, *, provider: str, batches: Sequence[int], threads: int) -> Measured:
    """Measure a model on this machine.

    Args:
        subject: The model.
        provider: ``cpu`` or ``cuda``.
        batches: Windows a call.
        threads: Threads of one operator.

    Raises:
        InputError: onnxruntime has no such provider here, or a batch is too large to be held.
        ScoringError: The model cannot be loaded or run.
    """
    if PROVIDERS[provider] not in ort.get_available_providers():
        raise _no_provider(provider, f"it has {', '.join(ort.get_available_providers())}")
    ascending = sorted(set(batches))
    pool = _pool(subject.windows, ascending[-1])
    forget_peak()
    before = resident_megabytes()
    loads = [_timed(lambda: _session(subject.content, provider, threads)) for _ in range(LOADS)]
    session = _session(subject.content, provider, threads)
    if PROVIDERS[provider] not in session.get_providers():  # onnxruntime falls back without a word to its caller
        raise _no_provider(provider, "it is built in, but could not start")
    block = BLOCK if provider == "cpu" else ascending[-1]  # the CPU scores as devices do; a GPU wants all at once
    rows = tuple(_batch(session, pool, batch, block, before) for batch in ascending)
    return Measured(
        provider=provider,
        threads=threads,
        model_bytes=len(subject.content),
        load_ms=statistics.median(loads) * 1e3,
        batches=rows,
        one_core_ms=_one_core(subject, pool) if provider == "cpu" else None,
        operators=_operators(subject.content, provider, pool),
    )


def _no_provider(provider: str, why: str) -> InputError:
    return InputError(
        f"onnxruntime {ort.__version__} cannot run on {provider} here: {why}.",
        advice="For an NVIDIA GPU, install onnxruntime-gpu in place of onnxruntime, with the CUDA and cuDNN that its"
        " page names.",
        provider=provider,
    )


def _session(content: bytes, provider: str, threads: int, **settings: object) -> ort.InferenceSession:
    """Load a model; ``settings`` are attributes of onnxruntime's session options."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as on a device
    for name, value in settings.items():
        setattr(options, name, value)
    wanted = list(dict.fromkeys((PROVIDERS[provider], PROVIDERS["cpu"])))
    try:
        return ort.InferenceSession(content, options, providers=wanted)
    except ORT_ERRORS as error:
        raise ScoringError(
            f"The model cannot be loaded by onnxruntime {ort.__version__}: {first_line(error)}.",
            reason="model_unloadable",
            advice="Check that the file is whole, and that it needs no other files or operators.",
        ) from error


def _row_shape(session: ort.InferenceSession) -> tuple[int, ...]:
    """Return the shape of one window or row of the model's one input."""
    inputs = session.get_inputs()
    if len(inputs) == 1 and inputs[0].type == "tensor(float)":
        first, *others = inputs[0].shape or [None]
        if not isinstance(first, int) and others and all(isinstance(size, int) for size in others):
            return tuple(others)
    described = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs) or "none"
    raise ScoringError(
        f"The model's inputs are {described}; one float32 input is measured, its first size free and the others fixed.",
        reason="model_shape",
        advice="Export it with a free batch size and fixed sizes otherwise.",
    )


def _pool(patterns: Windows, batch: int) -> Windows:
    """Return different windows for two batches and more: the patterns in turn, each value off by a hundredth."""
    count = batch + max(batch, MOST + WARMUP)
    if (size := 4 * count * int(np.prod(patterns.shape[1:]))) > MOST_BYTES:
        raise InputError(f"Batches of {batch:,} windows need {size / 1e9:.1f} GB.", advice="Give a smaller --batch.")
    noise = np.random.default_rng(0).standard_normal((count, *patterns.shape[1:]), dtype=np.float32)
    noise *= np.float32(NOISE)
    noise += np.float32(1)
    noise *= np.resize(patterns, noise.shape)
    return noise


def _batch(session: ort.InferenceSession, pool: Windows, batch: int, block: int, before: float | None) -> BatchLatency:
    taken = _calls(session, pool, batch, block)
    middle = statistics.median(taken)
    peak = peak_megabytes()
    return BatchLatency(
        batch=batch,
        calls=len(taken),
        median_ms=middle * 1e3,
        p95_ms=float(np.quantile(taken, 0.95)) * 1e3,
        windows_per_second=batch / middle,
        memory_mb=None if peak is None or before is None else max(peak - before, 0.0),
    )


def _calls(session: ort.InferenceSession, pool: Windows, batch: int, block: int = BLOCK) -> list[float]:
    """Return the seconds of each call after the warm-up; the runtime gets a batch in blocks."""
    starts = np.random.default_rng(0).permutation(len(pool) - batch + 1)
    taken: list[float] = []
    total = 0.0
    while len(taken) < WARMUP + FEWEST or (total < SECONDS and len(taken) < MOST):
        start = starts[len(taken)]
        windows = pool[start : start + batch]
        taken.append(_timed(lambda windows=windows: _run(session, windows, block)))  # type: ignore[misc]
        total += taken[-1]
    return taken[WARMUP:]


def _run(session: ort.InferenceSession, windows: Windows, block: int = BLOCK) -> None:
    name = session.get_inputs()[0].name
    try:
        for start in range(0, len(windows), block):
            session.run(None, {name: windows[start : start + block]})
    except ORT_ERRORS as error:
        raise ScoringError(
            f"The model failed while scoring: {first_line(error)}.",
            reason="run_failed",
            advice="Check that it takes any number of windows.",
        ) from error


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _one_core(subject: Subject, pool: Windows) -> float | None:
    """Return the milliseconds of one window when the process may use one core only, as on the smallest devices."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    with _pinned():
        return statistics.median(_calls(_session(subject.content, "cpu", 1), pool, 1)) * 1e3


@contextmanager
def _pinned() -> Iterator[None]:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _operators(content: bytes, provider: str, pool: Windows) -> dict[str, list[str]]:
    """Return the operators that each provider ran, from onnxruntime's own profile of one call."""
    with tempfile.TemporaryDirectory() as folder:
        session = _session(
            content, provider, 1, enable_profiling=True, profile_file_prefix=str(Path(folder) / "profile")
        )
        _run(session, pool[:2])
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    found: dict[str, set[str]] = {}
    for event in events:
        details = event.get("args", {})
        if event.get("cat") == "Node" and "op_name" in details and details.get("provider"):
            found.setdefault(details["provider"], set()).add(details["op_name"])
    return {name: sorted(operators) for name, operators in sorted(found.items())}
