"""``python -m benchmarks.ingest_soak --minutes 10``: does the server's memory stay flat while results come in?"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click

from benchmarks.bench_server import BenchServer, resident_bytes_of
from benchmarks.harness import Cell, Report, readable, write_result
from benchmarks.ingest import CONNECTIONS, REPEAT_SHARE, THREADS, WORKERS, LoadProcess

QUESTION = "Memory of the server's processes while results come in as fast as they are made, for minutes."
_BATCHES = 1_000  # made and sent at once
_MIB = 2**20


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="How long.")
def main(minutes: float) -> None:
    """Send results for some minutes, look at the memory after each thousand batches, and write the result."""
    report = Report("ingest_soak", QUESTION, quick=minutes < 10)
    with (
        tempfile.TemporaryDirectory() as folder,
        BenchServer(Path(folder), workers=WORKERS, settings={"threads": THREADS}) as server,
        LoadProcess() as load,
    ):
        server.publish()
        load.take_over(server.enrol(2_000))
        soak(report, server, load, minutes)
    result = report.to_dict() | {"command": f"python -m benchmarks.ingest_soak --minutes {minutes:g}"}
    click.echo(readable(result))
    click.echo(f"written to {write_result(result)}", err=True)


def soak(report: Report, server: BenchServer, load: LoadProcess, minutes: float) -> None:
    """Send until the time is up, and report the memory's growth after the first fifth of the time."""
    began, looks, others, stored = time.monotonic(), list[tuple[float, int]](), 0, 0
    while (passed := time.monotonic() - began) < 60 * minutes:
        load.ask("make", batches=_BATCHES)
        answer = load.ask("http", port=server.place[1], connections=CONNECTIONS, repeat_share=REPEAT_SHARE)
        others += sum(count for status, count in answer["statuses"].items() if status != "200")
        stored += answer["stored"]
        looks.append((passed, resident_bytes_of(server.pid)["server"]))
        report.progress(f"{stored:,} results stored, {looks[-1][1] / _MIB:.0f} MiB")
    warm = [size for passed, size in looks if passed >= 12 * minutes] or [looks[-1][1]]
    report.figure("growth after the first fifth of the time", (max(warm) / warm[0] - 1) * 100, "%", at_most=5)
    report.figure("most memory of all processes of the server", max(size for _, size in looks) / _MIB, "MiB")
    report.figure("results stored", stored, "")
    report.figure("answers other than 200", others, "", at_most=0)
    step = max(1, len(looks) // 20)
    rows: list[list[Cell]] = [[round(passed / 60, 2), round(size / _MIB, 1)] for passed, size in looks[::step]]
    report.table("Resident memory of the server's processes", ("minute", "MiB"), rows)


if __name__ == "__main__":
    main()
