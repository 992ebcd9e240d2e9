"""Telemetry in, signed bundle out, verdicts on devices that are offline, results on the dashboard: in one run."""

from __future__ import annotations

import http.cookiejar
import json
import re
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from journey.killing import assert_whole
from journey.stack import Stack, run
from journey.stored import assert_rollups_add_up, assert_stored_once

MODEL, CHANNEL = "phones", "phones"
PASSWORD = "correct horse battery staple"
FAULTY, HEALTHY = 4, 2


@dataclass(frozen=True)
class Trained:
    """A model that the exporter made of a simulated fleet, and telemetry that it has not seen.

    Attributes:
        report: What ``exporter build --json`` printed.
        readings: Path of the readings of each device that did not train.
        faulty: Which of them develop a fault.
    """

    report: dict[str, Any]
    readings: dict[str, Path]
    faulty: frozenset[str]


@pytest.fixture(scope="module")
def trained(stack: Stack) -> Trained:
    """Simulate a small fleet, train few trees on half of it, publish, and roll out to the whole channel."""
    folder = stack.folder / "phones"
    fleet = folder / "fleet"
    run("exporter", "simulate", "--out", fleet, "--devices", "24", "--days", "7", "--seed", "3", "--fault-share", "0.5")
    config = folder / "model.toml"
    run("exporter", "init", fleet / "readings.parquet", "--model", MODEL, "--out", config)
    text = config.read_text()
    # Few trees train in a moment; a fleet this small cannot support a rate as low as the default.
    for shown, wanted in (
        ("# trees = 200", "trees = 40"),
        ("# alarms_per_device_day = 0.02", "alarms_per_device_day = 0.2"),
        ('# channels = ["stable"]', f'channels = ["{CHANNEL}"]'),
    ):
        assert shown in text
        text = text.replace(shown, wanted)
    config.write_text(text)
    printed = run(
        "exporter", "build", "--config", config, "--out", folder / "build", "--repository", stack.repository,
        "--targets-key", stack.folder / "keys" / "targets.pem", "--publish", stack.url, "--token-file",
        stack.token_files["publisher"], "--share", "100%", "--json",
    )  # fmt: skip
    report = json.loads(printed)
    frame, labels = (pd.read_parquet(fleet / f"{name}.parquet") for name in ("readings", "labels"))
    # Every second device of a cohort trains; the others are telemetry that the model has not seen.
    unseen = [d for _, group in frame.groupby("cohort") for d in sorted(set(group["device_id"]))[1::2]]
    faulty = sorted(set(labels[labels["label"] == 1]["device_id"]) & set(unseen))[:FAULTY]
    healthy = sorted(set(unseen) - set(labels[labels["label"] != 0]["device_id"]))[:HEALTHY]
    readings = {}
    for device in [*faulty, *healthy]:
        readings[device] = folder / f"{device}.csv"
        frame[frame["device_id"] == device].to_csv(readings[device], index=False)
    return Trained(report, readings, frozenset(faulty))


def test_from_telemetry_to_the_dashboard(stack: Stack, trained: Trained, tmp_path: Path) -> None:
    line = stack.line(MODEL, CHANNEL)
    ids: dict[str, str] = {}
    for device in trained.readings:
        ids[device] = json.loads(
            run("edge-runtime", "enroll", line, "--home", tmp_path / device, "--name", device, "--json")
        )["device_id"]
        assert json.loads(run("edge-runtime", "sync", "--home", tmp_path / device, "--json"))["outcome"] == "activated"
        assert assert_whole(tmp_path / device) == trained.report["release_number"]

    stack.stop()
    summaries, raised = {}, {}
    for device, readings in trained.readings.items():
        arguments = ("--home", tmp_path / device, "--input", readings, "--output", tmp_path / f"{device}.ndjson")
        summaries[device] = json.loads(run("edge-runtime", "score", *arguments, "--json"))
        verdicts = map(json.loads, (tmp_path / f"{device}.ndjson").read_text().splitlines())
        raised[device] = [verdict for verdict in verdicts if verdict.get("stored")]
        run("edge-runtime", "upload", "--home", tmp_path / device, code=5)  # nobody there: said, and nothing lost
    stack.start()
    for device in ids:
        run("edge-runtime", "upload", "--home", tmp_path / device)

    for device, device_id in ids.items():
        summary = summaries[device]
        assert summary["scored"] + summary["warming_up"] == summary["readings"] > 0
        found = stack.sql(
            "SELECT observed_at_ms, anomaly_score, contributions FROM anomalies WHERE device_id = %s ORDER BY 1",
            device_id,
        )
        expected = [(_milliseconds(v["timestamp"]), v["anomaly_score"], v["contributions"]) for v in raised[device]]
        assert [(r["observed_at_ms"], r["anomaly_score"], dict(r["contributions"])) for r in found] == expected
        assert len(expected) == summary["anomaly_records"]
        [windows] = stack.sql("SELECT sum(windows)::bigint AS n FROM summaries WHERE device_id = %s", device_id)
        assert windows["n"] == summary["scored"]
        assert_stored_once(stack, device_id)
        assert stack.get(f"/api/devices/{device_id}")["active"]["release"] == trained.report["release_number"]
    assert_rollups_add_up(stack)
    caught = {device for device in trained.faulty if summaries[device]["anomalous"]}
    assert len(caught) >= FAULTY / 2, "the model sees too few of the faults"


def test_the_release_says_what_it_is(trained: Trained) -> None:
    for model in trained.report["models"]:
        assert model["precision"] in ("fp32", "codebook8")
        assert model["parity"]["fp32"]["label_flips"] == 0
        assert model["parity"]["fp32"]["max_raw_difference"] <= 1e-6
        assert model["evaluation"]["auc"] > 0.9


def test_a_person_sees_the_incident(stack: Stack, trained: Trained) -> None:
    """Depends on what the first test of this module stored."""
    [worst] = stack.sql(
        "SELECT i.id, i.device_id, d.name, i.signals FROM incidents i JOIN devices d ON d.id = i.device_id"
        " WHERE d.model = %s ORDER BY i.peak_score DESC, i.id LIMIT 1",
        MODEL,
    )
    word = stack.folder / "operator.password"
    word.touch(mode=0o600)
    word.write_text(PASSWORD)
    run("sync-server", "operator", "create", "alice", "--data-dir", stack.data_dir, "--password-file", word)
    browser = Browser(stack.url)
    assert 'action="/login"' in browser.open("/incidents"), "a stranger sees the log-in only"
    browser.log_in("alice", PASSWORD)
    pages = {path: browser.open(path) for path in ("/", "/incidents", f"/devices/{worst['device_id']}")}
    for path, page in pages.items():
        assert worst["name"] in page, path
    assert worst["signals"][0] in browser.open(f"/incidents/{worst['id']}")
    listed = stack.get(f"/api/anomalies?view=incidents&device={worst['device_id']}")
    assert worst["id"] in [item["id"] for item in listed["items"]]


class Browser:
    """Keeps cookies and follows redirects; runs no script, as the pages need none."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))

    def open(self, path: str, form: dict[str, str] | None = None) -> str:
        data = None if form is None else urllib.parse.urlencode(form).encode()
        with self._opener.open(self._url + path, data, timeout=10) as answer:
            return str(answer.read().decode())

    def log_in(self, username: str, password: str) -> None:
        token = re.search(r'name="csrf_token" value="([^"]+)"', self.open("/login"))
        assert token is not None
        self.open("/login", {"username": username, "password": password, "csrf_token": token[1], "next": "/"})


def _milliseconds(text: str) -> int:
    return int(pd.Timestamp(text).value // 1_000_000)
