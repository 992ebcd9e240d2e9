"""``edge-runtime score`` as a person and a script use it: lines out, one JSON object, exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from simulators.bundles import SmallBundle

from edge_runtime.bundle_store import BundleStore
from edge_runtime.cli import run_command
from edge_runtime.contract.bundle import open_bundle
from edge_runtime.contract.result import Anomaly
from edge_runtime.device_scoring import Device
from edge_runtime.edge_db import EdgeDatabase
from edge_runtime.files import FileSystem
from edge_runtime.home import Home
from edge_runtime.identity import Identity, save_identity
from edge_runtime.outbox import Outbox

HEADER = "timestamp,heat,load,note\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with an active bundle: two signals, one-minute slots, raw = |mean| + .25, anomalous above 1."""
    folder = tmp_path / "home"
    folder.mkdir()
    BundleStore(folder).install(open_bundle(SmallBundle().build().data))
    return folder


@pytest.fixture
def readings(tmp_path: Path) -> Path:
    path = tmp_path / "readings.csv"
    rows = [f"{1_795_435_200 + 60 * minute},{heat},{heat},x\n" for minute, heat in enumerate([0.1] * 5 + [3] * 4)]
    path.write_text(HEADER + "".join(rows) + "1795439999,warm,1,x\n")
    return path


def score(home: Path, *arguments: object) -> int:
    return run_command(["score", "--home", str(home), *map(str, arguments)])


def test_lines_on_stdout_and_the_summary_on_stderr(
    home: Path, readings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(home, "--input", readings) == 0
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [line["outcome"] for line in lines] == ["warming_up", *["scored"] * 8]
    assert lines[0] == {"timestamp": "2026-11-23T12:00:00Z", "outcome": "warming_up"}
    assert lines[-1]["is_anomaly"] is True
    assert lines[-1]["raw_score"] == pytest.approx(3.25)
    assert lines[-1]["incident_started_at"] < lines[-1]["timestamp"]
    assert lines[-1]["contributions"].keys() == {"heat", "load"}
    assert "9 readings: 8 scored" in printed.err
    assert "text_in_number 1" in printed.err
    assert "does not use: note" in printed.err
    # Fed again: nothing new, and nothing listed.
    assert score(home, "--input", readings) == 0
    again = capsys.readouterr()
    assert again.out == ""
    assert "9 readings: 0 scored" in again.err
    assert "Not scored again" in again.err


def test_one_json_object(home: Path, readings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "verdicts.ndjson"
    assert score(home, "--input", readings, "--json", "--output", output) == 0
    fields = json.loads(capsys.readouterr().out)
    assert (fields["readings"], fields["scored"], fields["warming_up"]) == (9, 8, 1)
    assert fields["set_aside"] == {"text_in_number": 1}
    assert fields["ignored_columns"] == ["note"]
    assert fields["stale"] is True  # nothing was ever verified in this home
    assert len(output.read_text().splitlines()) == 9
    assert score(home, "--input", readings, "--json") == 0
    assert json.loads(capsys.readouterr().out)["late"] == 5


def test_quiet_prints_the_summary_alone(home: Path, readings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score(home, "--input", readings, "--quiet") == 0
    assert capsys.readouterr().out.startswith("9 readings: 8 scored")


def test_what_is_refused(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("timestamp,heet,load\n1,2,3\n")
    assert score(home, "--input", bad) == 3
    assert "did you mean 'heet'?" in capsys.readouterr().err
    assert score(home, "--input", bad, "--allow-missing-signals", "--json") == 0
    assert json.loads(capsys.readouterr().out)["missing_signals"] == ["heat"]
    assert score(home, "--input", tmp_path / "absent.csv", "--json") == 3
    assert json.loads(capsys.readouterr().out)["error"] == "input"
    bad.write_text("")
    assert score(home, "--input", bad) == 3
    assert "is empty" in capsys.readouterr().err
    (tmp_path / "nobody").mkdir()
    assert score(tmp_path / "nobody", "--input", bad) == 7
    assert "edge-runtime enroll LINE" in capsys.readouterr().err
    assert score(home, "--input", bad, "--output", tmp_path / "no" / "folder") == 6


def test_an_app_in_five_lines(home: Path) -> None:
    with Device.open(home) as device:
        verdicts = device.score([{"timestamp": 60.0 * minute, "heat": 3.0, "load": 3.0} for minute in range(5)])
    assert [verdict.is_anomaly for verdict in verdicts] == [None, True, True, True, True]


def test_an_app_that_stays_open_takes_up_each_bundle(home: Path) -> None:
    """Its first bundle's slot is pruned with the second update; explaining an anomaly needs a file of it."""
    store = BundleStore(home)

    def hot(minute: int, **more: float) -> dict[str, float]:
        return {"timestamp": 60.0 * minute, "heat": 3.0, "load": 3.0, **more}

    with Device.open(home) as device:
        first = device.scorer
        device.score([hot(0)])
        for release, signals in ((2, ("heat", "load")), (3, ("heat", "load", "speed"))):
            files = SmallBundle(version=f"{release}.0", release_number=release, signals=signals).build()
            store.install(open_bundle(files.data))
        assert len(first.explain(np.full((4, 2), 3.0, np.float32), 3.25, stored=True)) == 2
        # Another signal: the window begins anew.
        verdicts = device.score([hot(1, speed=9.0), hot(2, speed=9.0)])
        assert [verdict.outcome for verdict in verdicts] == ["warming_up", "scored"]
        assert device.scorer.bundle.manifest.release_number == 3
        assert {name for name, _ in verdicts[1].contributions} == {"heat", "load", "speed"}
        # A slot that is damaged is not scored with; what was checked before is.
        (store.slot(device.scorer.bundle.digest) / "model.onnx").write_bytes(b"rust")
        pointer = store.pointer_path
        pointer.write_bytes(pointer.read_bytes())
        assert device.score([hot(3)])[0].is_anomaly is True


def test_anomalies_are_stale_from_the_moment_that_metadata_expires(home: Path) -> None:
    folder = home / "trust" / "metadata"
    folder.mkdir(parents=True)

    def expires(day: str) -> None:
        for role in ("root", "targets", "snapshot", "timestamp"):
            (folder / f"{role}.json").write_text(json.dumps({"signed": {"expires": f"{day}T00:00:00Z"}}))

    reading = {"heat": 9.0, "load": 9.0}
    tomorrow, yesterday = (f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%d}" for days in (2, -1))
    expires(tomorrow)
    with Device.open(home) as device:
        device.score([{"timestamp": minute * 60, **reading} for minute in range(3)])
        expires(yesterday)  # nobody closes an app because a week is over
        device.score([{"timestamp": 86_400 + minute * 60, **reading} for minute in range(3)])
    with EdgeDatabase(home / "edge.db") as database:
        marks = [record.stale for record in Outbox(database).lease().records if isinstance(record, Anomaly)]
    assert (marks[0], marks[-1]) == (False, True)


def test_a_bundle_of_another_model_is_not_scored_with(
    home: Path, readings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The home was enrolled again for another model, or device.json was edited."""
    identity = Identity("d", "0" * 32, "https://s", "fans", "stable", None, None, "0" * 64, 1, insecure_http=False)
    save_identity(Home(home), identity, "st_dev_" + "x" * 43, FileSystem())
    assert score(home, "--input", readings) == 7
    assert "is of model pumps; this device runs fans" in capsys.readouterr().err


def test_a_pipe_loads_only_what_a_device_has(home: Path, readings: Path) -> None:
    script = (
        "import sys; from edge_runtime.cli import run_command; code = run_command(sys.argv[1:]);"
        "bad = {'tuf', 'cryptography', 'pandas', 'sklearn', 'onnx', 'flask'} & set(sys.modules);"
        "sys.exit(f'loaded {bad}' if bad else code)"
    )
    command = [sys.executable, "-c", script, "score", "--home", str(home), "--input", "-"]
    done = subprocess.run(command, input=readings.read_bytes(), capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 9


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_after_what_was_read_is_stored(home: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", "from edge_runtime.cli import main; main()", "score", "--home", str(home)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write((HEADER + "60,1,1,x\n").encode())
        assert process.stdout.readline()  # the first group goes at once, the next one would wait for a second
        process.stdin.write(b"120,3,3,x\n180,3,3,x\n240,3")
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    with EdgeDatabase(home / "edge.db") as database:
        counters = database.counters()
    assert sum(counters.values()) == 3  # half a line is not a reading yet
    assert len(out.splitlines()) == 2
    assert "3 readings" in err.decode()
    assert b"Traceback" not in err


def test_a_signal_still_gives_one_json_object(home: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from edge_runtime.cli import main; main()",
        "score",
        "--home",
        str(home),
        "--json",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        process.stdin.write((HEADER + "60,1,1,x\n").encode())
        end = time.monotonic() + 30
        while not stored(home) and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["readings"] == 1


def stored(home: Path) -> int:
    if not (home / "edge.db").exists():
        return 0
    with EdgeDatabase(home / "edge.db") as database:
        return sum(database.counters().values())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("timestamp;heat;load\n1;2;3\n", "separates its columns with semicolons"),
        ("timestamp\theat\tload\n1\t2\t3\n", "separates its columns with tabs"),
        ('[{"timestamp": 1, "heat": 2, "load": 3}]', "is one JSON array"),
    ],
)
def test_formats_that_people_try(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, sentence: str
) -> None:
    path = tmp_path / "readings.csv"
    path.write_text(text)
    assert score(home, "--input", path) == 3
    assert sentence in capsys.readouterr().err


def test_json_is_one_object_even_when_the_command_line_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["score", "--json", "--nope"]) == 2
    assert json.loads(capsys.readouterr().out)["error"] == "usage"
