"""Pages of rollouts and releases, as a browser without a script gets them."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from simulators.server_rollouts import LOOKS, populate_rollouts
from sqlalchemy import select

from sync_server.access.models import AuditEntry
from sync_server.dashboard.rollout_plots import gate_plots
from sync_server.db import Database

LogIn = Callable[..., tuple[FlaskClient, str]]


@pytest.fixture
def rolling(app: Flask, database: Database) -> None:
    populate_rollouts(app, database)


def plots_of(page: str) -> list[dict[str, Any]]:
    return [json.loads(html.unescape(text)) for text in re.findall(r'data-plot="([^"]+)"', page)]


def test_before_anything_is_published(log_in: LogIn) -> None:
    browser, _ = log_in()
    assert "Nothing is published yet" in browser.get("/rollouts").text
    missing = browser.get("/rollouts/stable")
    assert (missing.status_code, missing.mimetype) == (404, "text/html")
    assert browser.get("/rollouts/No%20Name").status_code == 422


@pytest.mark.usefixtures("rolling")
def test_channels_and_releases(log_in: LogIn) -> None:
    browser, _ = log_in()
    page = browser.get("/rollouts").text
    assert page.count("<article") == 2
    assert "stage 1 of 4" in page
    assert '<span class="badge warn">paused</span>' in page
    assert page.count(">below the floor<") == 1
    assert page.count(">listed<") == 3


@pytest.mark.usefixtures("rolling")
def test_one_rollout_shows_its_gates_and_who_is_late(log_in: LogIn) -> None:
    browser, _ = log_in()
    page = browser.get("/rollouts/stable").text
    plots = plots_of(page)
    assert [len(plot["x"]) for plot in plots] == [LOOKS] * 5
    assert {series["label"] for plot in plots for series in plot["series"]} >= {
        "in the rollout",
        "outside",
        "tolerated",
    }
    assert [mark["label"] for mark in plots[0]["marks"]] == ["1 %"]
    assert "golden_failed" in page
    assert "weekly training" in page
    assert 'role="alert"' not in page
    tripped = browser.get("/rollouts/beta").text
    assert "The gate anomalies tripped." in tripped
    assert "It waits for a person" in tripped


@pytest.mark.usefixtures("rolling")
def test_an_operator_decides_with_a_reason(log_in: LogIn, database: Database) -> None:
    browser, csrf = log_in()

    def decide(channel: str = "stable", **fields: str) -> Any:
        return browser.post(f"/rollouts/{channel}", data={"csrf_token": csrf, "note": "seen it", **fields})

    assert decide(action="pause").headers["Location"] == "/rollouts/stable"
    assert 'value="resume"' in browser.get("/rollouts/stable").text
    assert decide(action="advance", from_stage="0").status_code == 409
    assert decide(action="resume").status_code == 303
    assert decide(action="advance", from_stage="0").status_code == 303
    assert "4 %" in browser.get("/rollouts/stable").text
    assert decide(action="advance", from_stage="nonsense").status_code == 422
    unsure = decide(action="roll_back")
    assert (unsure.status_code, unsure.mimetype) == (422, "text/html")
    assert "was not confirmed" in unsure.text
    assert decide(action="roll_back", sure="yes").status_code == 303
    page = browser.get("/rollouts/stable").text
    assert "every device goes back to release 2" in page
    assert 'name="action"' not in page
    for bad in ({"action": "launch"}, {"action": "pause", "note": "  "}, {"action": "pause", "note": "x" * 501}):
        assert decide(**bad).status_code == 422
    with database.session() as session:
        actions = list(session.scalars(select(AuditEntry.action).where(AuditEntry.actor == "operator alice")))
    assert actions == ["rollout.pause", "rollout.resume", "rollout.advance", "rollout.roll_back"]


@pytest.mark.usefixtures("rolling")
def test_a_viewer_looks_and_no_form_works_without_its_token(log_in: LogIn) -> None:
    viewer, csrf = log_in("viewer", "vera")
    assert 'name="action"' not in viewer.get("/rollouts/stable").text
    fields = {"csrf_token": csrf, "action": "pause", "note": "x"}
    assert viewer.post("/rollouts/stable", data=fields).status_code == 403
    browser, _ = log_in()
    assert browser.post("/rollouts/stable", data={**fields, "csrf_token": "other"}).status_code == 403


def test_figures_of_another_comparison_are_not_drawn_together() -> None:
    shared = {"devices": 1, "control_devices": 1, "limit": 1.0, "why": "", "verdict": "holds", "gate": "anomalies"}
    figures = {"treated": 0.1, "control": 0.5}
    looks = [
        {"at": datetime(2026, 11, day, tzinfo=UTC), "gates": [{**shared, "against": against, **figures}]}
        for day, against in ((1, "control"), (2, "control"), (3, "own_week"))
    ]
    (plot,) = gate_plots(looks, [])
    assert plot.spec["x"] == [int(looks[2]["at"].timestamp())]
    assert "own week" in plot.title
    assert gate_plots([], []) == []
