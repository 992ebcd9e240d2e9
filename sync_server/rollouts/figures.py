"""What the gates judge, read from the database: who counts, and what they did now and in the week before.

**Who counts.** Devices of the channel whose cohort is listed, on both sides of the share; enrolled before the rollout
began, not revoked, no demos, and seen (a result or a status) since the present segment began. That is all the server
can know of a poll, since polls carry no name. For silence all count that were seen since the rollout began, or since a
person last resumed it, or in the hours before that make a device silent (at most seven days ago): a device asks before
it sends, so one that a release kills at once was last seen before; one that dies late in a stage is silent for long
enough only in the next.

**What counts.** Whole hours since the segment began, at most the last seven days, by the times of devices' readings;
and the seven days before the rollout began. Times more than a day ahead of the server's clock are left out.

**How much is read.** At most ``SAMPLE`` devices a side, drawn by ``lot``; so a look costs one scan of the devices table
and a bounded number of index look-ups, whatever the size of the fleet.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import text
from sqlalchemy.orm import Session

from edge_runtime.contract.histogram import BINS
from edge_runtime.contract.rollout import Rollout
from sync_server.rollouts.assignment import CHANNEL_DEVICES, LOTS, parameters
from sync_server.rollouts.bounds import Floats
from sync_server.rollouts.findings import Counted, Figures
from sync_server.rollouts.models import RolloutRun
from sync_server.rollouts.plan import Plan

SAMPLE = 2_000
# A look is nobody's request: on a fleet whose summaries are not in memory it may take longer than those may.
_LONGEST_MS = 5 * 60_000
WEEK = timedelta(days=7)
_HOUR_MS = 3_600_000
_NOT_THE_DEVICE = "download_failed"  # a network out of reach says nothing of the release

_KNOWN = "listed AND kind = 'edge' AND created_at < :started_at AND last_seen_at >= :known_since"
_RESUMED = text("SELECT max(at) FROM rollout_steps WHERE rollout_id = :rollout_id AND action = 'resume'")
_COUNTED = f"""
    WITH fleet AS ({CHANNEL_DEVICES}),
    known AS (SELECT *, last_seen_at >= :segment_at AS came FROM fleet WHERE {_KNOWN})
    SELECT count(*) FILTER (WHERE came AND inside) AS inside, count(*) FILTER (WHERE came AND NOT inside) AS outside,
           count(*) FILTER (WHERE came AND inside AND active_release = :release) AS activated,
           count(*) FILTER (WHERE inside) AS known_inside, count(*) FILTER (WHERE NOT inside) AS known_outside
    FROM known
"""  # noqa: S608 - our own constants
_COUNT = text(_COUNTED)

_SUMS = ("windows", "anomalous", "latency_count", "latency_sum_us", *(f"histogram[{n}]" for n in range(1, BINS + 1)))


def _sums(condition: str) -> str:
    terms = ", ".join(f"sum({column}) FILTER (WHERE {condition})" for column in _SUMS)
    return f"CAST(ARRAY[{terms}] AS float8[])"


_FIGURES = text(f"""
    WITH fleet AS ({CHANNEL_DEVICES}), picked AS (
        SELECT id, cohort, inside, active_release, active_bundle, last_seen_at < :silent_since AS silent,
               last_seen_at >= :segment_at AS came,
               status_at >= :segment_at AND status #>> '{{last_update,release}}' = CAST(:release AS text)
               AND (update_outcome = 'refused' OR update_outcome = 'failed' AND update_reason <> :not_the_device)
               AS failed
        FROM fleet
        WHERE {_KNOWN}
              AND lot < CASE WHEN inside THEN CAST(:lots_inside AS integer) ELSE CAST(:lots_outside AS integer) END
    )
    SELECT p.cohort, p.inside, p.came AND p.active_release = :release AS runs, p.active_bundle, p.silent,
           coalesce(p.failed, false) AS failed, s.now, s.before
    FROM picked p, LATERAL (
        SELECT {_sums("p.came AND since.period_start_ms >= :now_from AND since.period_start_ms < :now_to")} AS now,
               {_sums("since.period_start_ms + length <= :before_to")} AS before
        FROM (SELECT *, CASE period WHEN 'hour' THEN {_HOUR_MS} ELSE {24 * _HOUR_MS} END AS length FROM summaries
              WHERE device_id = p.id AND period_start_ms >= :before_from AND received_at >= :received_from
              AND NOT ahead) since
    ) s
""")  # noqa: S608 - our own constants
_TRAINING = text("""
    SELECT digest, cohort, release_number, manifest -> 'histogram' AS histogram FROM bundles
    WHERE model = :model AND release_number IN (:release, :previous)
""")


@dataclass(frozen=True, slots=True)
class Scale:
    """How many devices count, before any sampling.

    Attributes:
        inside: Treated, seen since the segment began.
        outside: In control, seen since then.
        activated: Treated ones, seen since then, that run the release.
        known_inside: Treated ones that count for silence.
        known_outside: In control, and count for silence.
    """

    inside: int
    outside: int
    activated: int
    known_inside: int
    known_outside: int

    def to_dict(self) -> dict[str, int]:
        """Return the counts as they are stored and shown."""
        return asdict(self)


def read_figures(
    session: Session, run: RolloutRun, rollout: Rollout, plan: Plan, now: datetime
) -> tuple[Figures, Scale]:
    """Read the figures of one look.

    Args:
        session: An open transaction, whose statements may take five minutes from then on.
        run: The run; its segment says since when.
        rollout: What is signed.
        plan: Its settings.
        now: The server's clock.
    """
    values = {
        **parameters(run.channel, rollout),
        "started_at": run.started_at,
        "segment_at": run.segment_at,
        "known_since": _known_since(session, run, plan, now),
        "silent_since": now - timedelta(hours=plan.gates.silent.hours),
        "not_the_device": _NOT_THE_DEVICE,
        **_times(run, now),
    }
    scale = Scale(**session.execute(_COUNT, values).mappings().one())
    values["lots_inside"], values["lots_outside"] = _lots(scale.known_inside), _lots(scale.known_outside)
    session.execute(text(f"SET LOCAL statement_timeout = {_LONGEST_MS}"))
    rows = session.execute(_FIGURES, values).all()
    return _figures(rows, _training(session, rollout), rollout, run.silent_before or 0.0), scale


def _known_since(session: Session, run: RolloutRun, plan: Plan, now: datetime) -> datetime:
    """Return since when a device must have been seen to count for silence.

    A person who resumes a rollout knows of the devices that are silent by then.
    """
    resumed = session.execute(_RESUMED, {"rollout_id": run.rollout_id}).scalar_one()
    # Neither is later than the segment's begin, unless the server's clock was set back since.
    began = min(resumed or run.started_at, run.segment_at)
    return max(began - timedelta(hours=plan.gates.silent.hours), now - WEEK)


def _times(run: RolloutRun, now: datetime) -> dict[str, Any]:
    """Return the two stretches of time, in whole hours."""
    # The segment begins no earlier, unless the server's clock was set back since.
    started = min(run.started_at, run.segment_at)
    started_ms = _ms(started) // _HOUR_MS * _HOUR_MS
    since = max(run.segment_at, now - WEEK)
    return {
        "now_from": -(-_ms(since) // _HOUR_MS) * _HOUR_MS,
        "now_to": _ms(now),
        "before_from": started_ms - _ms_of(WEEK),
        "before_to": started_ms,
        "received_from": started - WEEK,
    }


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _ms_of(time: timedelta) -> int:
    return int(time.total_seconds() * 1000)


def _lots(devices: int) -> int:
    """Return below which lot about ``SAMPLE`` of these devices lie."""
    return LOTS if devices <= SAMPLE else LOTS * SAMPLE // devices


def _figures(
    rows: Any, training: dict[tuple[int, str | None], Floats], rollout: Rollout, silent_before: float
) -> Figures:
    unknown = np.full(BINS, np.nan)
    now_training, before_training = np.empty((len(rows), BINS)), np.empty((len(rows), BINS))
    for place, row in enumerate(rows):
        default = training.get((rollout.release, None), unknown)
        now_training[place] = training.get((rollout.release, row.cohort), default) if row.runs else unknown
        default = training.get((rollout.previous or 0, None), unknown)
        before_training[place] = training.get((rollout.previous or 0, row.cohort), default)
    failed = np.array([row.failed for row in rows], bool)
    return Figures(
        treated=np.array([row.inside for row in rows], bool),
        decided=failed | np.array([bool(row.runs) for row in rows], bool),
        failed=failed,
        silent=np.array([row.silent for row in rows], bool),
        now=_counted([row.now for row in rows]),
        before=_counted([row.before for row in rows]),
        training_now=now_training,
        training_before=before_training,
        silent_before=silent_before,
        replaces=rollout.previous is not None,
    )


def _counted(rows: list[list[float | None]]) -> Counted:
    """Unpack sums in the order of ``_SUMS``; None where a device sent nothing."""
    sums = np.nan_to_num(np.array(rows, np.float64).reshape(len(rows), len(_SUMS)))
    windows, anomalous, latency_count, latency_sum_us = sums[:, :4].T
    return Counted(windows, anomalous, sums[:, 4:], latency_count, latency_sum_us)


def _training(session: Session, rollout: Rollout) -> dict[tuple[int, str | None], Floats]:
    """Return the training histograms of both releases as shares, by release and cohort (None: the default bundle)."""
    values = {"model": rollout.model, "release": rollout.release, "previous": rollout.previous}
    found = {}
    for row in session.execute(_TRAINING, values):
        counts = np.array(row.histogram or [], np.float64)
        if len(counts) == BINS and counts.sum() > 0:
            found[row.release_number, row.cohort] = counts / counts.sum()
    return found
