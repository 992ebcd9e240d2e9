"""A server for publishing that lives in a thread: holds what it was sent, and misbehaves when a test says so."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tuf.api.metadata import Metadata, Root, Targets
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

Fault = Callable[[Request], Response | None]


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing."""


class PublishServer:
    """What the server of plan and contract does for publishing, without storage or access rules."""

    def __init__(self, online_key_pem: str) -> None:
        self.online_key = online_key_pem
        self.url = ""
        self.roots: dict[int, bytes] = {}
        self.targets: dict[int, bytes] = {}
        self.bundles: dict[str, bytes] = {}
        self.rollouts: dict[str, dict[str, Any]] = {}
        self.plans: dict[str, dict[str, Any]] = {}
        self.stages: dict[str, int] = {}
        self.notes: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.before: list[Fault] = []
        self.after: list[Fault] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        request = Request(environ)
        self.requests.append((request.method, request.path))
        request.get_data(parse_form_data=True)
        response = self.before.pop(0)(request) if self.before else None
        if response is None:
            response = self._answer(request)
            if self.after and request.method != "GET":
                response = self.after.pop(0)(request) or response
        request.close()
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        path = request.path
        if path == "/api/publish":
            return self._state() if request.method == "GET" else self._publish(request)
        if path.startswith("/api/channels/"):
            channel, _, rest = path.removeprefix("/api/channels/").partition("/")
            return self._progress(channel) if rest == "progress" else self._channel(request, channel)
        if path.startswith("/repository/metadata/"):
            number, role, _ = path.rsplit("/", 1)[-1].split(".")
            content = {"root": self.roots, "targets": self.targets}[role].get(int(number))
            return Response(content, 200) if content else problem(404, "not_found", "No such file")
        return problem(404, "not_found", "No such page")

    def _state(self) -> Response:
        return answer(
            {
                "root_version": max(self.roots, default=None),
                "targets_version": max(self.targets, default=None),
                "online_key": self.online_key,
                "channels": self.rollouts,
            }
        )

    def _publish(self, request: Request) -> Response:
        parts = {name: request.files[name].read() for name in request.files}
        roots = {int(n.split("/")[1].split(".")[0]): c for n, c in parts.items() if n.endswith(".root.json")}
        newest = {int(n.split("/")[1].split(".")[0]): c for n, c in parts.items() if n.endswith(".targets.json")}
        (version,) = newest
        expected = max(self.targets, default=0) + 1
        if version != expected:
            return problem(409, "conflict", f"The next targets version is {expected}")
        all_roots = {**self.roots, **roots}
        root = Metadata[Root].from_bytes(all_roots[max(all_roots)]).signed
        targets = Metadata[Targets].from_bytes(newest[version])
        root.verify_delegate("targets", targets.signed_bytes, targets.signatures)
        added = {n.removeprefix("targets/"): c for n, c in parts.items() if n.startswith("targets/")}
        for path, content in added.items():
            targets.signed.targets[path].verify_length_and_hashes(content)
        withdrawn = set(self.bundles) - set(targets.signed.targets)
        self.roots, self.targets = all_roots, {**self.targets, **newest}
        self.bundles = {n: c for n, c in {**self.bundles, **added}.items() if n not in withdrawn}
        assert set(self.bundles) == set(targets.signed.targets), "a listed bundle was neither sent nor held"
        versions = {"targets_version": version, "root_version": max(self.roots)}
        return answer({**versions, "added": sorted(added), "withdrawn": sorted(withdrawn)}, 201)

    def _progress(self, channel: str) -> Response:
        rollout = self.rollouts.get(channel)
        if rollout is None:
            return problem(404, "no_rollout", f"Channel {channel} has no rollout")
        gate = {"gate": "latency", "verdict": "tripped", "why": "Twice as slow."}
        device = {"id": "d" * 32, "active_release": None, "wanted": 2, "since": "2026-11-02T00:00:00Z"}
        run = {
            "stage": self.stages.get(channel, 0), "watched_minutes": 61.5, "waits_for": "a person: a gate tripped",
            "outcome": None, "ended_at": None, "trouble": "The key is gone.",
        }  # fmt: skip
        maintenance = {
            "reachable": 20, "running": 19, "overdue": 1, "publish_to_95_seconds": 7200.0,
            "refusals": [{"outcome": "failed", "reason": None, "devices": 1}], "overdue_devices": [device],
        }  # fmt: skip
        looks = [{"at": "2026-11-02T00:00:00Z", "verdict": "tripped", "gates": [gate]}]
        whole = {"run": run, "looks": looks, "maintenance": maintenance}
        return answer({"channel": channel, "rollout": rollout, "plan": self.plans.get(channel), **whole})

    def _channel(self, request: Request, channel: str) -> Response:
        rollout = self.rollouts.get(channel)
        if request.method == "GET":
            return answer(rollout) if rollout else problem(404, "no_rollout", f"Channel {channel} has no rollout")
        change = json.loads(request.get_data())
        self.notes.append(change.get("note", ""))
        if change["action"] == "start":
            if rollout and rollout["share"] < 10_000 and rollout["state"] != "rolled_back":
                return problem(409, "rollout_running", f"Channel {channel} still rolls out {rollout['release']}")
            previous = rollout["release"] if rollout else None
            if "plan" in change:
                plan = {"stages": [{"share": 100, "minutes": 1440}, {"share": 10_000, "minutes": 60}], **change["plan"]}
                self.plans[channel], self.stages[channel] = plan, 0
                change["share"] = plan["stages"][0]["share"]
            rollout = {
                "id": (rollout["id"] if rollout else 0) + 1,
                "model": change["model"],
                "release": change["release"],
                "previous": previous,
                "share": change["share"],
                "salt": "0" * 32,
                "state": "running",
                **({"cohorts": change["cohorts"]} if change["cohorts"] else {}),
            }
        elif rollout is None:
            return problem(409, "no_rollout", f"Channel {channel} has no rollout")
        elif change["action"] == "advance":
            if channel not in self.plans:
                return problem(409, "no_plan", f"The rollout on channel {channel} has no plan.")
            if change["from_stage"] == self.stages[channel]:
                self.stages[channel] += 1
            rollout = {**rollout, "share": self.plans[channel]["stages"][self.stages[channel]]["share"]}
        elif change["action"] == "share":
            rollout = {**rollout, "share": change["share"]}
        elif change["action"] == "widen":
            rollout = {name: value for name, value in rollout.items() if name != "cohorts"}
            rollout |= {"cohorts": change["cohorts"]} if change["cohorts"] else {}
        else:
            state = {"pause": "paused", "resume": "running", "roll_back": "rolled_back"}[change["action"]]
            rollout = {**rollout, "state": state}
        self.rollouts[channel] = rollout
        return answer(rollout)


def answer(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, content_type="application/json")


def problem(status: int, code: str, detail: str, advice: str = "") -> Response:
    body = {"title": "Refused", "status": status, "code": code, "detail": detail, "advice": advice}
    return Response(json.dumps(body), status, content_type="application/problem+json")


@contextmanager
def serving(server: PublishServer) -> Iterator[PublishServer]:
    """Serve on a free port of this machine until the block ends."""
    httpd = make_server("127.0.0.1", 0, server, threaded=False, request_handler=_Quiet)
    server.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
