"""How soon do the gates of a rollout see a bad release, and how often do they stop a good one."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import text

from benchmarks.harness import Cell, Report
from benchmarks.rollout_fleet import Nature, RandomFleet, add
from benchmarks.rollout_story import Release, Story
from benchmarks.rollout_trial import Trial, try_out
from sync_server.db import Database
from sync_server.embedded_postgres import EmbeddedPostgres
from sync_server.migrations import migrate
from sync_server.rollouts.findings import Figures
from sync_server.rollouts.gates import judge
from sync_server.rollouts.plan import Plan

QUESTION = (
    "How soon the gates of a rollout see a release that flags 1.5, 2 or 3 times as many windows, and how often they"
    " stop one that is the same."
)
PLAN = Plan()
IDENTICAL, BAD = 400, 60
QUICK_IDENTICAL, QUICK_BAD = 8, 4
# Mean shares of anomalous windows of a healthy fleet.
FLEETS = {"2 % anomalous": Nature(), "0.5 % anomalous": Nature(anomalous=0.005)}
_TABLES = ("channels", "rollout_runs", "devices", "enrolments", "access_tokens", "bundles", "tuf_metadata", "summaries")
RISES = (1.5, 2.0, 3.0)
STORIES = {
    "bad: anomaly share tripled, self-test passes": (Release(rise=3.0), 96),
    "good: the same as before": (Release(), 132),
}


def run(report: Report, *, quick: bool) -> None:
    """Measure false alarms, detection, the cost of a look, and tell the two stories."""
    _false_alarms(report, QUICK_IDENTICAL if quick else IDENTICAL)
    _detection(report, QUICK_BAD if quick else BAD)
    _cost(report)
    _stories(report)
    report.note(
        "Fleets of 2,000 devices by the default plan: 1 % for 24 hours, 4 % for 24, 20 % for 24, 100 % watched for 48;"
        " a look each hour; error rate 1 % a rollout. Devices' rates differ over a hundredfold, anomalies come in"
        " bursts, devices and the fleet have better and worse days. The stories go through a real database, controller"
        " and signed metadata, with polls and looks each four hours."
    )


def _false_alarms(report: Report, count: int) -> None:
    trials = [try_out(seed, PLAN, Nature()) for seed in range(count)]
    stopped = sum(bool(trial.tripped) for trial in trials)
    report.figure(f"of {count} rollouts of an identical release, stopped", stopped, "", at_most=0.01 * count)
    report.figure("an identical release reaches everybody and is finished after", trials[0].hours, "h")


def _detection(report: Report, count: int) -> None:
    rows: list[list[Cell]] = []
    for title, nature in FLEETS.items():
        for rise in RISES:
            trials = [try_out(1000 + seed, PLAN, nature, rise=rise) for seed in range(count)]
            rows.append([f"{title}, x {rise:g}", *_row(trials)])
            report.progress(f"{title}, x {rise:g}: {rows[-1][1:]}")
            if title == next(iter(FLEETS)):
                _figures(report, rise, trials)
    columns = ("fleet and rise", "rollouts", "stopped", "hours, median", "hours, 9 of 10", "share that had it, median",
               "share that had it, most", "stopped in stage 1", "stage 2", "stage 3", "stage 4")  # fmt: skip
    report.table("Time to detect a rise of the anomaly share", columns, rows)


def _row(trials: list[Trial]) -> list[Cell]:
    stopped = [trial for trial in trials if trial.tripped]
    hours, had_it = ([getattr(trial, name) for trial in stopped] or [float("nan")] for name in ("hours", "had_it"))
    stages = [sum(trial.stage == number for trial in stopped) for number in range(len(PLAN.stages))]
    middle = [float(np.median(hours)), float(np.quantile(hours, 0.9)), float(np.median(had_it)), max(had_it)]
    return [len(trials), len(stopped), *middle, *stages]


def _figures(report: Report, rise: float, trials: list[Trial]) -> None:
    hours = [trial.hours if trial.tripped else float("inf") for trial in trials]
    report.figure(f"x {rise:g}: hours until it is stopped, median", float(np.median(hours)), "h")
    if rise == max(RISES):
        early = float(np.mean([bool(trial.tripped) and trial.had_it < 0.05 for trial in trials]))
        report.figure(f"x {rise:g}: stopped before 5 % of the fleet have it", early, "of rollouts", at_least=0.95)


def _cost(report: Report) -> None:
    """Time the statistics of one look at the largest sample."""
    fleet = RandomFleet(Nature(devices=10_000), 1)
    before, now = add(fleet.count(72), fleet.count(72)), fleet.count(24)
    treated, none = np.arange(10_000) % 2 == 0, np.zeros(10_000, bool)
    training = np.tile(fleet.training_shares(), (10_000, 1))
    figures = Figures(treated, treated, none, none, now, before, training, training)
    repeats = []
    for _ in range(5):
        start = time.process_time()
        judge(figures, PLAN, 1e-5)
        repeats.append((time.process_time() - start) * 1000)
    report.figure("one look at 10,000 devices, statistics alone", float(np.median(repeats)), "ms", repeats=repeats)


def _stories(report: Report) -> None:
    devices = Nature().devices
    key = ec.generate_private_key(ec.SECP256R1())
    with _server() as database:
        for title, (release, hours) in STORIES.items():
            _empty(database)
            story = Story(database, RandomFleet(Nature(devices=devices), 5), key, release)
            story.start(_with_longer_looks(PLAN))
            story.run(hours)
            rows: list[list[Cell]] = [
                [f"{at:g} h", f"{share / 100:g} %", state, have, have / devices] for at, share, state, have in story.log
            ]
            if story.end is not None:
                rows.append([f"{story.end[0]:g} h", *rows[-1][1:2], story.end[1], devices, story.share_that_had_it])
            report.table(
                f"Story, {title}: {devices} devices", ("time", "share", "state", "devices on it", "of all"), rows
            )


def _with_longer_looks(plan: Plan) -> Plan:
    """Return a plan that looks each four hours, the time between two polls of a story's devices."""
    return Plan.from_stored({**plan.to_dict(), "look_minutes": 240})


@contextmanager
def _server() -> Iterator[Database]:
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "postgres") as postgres:
        migrate(postgres.owner_url, app_role="stella_app")
        database = Database(postgres.owner_url)
        try:
            yield database
        finally:
            database.dispose()


def _empty(database: Database) -> None:
    """Take away what the last story left."""
    with database.session() as session:
        session.execute(text(f"TRUNCATE {', '.join(_TABLES)} CASCADE"))
