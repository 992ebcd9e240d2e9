"""The README's journey, command by command, as a newcomer would paste it: only the fleet is smaller."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
MARK = "<!-- tests/journey/test_readme.py runs these commands -->"


def _commands() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(re.escape(MARK) + r"\n```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return block.group(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.timeout(300)
def test_the_journey_of_the_readme(tmp_path: Path) -> None:
    port = _free_port()
    fleet = "exporter simulate --out fleet"
    start = "sync-server run --data-dir var &"
    commands = _commands()
    assert fleet in commands
    assert start in commands
    script = (
        commands.replace(fleet, f"{fleet} --devices 36 --days 6 && {sys.executable} cut.py")
        .replace(start, start + "\nSERVER=$!\n")
        .replace(":8080", f":{port}")
        .replace("operator create alice", "operator create alice --password-file password")
        .replace("--data-dir var --model", f"--url http://127.0.0.1:{port} --data-dir var --model")
    )
    (tmp_path / "password").write_text("a long enough password\n")
    (tmp_path / "cut.py").write_text(
        "import pandas as pd\n"
        "fleet = pd.read_parquet('fleet/readings.parquet')\n"
        "one = fleet[fleet.device_id == fleet.device_id.max()].drop(columns=['device_id', 'cohort'])\n"
        "one.iloc[:200].to_csv('readings.csv', index=False)\n"
        "one.iloc[200:].to_json('readings.ndjson', orient='records', lines=True, date_format='iso')\n"
    )
    environment = {
        **{name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "SYNC_SERVER_PORT": str(port),
    }
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", f"trap 'kill $SERVER; wait $SERVER || true' EXIT\n{script}"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=240)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 0, errors[-3000:]
    assert '"anomaly_score"' in output
    assert len(pd.read_csv(tmp_path / "readings.csv")) == 200
