"""The arrows of the house: who may import whom, and what merely importing a room may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ("edge_runtime.contract", "edge_runtime.errors")
ALLOWED = {
    "edge_runtime": (),
    # explanation: what the card says of contributions is what devices will say.
    "exporter": (*SHARED, "edge_runtime.windows", "edge_runtime.scoring", "edge_runtime.explanation"),
    # Server-side scoring runs what devices run; nobody else of the server may (docs/adr/0018).
    "sync_server/scoring": (*SHARED, "edge_runtime.windows", "edge_runtime.scoring", "edge_runtime.explanation"),
    "sync_server": SHARED,
}
OURS = ("edge_runtime", "exporter", "sync_server")


def _imports(path: Path) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


@pytest.mark.parametrize("package", OURS)
def test_arrows_point_at_the_contract(package: str) -> None:
    forbidden = []
    for path in sorted((ROOT / package).rglob("*.py")):
        for line, name in _imports(path):
            if name.split(".")[0] not in OURS or name.split(".")[0] == package:
                continue
            room = str(path.relative_to(ROOT).parent)
            if not any(name == one or name.startswith(f"{one}.") for one in ALLOWED.get(room, ALLOWED[package])):
                forbidden.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert forbidden == []


def test_the_contract_does_no_io_and_needs_no_numpy() -> None:
    banned = {"os", "pathlib", "socket", "sqlite3", "urllib3", "numpy", "onnxruntime", "tuf", "time", "subprocess"}
    for path in sorted((ROOT / "edge_runtime" / "contract").glob("*.py")):
        for line, name in _imports(path):
            assert name.split(".")[0] not in banned, f"{path.name}:{line} imports {name}"
            if name.startswith("edge_runtime."):
                assert name.startswith(SHARED), f"{path.name}:{line} imports {name}"


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("edge_runtime", ["numpy", "onnxruntime", "tuf", "cryptography", "click"]),
        ("edge_runtime.cli", ["sklearn", "pandas", "flask", "onnx", "pyarrow", "onnxruntime", "tuf", "sqlalchemy"]),
        ("edge_runtime.scoring", ["sklearn", "pandas", "flask", "onnx", "pyarrow"]),
        ("exporter", ["sklearn", "onnx", "pandas"]),
        ("exporter.cli", ["sklearn", "onnx", "pandas", "skl2onnx", "flask"]),
        ("sync_server.cli", ["flask", "sqlalchemy", "sklearn", "onnxruntime", "numpy"]),
        ("sync_server.scoring.routes", ["sklearn", "pandas", "onnx", "onnxruntime", "numpy"]),
    ],
)
def test_importing_stays_light(module: str, banned: list[str]) -> None:
    code = f"import sys, {module}; print(sorted(set({banned!r}) & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
