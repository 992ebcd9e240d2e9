"""One table: who scores a forest how fast, in which batches, on how many threads, at what size and in what memory."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.harness import Cell, Report
from benchmarks.scorers import KINDS, OURS, RIVALS, Rows, Score
from benchmarks.scoring_child import in_child
from benchmarks.timing import Side, Timing, take_turns

QUESTION = (
    "A forest of 300 trees on 25 features scored in batches of 1 to 10,000 rows on one and two threads, by ours and by"
    " everything else that scores one; what converting and loading take, and how large file and process are."
)
FEATURES, TRAINING_ROWS, FRESH_ROWS = 25, 10_000, 40_000
BATCHES, THREADS = (1, 10, 100, 1_000, 10_000), (1, 2)
EXACT = "ours fp32"
# Calls are repeated until the clock has something to measure, and slow ones are not repeated for ever.
REPEAT_SECONDS, MOST_CALLS = 0.004, 300
REPEATS = {1: 41, 10: 31, 100: 21, 1_000: 11, 10_000: 7}


@dataclass(slots=True)
class Contender:
    """One side with what was measured of it.

    Attributes:
        name: In the tables.
        kind: How it is loaded.
        path: Its file.
        convert: Seconds from the trained forest to the file; None where that is another side's.
        load: Seconds from the file to what scores.
        timings: By threads and batch.
        memory: What ``scoring_child memory`` answered.
    """

    name: str
    kind: str
    path: Path
    convert: float | None
    load: float
    timings: dict[tuple[int, int], Timing] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)


def run(report: Report, *, quick: bool) -> None:
    """Make every side's file, let the sides take turns, then watch the memory of each."""
    from sklearn.ensemble import IsolationForest

    trees = 30 if quick else 300
    rows = np.random.default_rng(0).normal(size=(TRAINING_ROWS + FRESH_ROWS, FEATURES)).astype(np.float32)
    training, fresh = rows[:TRAINING_ROWS], rows[TRAINING_ROWS:]
    forest = IsolationForest(n_estimators=trees, random_state=0).fit(training)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "training.npy", training)
        np.save(folder / "fresh.npy", fresh)
        sides = [*_ours(forest, training, folder), *_rivals(report, forest, folder)]
        _agreement(report, sides, fresh[:1_000], -forest.score_samples(fresh[:1_000]))
        for threads in THREADS:
            _measure(report, sides, fresh, threads, quick)
        _memory(report, sides, folder, quick)
        _tables(report, sides)
        _goals(report, sides, quick)
        _more_trees(report, forest, training, fresh, quick)
    if quick:
        report.note(f"Quick: {trees} trees instead of 300, few repeats, no batch of 10,000, memory of two sides only.")


def fitted_forms(forest: Any, training: Rows) -> dict[str, Any]:
    """Return what adds the exact form and every candidate that the detector offers to a graph, by name."""
    from exporter.detectors.forest import FittedForest
    from exporter.graph.path_forest import flatten_forest

    fitted = FittedForest(forest, flatten_forest(forest))
    return {"fp32": fitted.add_to} | {one.name: one.add for one in fitted.candidates(training)}


def _ours(forest: Any, training: Rows, folder: Path) -> Iterator[Contender]:
    for place, (name, add) in enumerate(fitted_forms(forest, training).items()):
        path = folder / f"ours-{place}.onnx"
        sides = {
            "convert": Side("convert", lambda _, add=add, path=path: path.write_bytes(model_of(add))),  # type: ignore[misc]
            "load": Side("load", lambda _, path=path: KINDS[OURS].load(path, 1)),  # type: ignore[misc]
        }
        taken = {step: take_turns([side], repeats=5)[step].median for step, side in sides.items()}
        yield Contender(f"ours {name}", OURS, path, taken["convert"], taken["load"])


def model_of(add: Any) -> bytes:
    """Return a model of one form of the detector alone."""
    from exporter.graph.nodes import GraphBuilder, tensor_info

    graph = GraphBuilder()
    add(graph, "X", "score")
    inputs, outputs = [tensor_info("X", "f4", ("N", FEATURES))], [tensor_info("score", "f4", ("N", 1))]
    data: bytes = graph.model("detector", inputs, outputs).SerializeToString()
    return data


def _rivals(report: Report, forest: Any, folder: Path) -> Iterator[Contender]:
    """Yield those that are installed and work; the report says why the others are missing."""
    import joblib

    trained = folder / "forest.joblib"
    joblib.dump(forest, trained)
    for kind in RIVALS:
        side = KINDS[kind]
        path = folder / side.file
        report.progress(f"{kind} makes its file")
        if side.make is None:
            if path.exists():
                report.note(f"{kind}: {side.about}")
                yield Contender(kind, kind, path, None, take_turns([_loading(kind, path)], repeats=5)["load"].median)
            continue
        made = in_child("make", kind, trained, folder / "training.npy", path)
        if isinstance(made, str):
            report.note(f"{kind} is missing from the table. It said: {made}")
            continue
        yield Contender(kind, kind, path, made["convert"], made["load"])
        report.note(f"{kind}: {side.about}")


def _loading(kind: str, path: Path) -> Side:
    return Side("load", lambda _: KINDS[kind].load(path, 1))


def _agreement(report: Report, sides: Sequence[Contender], rows: Rows, wanted: Any) -> None:
    """Say how far the scores lie from scikit-learn's: what is fast must also be right."""
    for side in sides:
        if side.kind == "isotree":
            continue
        block = rows[: KINDS[side.kind].largest_batch]
        scores = np.abs(np.asarray(KINDS[side.kind].load(side.path, 1)(block), np.float64).reshape(-1))
        difference = float(np.abs(scores - wanted[: len(block)]).max())
        exact = 1e-6 if side.name == EXACT else None
        report.figure(f"largest difference from scikit-learn's score, {side.name}", difference, "", at_most=exact)


def _measure(report: Report, sides: Sequence[Contender], rows: Rows, threads: int, quick: bool) -> None:
    """Let all sides take turns at every batch size."""
    scorers = {side.name: KINDS[side.kind].load(side.path, threads) for side in sides}
    for batch in BATCHES[:-1] if quick else BATCHES:
        able = [side for side in sides if KINDS[side.kind].takes(batch, threads)]
        turns = [_turn(side.name, scorers[side.name], rows, batch, threads) for side in able]
        repeats = 3 if quick else REPEATS[batch]
        report.progress(f"batch {batch:,}, {threads} threads: {len(turns)} sides take {repeats} turns")
        timings = take_turns(turns, repeats=repeats, warmups=2)
        report.timings(timings)
        for side, turn in zip(able, turns, strict=True):
            side.timings[threads, batch] = timings[turn.name]


def _turn(name: str, score: Score, rows: Rows, batch: int, threads: int) -> Side:
    """Return a side whose calls see other rows each time, as many calls a turn as the clock needs."""

    def call(number: int) -> Any:
        start = number * 997 % (len(rows) - batch)
        return score(rows[start : start + batch])

    call(0)
    trial = take_turns([Side("trial", call)], repeats=3)["trial"].median
    calls = min(max(round(REPEAT_SECONDS / trial), 1), MOST_CALLS)
    return Side(f"batch {batch:,}, {_threads(threads)}: {name}", call, calls, batch)


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def _memory(report: Report, sides: Sequence[Contender], folder: Path, quick: bool) -> None:
    watched = [side for side in sides if not quick or side.name in (EXACT, "scikit-learn")]
    for side in watched:
        report.progress(f"memory of {side.name} in a process of its own")
        batches = [batch for batch in BATCHES if batch <= KINDS[side.kind].largest_batch]
        answer = in_child("memory", side.kind, side.path, folder / "fresh.npy", ",".join(map(str, batches)))
        if isinstance(answer, str):
            report.note(f"The memory of {side.name} could not be measured. It said: {answer}")
        else:
            side.memory = answer | {"batches": batches}


def _tables(report: Report, sides: Sequence[Contender]) -> None:
    columns = [
        f"{batch:,}" + (f", {_threads(threads)}" if threads > 1 else "") for threads in THREADS for batch in BATCHES
    ]
    report.table(
        "Milliseconds a call by batch size, on one and on two threads; then what converting, loading and keeping cost",
        (
            "side",
            *columns,
            "convert, s",
            "load, ms",
            "file, kB",
            "deflated, kB",
            "memory for scoring, MB",
            "process, MB",
        ),
        [_row(side) for side in sides],
    )
    report.table(
        "Peak memory of a process that loads and scores on one thread, MB, by the largest batch so far",
        ("side", "before loading", "loaded", *(f"{batch:,}" for batch in BATCHES)),
        [_memory_row(side) for side in sides if side.memory],
    )
    report.note(
        "Ratios on one thread are of processor time, which other work on the machine changes little; on two threads"
        " and in the table, times are the clock's."
    )
    report.note(
        "Memory for scoring is what loading the model and scoring up to 10,000 rows at once add to a process that has"
        " only numpy; the process is its peak in all, libraries included."
    )


def _row(side: Contender) -> list[Cell]:
    found = [side.timings.get((threads, batch)) for threads in THREADS for batch in BATCHES]
    data = side.path.read_bytes()
    peak, before = (side.memory["peaks"][-1], side.memory["before"]) if side.memory else (None, None)
    added = None if peak is None or before is None else peak - before
    return [
        side.name,
        *(None if timing is None else timing.median * 1e3 for timing in found),
        side.convert, side.load * 1e3, len(data) / 1000, _deflated(data), added, peak,
    ]  # fmt: skip


def _deflated(data: bytes) -> float:
    """Return kilobytes as in a bundle."""
    return len(zlib.compress(data, 9)) / 1000


def _memory_row(side: Contender) -> list[Cell]:
    peaks = dict(zip(side.memory["batches"], side.memory["peaks"], strict=True))
    return [side.name, side.memory["before"], side.memory["loaded"], *(peaks.get(batch) for batch in BATCHES)]


def _goals(report: Report, sides: Sequence[Contender], quick: bool) -> None:
    by_name = {side.name: side for side in sides}
    ours = by_name[EXACT]
    rivals = [side for side in sides if side.kind != OURS]
    for key, timing in ours.timings.items():
        threads, batch = key
        where = f"batch {batch:,}, {_threads(threads)}"
        goal = None if quick else 2 if key == (1, 1) else 1
        timed = {side.name: side.timings[key] for side in rivals if key in side.timings}
        # The C function is no library's way to score, so it is told apart from those that are.
        alone = timed.pop("tl2cgen as C", None)
        best = min(timed.values(), key=lambda other: median(_ratios(other, timing)))
        _ratio(report, f"{where}: times as fast as the best other", best, timing, goal)
        if batch in (1, BATCHES[-1]):
            wanted = None if quick else 300 if batch == 1 else 1
            _ratio(report, f"{where}: times as fast as scikit-learn", timed["scikit-learn"], timing, wanted)
        if alone is not None:
            _ratio(report, f"{where}: times as fast as tl2cgen's C function alone", alone, timing, None if quick else 1)
    sizes = {side.name: _deflated(side.path.read_bytes()) for side in sides if side.kind == OURS}
    small = min((name for name in sizes if name != EXACT), key=sizes.__getitem__)
    report.figure("model.onnx deflated, fp32", sizes[EXACT], "kB", at_most=None if quick else 145)
    report.figure(
        f"model.onnx deflated, smallest 8-bit form ({small})", sizes[small], "kB", at_most=None if quick else 85
    )


def _ratio(report: Report, name: str, other: Timing, ours: Timing, goal: float | None) -> None:
    repeats = _ratios(other, ours)
    report.figure(name, median(repeats), "x", at_least=goal, repeats=repeats)


def _ratios(other: Timing, ours: Timing) -> list[float]:
    """Return one time by the other for each turn: what disturbs a turn disturbs both sides of it."""
    if "1 thread" in ours.name:  # neighbours on the machine take the clock's time, and hardly the processor's
        return [theirs / own for theirs, own in zip(other.cpu_seconds, ours.cpu_seconds, strict=True)]
    return [theirs / own for theirs, own in zip(other.seconds, ours.seconds, strict=True)]


def _more_trees(report: Report, forest: Any, training: Rows, fresh: Rows, quick: bool) -> None:
    """Compare ours of 500 trees with scikit-learn's of 300."""
    from sklearn.ensemble import IsolationForest

    from benchmarks.forest import scorer
    from exporter import forest_to_onnx

    count = len(forest.estimators_)
    larger = IsolationForest(n_estimators=count * 5 // 3, random_state=0).fit(training)
    score = scorer(forest_to_onnx(larger).SerializeToString())
    for batch in (BATCHES[0], BATCHES[-1]):
        sides = [_turn("ours", score, fresh, batch, 1), _turn("scikit-learn", forest.score_samples, fresh, batch, 1)]
        timings: Mapping[str, Timing] = take_turns(sides, repeats=3 if quick else REPEATS[batch] // 2 + 1)
        own, theirs = (timings[side.name] for side in sides)
        name = f"batch {batch:,}: ours of {len(larger.estimators_)} trees, times as fast as scikit-learn's of {count}"
        _ratio(report, name, theirs, own, None if quick else 1)
