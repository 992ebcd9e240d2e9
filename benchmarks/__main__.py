"""``python -m benchmarks [name ...] [--quick] [--json]``: run benchmarks, each in a process of its own.

A process of its own, because threads, caches and memory of one script would be in the figures of the next.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.document import write_pages
from benchmarks.harness import NAMES, Report, read_results, readable, write_result
from benchmarks.machine import REPOSITORY

# One thread everywhere: a device gives scoring one core, and comparisons are on equal terms. The scripts named here
# measure more, and set the threads of each side themselves.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_MOST_THREADS = {"scoring": "2"}

# Where the libraries are that these scripts compare with; without it they say what they left out.
_RIVALS_PYTHON = REPOSITORY / ".venv-rivals" / "bin" / "python"
_WITH_RIVALS = ("scoring", "training")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(NAMES), metavar="[NAME]...")
@click.option("--quick", is_flag=True, help="Small sizes, under a minute in all; results go to build/benchmarks.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object of all results instead of tables.")
@click.option("--list", "listing", is_flag=True, help="Say which benchmarks there are, and what each answers.")
@click.option("--child", is_flag=True, hidden=True)
def main(names: tuple[str, ...], quick: bool, as_json: bool, listing: bool, child: bool) -> None:
    """Measure what the project promises; all benchmarks when no NAME is given."""
    if listing:
        for name in NAMES:
            click.echo(f"{name:10s} {importlib.import_module(f'benchmarks.{name}').QUESTION}")
        return
    if child:
        click.echo(json.dumps(_measure(names[0], quick)))
        return
    results, failed = [], []
    for name in names or NAMES:
        click.echo(f"{name} ...", err=True)
        result = _in_own_process(name, quick)
        if result is None:
            failed.append(name)
            continue
        results.append(result)
        path = write_result(result)
        if not as_json:
            click.echo(readable(result))
        click.echo(f"{name}: written to {path.relative_to(REPOSITORY)}", err=True)
    if not quick:
        write_pages(read_results())
    if as_json:
        click.echo(json.dumps({"results": results, "failed": failed}))
    missed = [f"{r['benchmark']}: {f['name']}" for r in results for f in r["figures"] if f["met"] is False]
    missed += [f"{result['benchmark']}: nothing was measured" for result in results if not result["figures"]]
    click.echo("".join(f"missed: {name}\n" for name in missed) or "every goal reached", err=True)
    if failed:
        raise click.ClickException(f"These benchmarks failed: {', '.join(failed)}. Their messages are above.")


def _in_own_process(name: str, quick: bool) -> dict[str, Any] | None:
    """Run one script in a new process; None when it fails (what it said is on standard error)."""
    python = _RIVALS_PYTHON if name in _WITH_RIVALS and _RIVALS_PYTHON.exists() else Path(sys.executable)
    command = [str(python), "-m", "benchmarks", "--child", name, *(["--quick"] if quick else [])]
    threads = dict.fromkeys(_THREAD_VARIABLES, _MOST_THREADS.get(name, "1"))
    done = subprocess.run(command, cwd=REPOSITORY, env=os.environ | threads, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        return None
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _measure(name: str, quick: bool) -> dict[str, Any]:
    """Run one script here."""
    script = importlib.import_module(f"benchmarks.{name}")
    report = Report(name, script.QUESTION, quick)
    script.run(report, quick=quick)
    return report.to_dict()


if __name__ == "__main__":
    main()
