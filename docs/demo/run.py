"""The whole journey: telemetry in, signed bundle out, verdicts on offline devices, results on the dashboard.

Run it with ``make demo``. It uses the engine fleet beside the checkout when it is there, a simulated fleet of phones
when not, or the folder that ``DEMO_DATA`` names. Everything it makes lies in ``build/demo``.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import secrets
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import browsers, devices
from .fleet import CONTEXT, Fleet, prepare
from .processes import HOST, DemoError, free_port, is_terminal, run, run_json, server

ROOT = Path(__file__).resolve().parent.parent.parent
WORK = ROOT / "build" / "demo"
SHARED = ROOT.parent / "shared" / "data" / "cmapss"


class Journey:
    """Says what happens, when, and how long it took."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def say(self, text: str) -> None:
        """Print one step on standard error."""
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with readings.parquet and labels.parquet")
    parser.add_argument("--port", type=int, default=0, help="port of the server (default: a free one)")
    options = parser.parse_args()
    # A closed terminal or a `kill` ends the demo as Ctrl-C does: its server and database must not be left behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        return journey(options.data, options.port or free_port())
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def journey(data: Path | None, port: int) -> int:
    """Do all steps in order; each prints one line."""
    with alone():
        return _journey(data, port)


@contextmanager
def alone() -> Iterator[None]:
    """Hold ``build/demo`` for this run: another one would pull the data from under its server.

    Raises:
        DemoError: A demo runs there, perhaps on another terminal where its dashboard is still served.
    """
    WORK.parent.mkdir(parents=True, exist_ok=True)
    with (WORK.parent / "demo.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DemoError(f"A demo is running in {WORK} already; stop it with Ctrl-C in its terminal.") from error
        yield


def _journey(data: Path | None, port: int) -> int:
    told = Journey()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    fleet = prepare(data, SHARED, WORK)
    told.say(f"telemetry: {fleet.name}, cohorts {', '.join(fleet.cohorts)}; moved by whole days so that it ends now")
    data_dir, log, url = WORK / "server", WORK / "server.log", f"http://{HOST}:{port}"
    make_keys(data_dir)
    told.say("keys made, repository created (root and targets keys stay here, the server has the online key)")
    with server(data_dir, port, log):
        access = open_server(data_dir)
        told.say(f"server and database run at {url}")
        built = build(fleet, url)
        told.say("models trained, converted, proven, packed, signed, published; rollout started")
        browsers.build(WORK, url)
        browsers.offer_recording(WORK, data_dir, fleet, "demo")
        told.say("the same for a model of simulated browsers, on a channel of its own")
        line = run(
            "sync-server", "enrolment", "create", "--data-dir", data_dir, "--model", "demo", "--channel", "stable",
            "--uses", str(len(fleet.chosen)), "--url", url,
        ).strip()  # fmt: skip
        ids = devices.each(fleet, lambda device, cohort: devices.join(WORK, line, device, cohort))
        told.say(f"{len(ids)} devices enrolled, bundles verified, self-tested, activated")
    told.say("server stopped: the devices are on their own")
    scored = devices.each(fleet, lambda device, _: devices.score(WORK, device))
    raised = Counter({(ids[device], *item): n for device in scored for item, n in devices.raised(WORK, device).items()})
    told.say(f"{fleet.rows} readings scored offline, {raised.total()} anomaly records waiting")
    with server(data_dir, port, log):
        devices.each(fleet, lambda device, _: devices.upload(WORK, device))
        told.say("server is back, devices have uploaded")
        summary = summarise(fleet, built, scored, raised, url, access["token"])
        summary["seconds_total"] = round(time.monotonic() - told.started, 1)
        write_summary(summary)
        print_summary(summary, url, access)
        print_links(data_dir, url)
        if is_terminal():
            print("The dashboard keeps running; stop it with Ctrl-C.")
            wait_for_interrupt()
    return 0 if summary["lost"] == summary["duplicated"] == 0 else 1


def make_keys(data_dir: Path) -> None:
    """Make release keys and the repository that binds the server's online key."""
    keys = WORK / "keys"
    for role in ("root", "targets"):
        run("exporter", "keys", "create", "--role", role, "--out", keys / f"{role}.pem", "--no-passphrase")
    (WORK / "online.pub.pem").write_text(run("sync-server", "online-key", "--data-dir", data_dir))
    run(
        "exporter", "repository", "create", WORK / "repository", "--root-key", keys / "root.pem",
        "--targets-key", keys / "targets.pem", "--online-key", WORK / "online.pub.pem",
    )  # fmt: skip


def open_server(data_dir: Path) -> dict[str, str]:
    """Make the tokens and the log-in that the demo needs."""
    publisher = run("sync-server", "token", "create", "--data-dir", data_dir, "--kind", "publisher", "--name", "demo")
    token_file = WORK / "publisher.token"
    token_file.touch(mode=0o600)
    token_file.write_text(publisher.strip())
    operator = run("sync-server", "token", "create", "--data-dir", data_dir, "--kind", "operator", "--name", "demo")
    password = secrets.token_urlsafe(9)
    password_file = WORK / "operator.password"
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    run(
        "sync-server", "operator", "create", "demo", "--data-dir", data_dir, "--password-file", password_file,
    )  # fmt: skip
    return {"token": operator.strip(), "user": "demo", "password": password}


def build(fleet: Fleet, url: str) -> dict[str, Any]:
    """Write model.toml from the data, train on half of the devices, and publish."""
    config = WORK / "model.toml"
    context = CONTEXT.get(fleet.name)
    run(
        "exporter", "init", fleet.readings, "--labels", fleet.labels, "--model", "demo", "--out", config,
        *(() if context is None else ("--context", ",".join(context))),
    )  # fmt: skip
    return run_json(
        "exporter", "build", "--config", config, "--out", WORK / "bundles", "--repository", WORK / "repository",
        "--targets-key", WORK / "keys" / "targets.pem", "--publish", url, "--token-file", WORK / "publisher.token",
        "--channel", "stable", "--share", "100%", show=True,
    )  # fmt: skip


def summarise(
    fleet: Fleet,
    built: dict[str, Any],
    scored: dict[str, Any],
    raised: Counter[tuple[str, int, float]],
    url: str,
    token: str,
) -> dict[str, Any]:
    """Hold what the devices raised against what the database holds."""
    held = devices.stored(url, token, "windows")
    found = Counter((str(i["device_id"]), int(i["observed_at_ms"]), float(i["anomaly_score"])) for i in held)
    models = {model["cohort"] or "default": model for model in built["models"]}
    return {
        "data": fleet.name,
        "devices": len(fleet.chosen),
        "cohorts": list(fleet.cohorts),
        "readings": fleet.rows,
        "readings_scored": sum(one["scored"] for one in scored.values()),
        "readings_warming_up": sum(one["warming_up"] for one in scored.values()),
        "anomalies_raised": raised.total(),
        "anomalies_stored": len(held),
        "incidents": len(devices.stored(url, token, "incidents")),
        "lost": (raised - found).total(),
        "duplicated": (found - raised).total(),
        "auc": {name: model["evaluation"].get("auc") for name, model in models.items()},
        "healthy_alarms_per_device_day": {
            name: model["evaluation"]["healthy_alarms_per_device_day"]["mean"] for name, model in models.items()
        },
        "precision": {name: model["precision"] for name, model in models.items()},
        "label_flips_vs_sklearn": sum(one["label_flips"] for one in proofs("fp32", models)),
        "max_score_difference_vs_sklearn": max(one["max_raw_difference"] for one in proofs("fp32", models)),
        "codebook8_label_flips": sum(one["label_flips"] for one in proofs("codebook8", models)),
        "bundle_bytes": {name: model["bundle_bytes"] for name, model in models.items()},
        "convert_seconds": round(sum(model["convert_seconds"] for model in models.values()), 3),
    }


def proofs(form: str, models: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what each model's form keeps of the trained model, on held-out devices."""
    return [model["parity"]["candidates"][form]["sets"]["held out"] for model in models.values()]


def write_summary(summary: dict[str, Any]) -> None:
    """Write build/demo/summary.json."""
    (WORK / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def print_summary(summary: dict[str, Any], url: str, access: dict[str, str]) -> None:
    """Print the figures, the address and the log-in."""
    print("\nStella Edge demo")
    for key, value in summary.items():
        print(f"  {key:34} {_shown(value)}")
    print(f"\nSummary: {WORK / 'summary.json'}")
    print(f"Dashboard: {url}   log-in: {access['user']} / {access['password']}")


def print_links(data_dir: Path, url: str) -> None:
    """Print how a browser becomes a device: one link watches the browser itself, the other replays a recording."""
    own, replay = ((browsers.MODEL, browsers.CHANNEL), ("demo", "stable"))
    print("\nYour browser as a device (each link lets in one browser or private window, for a day):")
    print(f"  its own signals:         {browsers.link(data_dir, *own, url)}")
    print(f"  a recording, elsewhere:  {browsers.link(data_dir, *replay, url)}")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def wait_for_interrupt() -> None:
    """Wait until the person at the terminal has seen enough."""
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print("\nStopping.")


if __name__ == "__main__":
    sys.exit(main())
