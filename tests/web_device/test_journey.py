"""The browser's library against a real server: enrol, sync, score offline, upload; every record arrives once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from journey.stack import Stack
from simulators.web_device import WebDevice, install_packages

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack"))
    install_packages()
    try:
        stack.open_workshop()
        stack.start()
        stack.make_tokens()
        for release in (1, 2):
            stack.publish(stack.small_bundle(release))
        stack.roll_out("stable", "pumps", 1)
        yield stack
    finally:
        stack.stop()


def _readings(start_s: int, values: list[float]) -> list[dict[str, Any]]:
    return [{"timestamp": start_s + 60 * i, "heat": value, "load": value} for i, value in enumerate(values)]


def test_a_browser_does_what_a_device_does(stack: Stack) -> None:
    with WebDevice() as device:
        device("enrol", line=stack.link("pumps", "stable").partition("#enrol=")[2], name="A browser")
        report = device("sync")
        assert (report["error"], report["outcome"]["outcome"], report["outcome"]["release"]) == (None, "activated", 1)
        device_id = device("status")["identity"]["deviceId"]

        stack.stop()
        device("reopen")
        verdicts = device("score", readings=_readings(1_700_000_000, [0.1, 0.1, 0.1, 6.0, 8.0, 0.1, 0.1, 0.1, 0.1]))
        assert [verdict["outcome"] for verdict in verdicts] == ["warming_up"] + ["scored"] * 8
        assert any(verdict["score"] and verdict["score"]["isAnomaly"] for verdict in verdicts)
        waiting = device("status")["outbox"]["records"]
        assert waiting > 0

        stack.start()
        stored = device("upload")
        assert stored["refused"] == 0
        assert stored["acknowledged"] >= waiting
        assert device("upload")["requests"] == 0
        assert device("status")["outbox"]["records"] == 0

    anomalies = stack.sql("SELECT anomaly_score, contributions FROM anomalies WHERE device_id = %s", device_id)
    assert len(anomalies) == sum(1 for verdict in verdicts if verdict["score"] and verdict["score"]["stored"])
    (row,) = stack.sql("SELECT kind, active_release, outbox_records FROM devices WHERE id = %s", device_id)
    assert (row["kind"], row["active_release"], row["outbox_records"]) == ("demo", 1, 0)
