"""A rollout from its start to its end with a simulated clock: a real database, controller and signed metadata.

The devices are rows of the table, and every one decides at each step by the contract's own function from the signed
timestamp, as it verified it. Only their telemetry is made up, by :mod:`benchmarks.rollout_fleet`.

Example::

    story = Story(database, RandomFleet(Nature(), seed=1), key)
    story.start(plan)
    story.run(hours=200)
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.signer import CryptoSigner, SSlibKey
from sqlalchemy import select, text
from tuf.api.metadata import Metadata, Root, TargetFile, Targets, Timestamp

from benchmarks.rollout_fleet import RandomFleet
from edge_runtime.contract.release import CUSTOM_FIELD, TargetCustom
from edge_runtime.contract.rollout import Rollout, decide, parse_rollouts
from sync_server.db import Database
from sync_server.repository import metadata
from sync_server.repository.online_key import public_pem
from sync_server.repository.signing import sign_snapshot
from sync_server.rollouts.bounds import Flags
from sync_server.rollouts.controller import tend
from sync_server.rollouts.findings import Counted
from sync_server.rollouts.models import RolloutRun
from sync_server.rollouts.plan import Plan
from sync_server.rollouts.requests import Start
from sync_server.rollouts.service import change_rollout

MODEL, CHANNEL = "pumps", "stable"
NOTHING, OLD, NEW = 0, 1, 2
BEGIN = datetime(2026, 11, 2, tzinfo=UTC)
HOUR_MS = 3_600_000

_DEVICES = text("""
    WITH token AS (
        INSERT INTO access_tokens (kind, digest, name, created_at) VALUES ('enr', sha256('story'), 'story', :began)
        RETURNING id
    ), enrolment AS (
        INSERT INTO enrolments (token_id, model, channel, uses_allowed, created_by)
        SELECT id, :model, :channel, 1, 'story' FROM token RETURNING token_id
    )
    INSERT INTO devices (id, installation_id, enrolment_id, cohort, kind, model, channel, created_at, last_seen_at,
                         active_release)
    SELECT id, id, (SELECT token_id FROM enrolment), cohort, 'edge', :model, :channel, :began, :began, :old
    FROM unnest(CAST(:ids AS text[]), CAST(:cohorts AS text[])) AS device (id, cohort)
""")
_BUNDLES = text("""
    INSERT INTO bundles (digest, path, model, version, release_number, size, size_unpacked, signer, manifest,
                         published_at)
    VALUES (:digest, :path, :model, :version, :release, 1, 1, '', CAST(:manifest AS jsonb), :now)
""")
_STATUS = text("""
    UPDATE devices SET last_seen_at = :now, status_at = :now, active_release = s.release, active_bundle = s.bundle,
           update_outcome = s.outcome, update_reason = s.reason,
           status = jsonb_build_object('last_update', jsonb_build_object('release', s.wanted))
    FROM unnest(CAST(:ids AS text[]), CAST(:releases AS bigint[]), CAST(:bundles AS text[]), CAST(:wanted AS bigint[]),
                CAST(:outcomes AS text[]), CAST(:reasons AS text[])) AS s (id, release, bundle, wanted, outcome, reason)
    WHERE devices.id = s.id
""")
_SUMMARIES = text("""
    INSERT INTO summaries (received_at, stream_id, sequence, digest, device_id, bundle, period_start_ms, period,
                           windows, anomalous, warming_up, late, cells, missing, histogram, latency_count,
                           latency_sum_us, latency_max_us, ahead)
    SELECT :received, 1, 1, '', r.id, r.bundle, :start_ms, :period, r.windows, r.anomalous, 0, 0, 0, 0, r.histogram,
           r.windows, r.latency, 0, false
    FROM jsonb_to_recordset(CAST(:rows AS jsonb))
         AS r (id text, bundle text, windows bigint, anomalous bigint, histogram bigint[], latency bigint)
    WHERE r.windows > 0
""")


@dataclass(frozen=True, slots=True)
class Release:
    """How a release behaves.

    Attributes:
        rise: Times as many anomalous windows as the old one.
        slower: Times its latency.
        refused: Share of the devices on which its self-test fails.
        silenced: Share of the devices that it makes fall silent.
        silent_after: Hours after its activation when they do; at 0 they do before they can tell of it.
    """

    rise: float = 1.0
    slower: float = 1.0
    refused: float = 0.0
    silenced: float = 0.0
    silent_after: float = 0.0


@dataclass
class Story:
    """A fleet on a server, and its clock.

    Attributes:
        database: Empty but for the schema.
        fleet: How its devices behave.
        key: The server's online key.
        release: How the new release behaves.
        step_hours: Time between two polls of every device.
        cohorts: The devices' cohorts, in turn.
        now: The clock of everything.
        log: What was signed, whenever it changed: hours since the start, share, state, devices on the new release.
    """

    database: Database
    fleet: RandomFleet
    key: ec.EllipticCurvePrivateKey
    release: Release = field(default_factory=Release)
    step_hours: int = 4
    cohorts: tuple[str, ...] = ("north",)
    now: datetime = BEGIN
    log: list[tuple[float, int, str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        count = self.fleet.nature.devices
        self.ids = [hashlib.sha256(f"{self.fleet.rng.random()} {n}".encode()).hexdigest()[:32] for n in range(count)]
        self.cohort_of = [self.cohorts[n % len(self.cohorts)] for n in range(count)]
        self.active = np.full(count, OLD)
        self.activated_at = np.full(count, np.inf)
        draws = self.fleet.rng.random((2, count))
        self.refuses, self.falls_silent = draws[0] < self.release.refused, draws[1] < self.release.silenced
        self.bundles = {number: hashlib.sha256(f"release {number}".encode()).hexdigest() for number in (OLD, NEW)}
        self._publish()
        self._live_a_week()

    def start_first(self, plan: Plan) -> Rollout:
        """Take away what the fleet ran and counted until now, and start the channel's first rollout."""
        self.active[:] = NOTHING
        with self.database.session() as session:
            session.execute(text("DELETE FROM summaries"))
            session.execute(text("UPDATE devices SET active_release = NULL, last_seen_at = :now"), {"now": self.now})
        with self.database.session() as session:
            new = Start(MODEL, NEW, plan=plan)
            return change_rollout(session, self.key, CHANNEL, new, actor="engineer", now=self.now)

    def start(self, plan: Plan) -> Rollout:
        """Let the fleet run the old release, and start the rollout of the new one."""
        with self.database.session() as session:
            old = Start(MODEL, OLD, share=10_000)
            change_rollout(session, self.key, CHANNEL, old, actor="engineer", now=self.now)
        self.now -= timedelta(hours=1)
        self.poll()
        self.now += timedelta(hours=1)
        with self.database.session() as session:
            new = Start(MODEL, NEW, plan=plan)
            return change_rollout(session, self.key, CHANNEL, new, actor="engineer", now=self.now)

    def run(self, hours: int) -> Rollout:
        """Let time pass: devices poll and score, upkeep takes its turns. Returns the rollout at the end."""
        for _ in range(0, hours, self.step_hours):
            self.live()
            self.turn()
            self._write_down(self.signed())
        return self.signed()

    def live(self) -> None:
        """Let devices poll, and score for the hours until their next poll."""
        self.poll()
        self._score(self.step_hours)
        self.now += timedelta(hours=self.step_hours)

    def turn(self) -> None:
        """Let upkeep take one turn."""
        tend(self.database, lambda: self.key, now=self.now)

    def poll(self) -> None:
        """Let every device that still can poll, decide, and say how it is."""
        rollout = self.signed()
        devices = zip(self.ids, self.cohort_of, self.active, strict=True)
        wanted = np.array([decide(rollout, name, cohort, int(active)) or active for name, cohort, active in devices])
        fails = (wanted == NEW) & self.refuses & (self.active != NEW)
        activates = self._awake() & ~fails & (wanted != self.active)
        self.active = np.where(activates, wanted, self.active)
        self.activated_at[activates] = self.hours
        places = np.flatnonzero(self._awake())
        values = {
            "now": self.now,
            "ids": [self.ids[n] for n in places],
            "releases": [int(self.active[n]) or None for n in places],
            "bundles": [self.bundles.get(int(self.active[n])) for n in places],
            "wanted": [int(wanted[n]) for n in places],
            "outcomes": ["refused" if fails[n] else "unchanged" for n in places],
            "reasons": ["golden_failed" if fails[n] else None for n in places],
        }
        with self.database.session() as session:
            session.execute(_STATUS, values)

    def signed(self) -> Rollout:
        """Return the channel's rollout as a device reads it: from the timestamp, its signature verified."""
        with self.database.session() as session:
            row, root = metadata.latest(session, "timestamp"), metadata.current_root(session)
        assert row is not None
        timestamp = Metadata[Timestamp].from_bytes(row.body)
        root.verify_delegate("timestamp", timestamp.signed_bytes, timestamp.signatures)
        return parse_rollouts(timestamp.signed.unrecognized_fields)[CHANNEL]

    @property
    def hours(self) -> float:
        """Hours since the story began."""
        return (self.now - BEGIN).total_seconds() / 3600

    @property
    def end(self) -> tuple[float, str] | None:
        """When, in hours since the story began, and how the rollout ended; None while it has not."""
        with self.database.session() as session:
            run = session.scalars(select(RolloutRun).order_by(RolloutRun.rollout_id.desc()).limit(1)).one()
        if run.outcome is None or run.ended_at is None:
            return None
        return (run.ended_at - BEGIN).total_seconds() / 3600, run.outcome

    @property
    def share_that_had_it(self) -> float:
        """The share of the devices that run the new release."""
        return float((self.active == NEW).mean())

    def _awake(self) -> Flags:
        """Return [devices] those that the new release did not make fall silent yet."""
        silent_at = self.activated_at + self.release.silent_after
        return ~(self.falls_silent & (self.active == NEW) & (self.hours >= silent_at))

    def _write_down(self, rollout: Rollout) -> None:
        if not self.log or self.log[-1][1:3] != (rollout.share, rollout.state):
            self.log.append((self.hours, rollout.share, rollout.state, int((self.active == NEW).sum())))

    def _publish(self) -> None:
        """Store signed root, targets, snapshot and timestamp, and the devices."""
        pem = load_pem_public_key(public_pem(self.key).encode())
        assert isinstance(pem, ec.EllipticCurvePublicKey)
        offline, online = CryptoSigner.generate_ecdsa(), SSlibKey.from_crypto(pem)
        root = Root(expires=BEGIN + timedelta(days=700), consistent_snapshot=True)
        for role in ("root", "targets"):
            root.add_key(offline.public_key, role)
        for role in ("snapshot", "timestamp"):
            root.add_key(online, role)
        targets = Targets(expires=BEGIN + timedelta(days=300), targets=dict(self._targets()))
        with self.database.session() as session:
            for role, signed in (("root", root), ("targets", targets)):
                whole: Metadata[Any] = Metadata(signed)
                whole.sign(offline)
                metadata.store(session, role, 1, whole.to_bytes(), self.now)
            for number, digest in self.bundles.items():
                histogram = [round(1e6 * share) for share in self.fleet.training_shares()]
                path = f"{MODEL}/{number}/default.bundle"
                session.execute(_BUNDLES, {
                    "digest": digest, "path": path, "model": MODEL, "version": str(number),
                    "release": number, "manifest": json.dumps({"histogram": histogram}), "now": self.now,
                })  # fmt: skip
            sign_snapshot(session, self.key, self.now)
            began = self.now - timedelta(days=30)
            values = {"ids": self.ids, "cohorts": self.cohort_of, "began": began}
            session.execute(_DEVICES, {**values, "model": MODEL, "channel": CHANNEL, "old": OLD})

    def _targets(self) -> list[tuple[str, TargetFile]]:
        files = []
        for number, digest in self.bundles.items():
            path = f"{MODEL}/{number}/default.bundle"
            custom = TargetCustom(MODEL, str(number), None, number, (CHANNEL,), 1, "signer").to_dict()
            files.append((path, TargetFile(1, {"sha256": digest}, path, {CUSTOM_FIELD: custom})))
        return files

    def _live_a_week(self) -> None:
        for day in range(7):
            start = self.now - timedelta(days=7 - day)
            self._store(self.fleet.count(24), start, "day", start + timedelta(days=1))

    def _score(self, hours: int) -> None:
        """Let devices score for some hours; what they count is stored as the first of these hours."""
        new = self.active == NEW
        counted = self.fleet.count(
            hours, np.where(new, self.release.rise, 1.0), np.where(new, self.release.slower, 1.0)
        )
        self._store(counted, self.now, "hour", self.now + timedelta(hours=hours))

    def _store(self, counted: Counted, start: datetime, period: str, received: datetime) -> None:
        rows = [
            {
                "id": self.ids[n], "bundle": self.bundles[int(self.active[n])], "windows": int(counted.windows[n]),
                "anomalous": int(counted.anomalous[n]), "latency": int(counted.latency_sum_us[n]),
                "histogram": counted.histogram[n].astype(int).tolist(),
            }
            for n in np.flatnonzero(self._awake() & (self.active != NOTHING))
        ]  # fmt: skip
        start_ms = int(start.timestamp() * 1000) // HOUR_MS * HOUR_MS
        with self.database.session() as session:
            session.execute(
                _SUMMARIES, {"rows": json.dumps(rows), "start_ms": start_ms, "period": period, "received": received}
            )
