"""The demo's devices: each one a home folder and the ``edge-runtime`` command line."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .fleet import Fleet, readings_file
from .processes import DemoError, get_json, run, run_json

# Two at a time: the devices are processes of their own, and the smallest machine this runs on has two cores.
AT_ONCE = 2


def each(fleet: Fleet, step: Callable[[str, str], Any]) -> dict[str, Any]:
    """Do one step for every device, two at a time, and return what it gave by device name."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip([d for d, _ in fleet.chosen], pool.map(lambda pair: step(*pair), fleet.chosen), strict=True))


def home(work: Path, device: str) -> Path:
    """Return the home folder of a device."""
    return work / "devices" / device


def join(work: Path, line: str, device: str, cohort: str) -> str:
    """Enrol a device and pull its bundle; returns the id that the server gave it."""
    folder = home(work, device)
    answer = run_json("edge-runtime", "enroll", line, "--home", folder, "--name", device, "--cohort", cohort)
    run("edge-runtime", "sync", "--home", folder)
    return str(answer["device_id"])


def score(work: Path, device: str) -> dict[str, Any]:
    """Score every reading of a device, offline; returns the command's summary."""
    return run_json("edge-runtime", "score", "--home", home(work, device), "--input", readings_file(work, device))


def raised(work: Path, device: str) -> Counter[tuple[int, float]]:
    """Return what a device's own store says it raised: (observed_at_ms, anomaly score) of every anomaly record."""
    connection = sqlite3.connect(f"file:{home(work, device) / 'edge.db'}?mode=ro", uri=True)
    try:
        rows = connection.execute(
            "SELECT json_extract(body, '$.observed_at_ms'), json_extract(body, '$.anomaly_score')"
            " FROM outbox WHERE kind = 'anomalies'"
        ).fetchall()
    finally:
        connection.close()
    return Counter((int(observed), float(score)) for observed, score in rows)


def upload(work: Path, device: str) -> None:
    """Send what is in a device's outbox."""
    run("edge-runtime", "upload", "--home", home(work, device))


def stored(url: str, token: str, view: str) -> list[dict[str, Any]]:
    """Return every item of a list that the server holds, page by page.

    Raises:
        DemoError: The pages do not end.
    """
    items: list[dict[str, Any]] = []
    cursor = ""
    for _ in range(10_000):
        page = get_json(f"{url}/api/anomalies?view={view}&limit=200{cursor}", token)
        items += page["items"]
        if not page["next"]:
            return items
        cursor = f"&cursor={page['next']}"
    raise DemoError("The server's pages do not end.")
