"""Writes docs/performance.md: row by row the figures of the system that this one replaces, beside what is measured.

What was measured then, and what was promised of ONNX, stands here as it was handed down; everything else comes from the
result files, and what has none says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.harness import FIGURE_COLUMNS, circumstances, figure_rows, markdown_table
from benchmarks.known import NOT_MEASURED, Known, with_unit
from benchmarks.machine import REPOSITORY
from benchmarks.server_rows import server_rows

PAGE = REPOSITORY / "docs" / "performance.md"
COLUMNS = ("", "then", "promised", "measured here")
# scikit-learn then (milliseconds, MB) and ONNX as promised (milliseconds on the CPU), by batch.
BATCHES: dict[int, tuple[str, str]] = {
    1: ("4.2 ms / 180 MB", "1.2 ms"),
    10: ("8.5 ms / 182 MB", ""),
    100: ("42 ms / 195 MB", "12 ms"),
    1_000: ("380 ms / 240 MB", ""),
    10_000: ("4,200 ms / 520 MB", "1,100 ms"),
}
# Titles of tables in the result files, by what they begin with or hold.
FORMS = r"^Milliseconds a call by batch size$"
SPEED, MEMORY = r"^Milliseconds a call by batch size, on", r"^Peak memory of a process"
BUILD, FEATURES = r"^Building .* of 10,000 devices", r"of 10,000 devices, 5 signals"
OURS, SKLEARN = "ours fp32", "scikit-learn"
_HEAD = """# Performance, beside the system that this one replaces

<!-- Made by `python -m benchmarks.document` from benchmarks/results/*.json; do not edit. -->

*Then* is what that system took, *promised* is what was expected of ONNX, *measured here* comes from
[benchmarks/results](../benchmarks/results), with the command that measures it. Machines differ: what ran then
is not on record, what runs here is named under each table. All benchmarks: [benchmarks.md](benchmarks.md).
"""
_DIFFERENT = """## What is done differently, and why

- **INT8 of forests.** It asked for ONNX Runtime's quantizer, 12 MB to 3 MB. That quantizer returns a forest as it was,
  without a word ([onnxruntime 11436](https://github.com/microsoft/onnxruntime/issues/11436)). Forests get 256 levels
  taken from their own thresholds (`codebook8`), or integer tables that core operators walk (`int8`); each is measured
  beside fp32, and one that costs more than it saves is refused with its figures.
- **Speed.** It asked for skl2onnx, whose graph of an isolation forest has 27 nodes a tree and is slower than
  scikit-learn in batches. The whole forest is one `TreeEnsemble` node here
  ([decision 2](adr/0002-own-forest-converter.md)).
- **Features.** It asked for pandas on the server and a second implementation on the device. They are nodes of the same
  graph, in training too, so that nothing can drift apart ([decision 1](adr/0001-one-graph.md)).
- **onnxruntime-tools.** It is deprecated and does not start with current packages; `onnxruntime.quantization` and
  `onnxruntime.tools` took its place.
- **Memory.** It asked for less of scikit-learn's; scoring needs neither scikit-learn nor pandas here, and the device
  scores batches in blocks, so that memory does not grow with them.
- **GPU.** ONNX Runtime has no CUDA kernel for tree operators, so a forest on `--provider cuda` runs on the CPU and
  `exporter bench` names the operators that did. The `int8` form needs core operators only; on a GPU it is not measured.
- **One core of a device.** There is no phone here. The process is pinned to one core of this machine and one thread; a
  phone's core is some times slower, and the row leaves room for that.
"""


def page(results: Iterable[Mapping[str, Any]], elsewhere: Iterable[Mapping[str, Any]] = ()) -> str:
    """Return the page in Markdown.

    Args:
        results: What ``read_results`` returns, any of them missing.
        elsewhere: What other machines made of the same benchmarks.
    """
    known = Known({result["benchmark"]: result for result in results})
    parts = [_HEAD, *_batches(known), *_training(known), *_forests(known), *_networks(known), *_devices(known)]
    parts += [*_gpu(known), *server_rows(known), *_elsewhere(list(elsewhere)), _DIFFERENT]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _batches(known: Known) -> list[str]:
    """A forest of 300 trees, by batch; memory is the whole process."""
    rows = []
    for batch, (then, promised) in BATCHES.items():
        column = f"{batch:,}"

        def side(name: str, column: str = column) -> str:
            time = known.cell("scoring", SPEED, name, column, "ms")
            memory = known.cell("scoring", MEMORY, name, column, "MB")
            return time if time == NOT_MEASURED else f"{time} / {memory}"

        two = known.cell("scoring", SPEED, OURS, f"{column}, 2 threads", "ms")
        rows.append([column, then, promised, side(SKLEARN), side(OURS), two])
    columns = ("rows in a call", "then, scikit-learn", "promised, CPU", "scikit-learn here", "ours here", "2 threads")
    text = "One forest of 300 trees on 25 features, one thread unless said; time of a call and memory of the process."
    return ["## Scoring by batch", text, markdown_table(columns, rows), known.source("scoring", "make bench-scoring")]


def _training(known: Known) -> list[str]:
    whole = known.figure("training", r"^building the models of 10,000 devices$")
    rows = [
        ["all of it", "52 min", "", whole],
        ["loading", "7 min", "", known.cell("training", BUILD, "read", "seconds", "s")],
        ["features", "15 min", "", known.cell("training", FEATURES, "ours, 2 threads", "all features", "s")],
        ["forest", "22 min", "", known.cell("training", FEATURES, "ours, 2 threads", "forest", "s")],
        ["cohorts", "5 min", "", "in the phases below"],
        ["calibration", "3 min", "", "in the phases below"],
    ]
    rows += [[f"phase: {phase}", "", "", with_unit(took, "s")] for phase, took in known.rows("training", BUILD)]
    memory = known.figure("training", r"^building the models of 10,000 devices, peak memory$")
    rows.append(["peak memory", "", "", memory])
    text = (
        "10,000 devices, 90 days of hourly readings. Loading and the phases are those of the whole build, models of"
        " cohorts in parallel, so that their phases add up to more than all of it; features and forest alone are of"
        " five signals."
    )
    return ["## Training", text, markdown_table(COLUMNS, rows), known.source("training", "make bench-training")]


def _forests(known: Known) -> list[str]:
    def times(batch: str) -> str:
        return known.figure("scoring", rf"^batch {batch}: ours of 500 trees")

    rows = [
        ["one row, 500 trees in the time of 300: times as fast", "", "at least 1", times("1")],
        ["10,000 rows, the same", "", "at least 1", times("10,000")],
        ["model", "12 MB", "", known.cell("scoring", SPEED, OURS, "file, kB", "kB")],
        ["model in the bundle", "", "", known.figure("scoring", r"^model.onnx deflated, fp32")],
        ["smallest 8-bit form in the bundle", "", "3 MB", known.figure("scoring", r"^model.onnx deflated, smallest")],
    ]
    return ["## Size of forests", markdown_table(COLUMNS, rows), known.source("scoring", "make bench-scoring")]


def _networks(known: Known) -> list[str]:
    rows = [[name, "", "", measured] for name, measured in known.goals("autoencoder")]
    rows = rows or [["INT8 of an autoencoder", "", "a quarter of the size", NOT_MEASURED]]
    return [
        "## Networks",
        markdown_table(COLUMNS, rows),
        known.source("autoencoder", "python -m benchmarks autoencoder"),
    ]


def _devices(known: Known) -> list[str]:
    core = known.figure("graph", r"^one window, one core")
    rows = [
        ["one window on one core, features to verdict", "", "85 ms", core],
        ["the same verdicts on aarch64: others of 2,000 windows", "", "0", known.figure("aarch64", r"^other verdicts")],
        ["largest difference of raw scores", "", "", known.figure("aarch64", r"^largest difference")],
    ]
    sources = (
        known.source("graph", "python -m benchmarks graph"),
        known.source("aarch64", "python -m benchmarks.aarch64"),
    )
    text = "The Arm core is emulated: its verdicts are true, its times would not be."
    return ["## Devices", text, markdown_table(COLUMNS, rows), *sources]


def _gpu(known: Known) -> list[str]:
    rows = [
        [f"{form}, {batch:,} rows in a call", "", "", known.cell("gpu", FORMS, f"{form}, cuda", f"{batch:,}", "ms")]
        for form in ("int8", "fp32")
        for batch in BATCHES
    ]
    text = "A bundle of yours: `exporter bench MODEL.bundle --provider cuda`, which says so where there is no GPU."
    return ["## GPU", text, markdown_table(COLUMNS, rows), known.source("gpu", "python -m benchmarks gpu")]


def _elsewhere(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a goal comes to on another machine: one machine's figures say little of the next."""
    if not results:
        return []
    rows = [
        [f"{result['benchmark']}: {row[0]}", *row[1:]] for result in results for row in figure_rows(result) if row[3]
    ]
    text = (
        "The same commands on another, slower machine, and whether the goals are reached there; all of it in"
        " [benchmarks/results/elsewhere](../benchmarks/results/elsewhere)."
    )
    sources = [f"`{result['command']}` _{circumstances(result)}_" for result in results]
    return ["## On another machine", text, markdown_table(FIGURE_COLUMNS, rows), *sources]
