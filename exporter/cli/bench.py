"""``exporter bench``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exporter.cli.options import json_option
from exporter.cli.output import emit

if TYPE_CHECKING:
    from exporter.latency import Measured


@click.command()
@click.argument("model", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--provider", type=click.Choice(("cpu", "cuda")), default="cpu", show_default=True, help="Who runs the operators."
)
@click.option(
    "--batch", "batches", type=click.IntRange(1, 1_000_000), multiple=True,
    help="Windows in one call. Repeatable.  [default: 1, 10, 100, 1000, 10000]",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Threads; devices score on one."
)
@json_option
def bench(model: Path, provider: str, batches: tuple[int, ...], threads: int, as_json: bool) -> None:
    """Measure MODEL, a bundle or an ONNX file, on this machine: latency, loading, memory, operators."""
    from exporter.latency import BATCHES, measure, read_subject

    measured = measure(read_subject(model), provider=provider, batches=batches or BATCHES, threads=threads)
    emit({"model": str(model)} | measured.to_dict(), _lines(model, measured), as_json)


def _lines(model: Path, measured: Measured) -> Iterator[str]:
    threads = "1 thread" if measured.threads == 1 else f"{measured.threads} threads"
    yield f"{model}: model.onnx of {measured.model_bytes:,} bytes, {measured.provider}, {threads}"
    yield f"loads in {measured.load_ms:.1f} ms"
    yield f"{'batch':>8}  {'median, ms':>11}  {'95 %, ms':>11}  {'windows a second':>16}  {'memory added, MB':>16}"
    for row in measured.batches:
        memory = "-" if row.memory_mb is None else f"{row.memory_mb:.1f}"
        times = f"{row.median_ms:>11.4g}  {row.p95_ms:>11.4g}"
        yield f"{row.batch:>8,}  {times}  {row.windows_per_second:>16,.0f}  {memory:>16}"
    if measured.one_core_ms is not None:
        yield f"one window on one core of this machine and one thread: {measured.one_core_ms:.4g} ms"
    for provider, operators in measured.operators.items():
        yield f"{provider} runs {', '.join(operators)}"
    if measured.fallen_back:
        yield f"No {measured.provider} kernel, so the CPU ran: {', '.join(measured.fallen_back)}"
