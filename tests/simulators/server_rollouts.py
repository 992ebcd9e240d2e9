"""Rollouts for pages: two channels with releases of pumps, one under way and watched, one that its gate paused."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from flask import Flask
from simulators.bundles import SmallBundle
from simulators.release_engineer import ReleaseEngineer, multipart
from simulators.server_devices import ServerDevice, enrolment_token

from sync_server.access.tokens import issue_token
from sync_server.db import Database, utc_now
from sync_server.repository.online_key import load_or_create, public_pem
from sync_server.rollouts.models import RolloutLook, RolloutRun

LOOKS = 30


def populate_rollouts(app: Flask, database: Database) -> None:
    """Publish four releases; roll out 2 on ``stable`` by a plan that goes well, 3 on ``beta``, where a gate trips."""
    client = app.test_client()
    with database.session() as session:
        headers = {"Authorization": f"Bearer {issue_token(session, 'pub', name='release bot').token}"}
    engineer = ReleaseEngineer(public_pem(load_or_create(app.extensions["config"].online_key_path)))
    bundles = [
        SmallBundle(version=f"2026.{n}", release_number=n, channels=("stable", "beta")).build() for n in (1, 2, 3, 4)
    ]
    parts = {**engineer.sign_root(), **engineer.sign_targets(*bundles, pumps=2)}
    assert client.post("/api/publish", data=multipart(parts), headers=headers).status_code == 201
    for number, channel in ((2, "stable"), (3, "beta")):
        put = {"model": "pumps", "share": 10_000, "action": "start"}
        path = f"/api/channels/{channel}"
        assert client.put(path, json={**put, "release": number}, headers=headers).status_code == 200
        planned = {"action": "start", "model": "pumps", "release": number + 1, "plan": {}, "note": "weekly training"}
        assert client.put(path, json=planned, headers=headers).status_code == 200
    with database.session() as session:
        for run in session.query(RolloutRun).filter(RolloutRun.plan.is_not(None)):
            session.add_all(_look(run, place, bad=run.channel == "beta") for place in range(LOOKS))
    paused = {"action": "pause", "note": "The gate anomalies tripped."}
    assert client.put("/api/channels/beta", json=paused, headers=headers).status_code == 200
    token = enrolment_token(database, model="pumps")
    for place in range(12):
        device = ServerDevice.enrol(client, token, name=f"well-{place + 1:02d}")
        ran = {"bundle": bundles[1].digest, "release": 2, "version": "2026.2"}
        refused = {"outcome": "refused", "reason": "golden_failed", "release": 3, "at_ms": 1}
        device.report(active=None if place == 11 else ran, last_update=refused if place == 3 else None)


def _look(run: RolloutRun, place: int, *, bad: bool) -> RolloutLook:
    at: datetime = utc_now() - timedelta(hours=LOOKS - place)
    tripped = bad and place == LOOKS - 1
    rise = 1 + (place / LOOKS * 2 if bad else 0)
    shares = (0.011 * rise + 0.001 * math.sin(place), 0.011 + 0.001 * math.cos(place / 2))
    gates = [
        _finding("anomalies", shares, "tripped" if tripped else "holds", f"{shares[0]:.2%} against {shares[1]:.2%}."),
        _finding("latency", (412.0 + place % 5, 405.0 + place % 3), "holds", "Scoring takes 412 us, 405 us outside."),
        _finding("failures", (0.0, 0.02), "few", "Not enough devices yet.", against="limit"),
        _finding("silent", (0.01, 0.012), "holds", "Silent for 12 h: 1.0 % of the devices, 1.2 % outside."),
        _finding("scores", (0.02 * rise, None), "holds", "Score distributions differ by an index of 0.020."),
    ]
    return RolloutLook(
        rollout_id=run.rollout_id, at=at, stage=0, segment=0, look=place + 1, share=100, budget=1e-4,
        verdict="tripped" if tripped else "holds", devices={"activated": 18, "treated": 20, "control": 1940}, gates=gates,
    )  # fmt: skip


def _finding(
    gate: str, figures: tuple[float, float | None], verdict: str, why: str, against: str = "control"
) -> dict[str, Any]:
    return {
        "gate": gate, "against": against, "verdict": verdict, "devices": 20, "control_devices": 1940,
        "treated": figures[0], "control": figures[1], "effect": 1.0, "limit": 1.2, "p": 0.5, "budget": 1e-4, "why": why,
    }  # fmt: skip
