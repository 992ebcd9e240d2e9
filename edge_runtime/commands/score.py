"""``edge-runtime score``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from edge_runtime.config import Config
from edge_runtime.errors import INTERRUPTED
from edge_runtime.options import device_options, show

if TYPE_CHECKING:
    from edge_runtime.reading_scorer import Explain
    from edge_runtime.scoring_run import ScoringSummary
    from edge_runtime.telemetry import Format
    from edge_runtime.verdict import Verdict

PROGRESS_AFTER_SECONDS = 2.0
_PROGRESS_EVERY_SECONDS = 0.2


@click.command(short_help="Score readings, offline.")
@click.option("--input", "source", metavar="FILE", default="-", help="Readings; - is standard input.  [default: -]")
@click.option(
    "--format", "form", type=click.Choice(["auto", "csv", "ndjson"]), default="auto", help="What the lines are."
)
@click.option("--output", metavar="FILE", help="Where verdicts go as NDJSON.  [default: standard output]")
@click.option("--quiet", "-q", is_flag=True, help="No verdicts; only the summary.")
@click.option("--allow-missing-signals", is_flag=True, help="Take readings that lack signals of the model.")
@click.option(
    "--explain",
    type=click.Choice(["stored", "all", "none"]),
    default="stored",
    help="Which anomalies get contributions.  [default: those that are stored]",
)
@device_options()
def score(
    config: Config,
    as_json: bool,
    source: str,
    form: Format,
    output: str | None,
    quiet: bool,
    allow_missing_signals: bool,
    explain: Explain,
) -> None:
    """Score readings with the active bundle, offline.

    Readings are CSV or NDJSON with a column `timestamp` (ISO 8601, or epoch seconds) and one for each signal of the
    model. Each gets one line of NDJSON once it is stored. The same readings may be given again at any time: those
    that this device knows are counted and not scored again. With --json one JSON object is printed and verdicts go
    only where --output says. Ctrl-C and SIGTERM end it after what was read is stored (exit code 130).
    """
    from edge_runtime.device_scoring import Device
    from edge_runtime.scoring_run import score_input, summary_fields, summary_text
    from edge_runtime.stopping import Stop
    from edge_runtime.telemetry import STDIN, Telemetry, open_input

    to_stdout = output in (None, "-")
    silent = quiet or (as_json and to_stdout)
    with (
        open_input(source) as stream,
        Device.open(config.home, explain=explain) as device,
        _destination(None if silent else output) as sink,
        Stop() as stop,
        stop.on_signals(),
    ):
        signals = [signal.name for signal in device.scorer.bundle.manifest.signals]
        name = "standard input" if source == STDIN else source
        telemetry = Telemetry(
            stream, signals, name=name, form=form, allow_missing_signals=allow_missing_signals, stop=stop
        )
        deliver = _ignore if silent else _writer(sink)
        summary = score_input(
            device.scorer, telemetry, deliver=deliver, progress=_progress(verdicts=not silent and to_stdout)
        )
    text = summary_text(summary, telemetry)
    if as_json or silent or not to_stdout:
        show(summary_fields(summary, telemetry), text, as_json=as_json)
    else:
        click.echo(text, err=True)
    if stop.told:
        click.get_current_context().exit(INTERRUPTED)


def _destination(output: str | None) -> AbstractContextManager[TextIO]:
    from edge_runtime.errors import StorageError

    if output in (None, "-"):
        return nullcontext(sys.stdout)
    try:
        return Path(output).open("w", encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"Verdicts cannot be written to {output}: {error.strerror}.", advice="Choose another --output."
        ) from error


def _writer(sink: TextIO) -> Callable[[Sequence[Verdict]], None]:
    def write(verdicts: Sequence[Verdict]) -> None:
        # Late and duplicate readings are counted, not listed: a file fed again would list itself.
        lines = [
            json.dumps(verdict.to_dict(), ensure_ascii=False)
            for verdict in verdicts
            if verdict.outcome not in ("late", "duplicate")
        ]
        if lines:
            sink.write("\n".join(lines) + "\n")
            sink.flush()

    return write


def _ignore(verdicts: Sequence[Verdict]) -> None:
    del verdicts


def _progress(*, verdicts: bool) -> Callable[[ScoringSummary], None] | None:
    """Return a display on stderr, or None when nobody looks at a terminal or verdicts fill it."""
    if not sys.stderr.isatty() or (verdicts and sys.stdout.isatty()):
        return None
    started = shown_at = time.monotonic()

    def display(summary: ScoringSummary) -> None:
        nonlocal shown_at
        now = time.monotonic()
        if now - started < PROGRESS_AFTER_SECONDS or now - shown_at < _PROGRESS_EVERY_SECONDS:
            return
        shown_at = now
        # Ends at the start of its own line, so that the next one, and the longer summary, overwrite it.
        sys.stderr.write(f"scored {summary.outcomes['scored']:,} readings, {summary.anomalous:,} anomalous\r")
        sys.stderr.flush()

    return display
