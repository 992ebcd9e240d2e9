"""A channel whose releases the server can score with: published, verified and rolled out over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from simulators.bundles import BuiltBundle, SmallBundle
from simulators.release_engineer import ReleaseEngineer, multipart
from werkzeug.test import TestResponse

from sync_server.repository.online_key import load_or_create, public_pem

READ = ["heat", "load"]


class ScoredChannel:
    """Model ``pumps`` on channel ``stable``. A window of x scores |x| + bias; release n has a bias of n / 100."""

    def __init__(self, app: Flask, auth: Callable[..., dict[str, str]]) -> None:
        self.client: FlaskClient = app.test_client()
        self.publisher, self.operator = auth("pub"), auth("ops")
        self.engineer = ReleaseEngineer(public_pem(load_or_create(app.extensions["config"].online_key_path)))
        self.bundles: dict[tuple[int, str | None], BuiltBundle] = {}

    def publish(self, *releases: int, cohorts: tuple[str | None, ...] = (None,), **changes: Any) -> None:
        """Publish releases, each with a bundle for every cohort."""
        made = []
        for release in releases:
            for cohort in cohorts:
                what = {"bias": release / 100, **changes}
                built = SmallBundle(version=f"v{release}", release_number=release, cohort=cohort, **what).build()
                self.bundles[release, cohort] = built
                made.append(built)
        root = {} if self.engineer.root.version else self.engineer.sign_root()
        parts = multipart({**root, **self.engineer.sign_targets(*made)})
        answer = self.client.post("/api/publish", data=parts, headers=self.publisher)
        assert answer.status_code == 201, answer.text

    def roll(self, action: str, channel: str = "stable", **fields: Any) -> None:
        """Change the channel's rollout."""
        body = {"action": action, **fields}
        answer = self.client.put(f"/api/channels/{channel}", json=body, headers=self.publisher)
        assert answer.status_code == 200, answer.text

    def start(self, release: int, share: int = 10_000, **fields: Any) -> None:
        """Roll a release out."""
        self.roll("start", model="pumps", release=release, share=share, **fields)

    def score(self, *, headers: dict[str, str] | None = None, **body: Any) -> TestResponse:
        """Ask for verdicts, as an operator unless other headers are given."""
        return self.client.post("/api/anomalies/score", json=body, headers=headers or self.operator)


def window(value: float | None, slots: int = 4) -> list[list[float | None]]:
    """A window that holds one value everywhere."""
    return [[value, value] for _ in range(slots)]


def readings(values: list[float | None], *, start_ms: int = 1_700_000_000_000, step_ms: int = 60_000) -> dict[str, Any]:
    """Readings of both signals, one a step."""
    times = [start_ms + step_ms * number for number in range(len(values))]
    return {"observed_at_ms": times, "signals": {"heat": values, "load": values}}
