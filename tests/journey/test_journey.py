"""Telemetry in, signed bundle out, verdicts on devices that are offline, results on the dashboard: in one run."""

from __future__ import annotations

import http.cookiejar
import json
import re
import urllib.parse
import urllib.request
from pathlib import Path

import pandas as pd
from journey.killing import assert_whole
from journey.phones import CHANNEL, FAULTY, MODEL, Trained
from journey.stack import Stack, run
from journey.stored import assert_rollups_add_up, assert_stored_once

PASSWORD = "correct horse battery staple"


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
        assert model["precision"] in ("fp32", "codebook8", "int8")
        assert model["parity"]["candidates"]["fp32"]["sets"]["held out"]["label_flips"] == 0
        assert model["parity"]["candidates"]["fp32"]["sets"]["held out"]["max_raw_difference"] <= 1e-6
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
