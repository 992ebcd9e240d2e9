"""The benchmarks' timer, results and page behave; no time is asserted."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from simulators.bundles import small_graph

from benchmarks import aarch64, harness, performance
from benchmarks.__main__ import main
from benchmarks.document import PAGE, page
from benchmarks.harness import APART, NAMES
from benchmarks.machine import describe_code, describe_machine
from benchmarks.timing import Side, Timing, take_turns


@pytest.fixture
def report() -> harness.Report:
    report = harness.Report("forest", "How fast?", quick=False)
    report.figure("speed", 312.4, "x", at_least=300)
    report.figure("size", 0.31, "MB", at_most=0.3)
    report.figure("rows", 10_000, "")
    report.table("By set", ("set", "AUC"), [["cmapss | all", 0.9991], ["smd", None]])
    report.timings([Timing("one row", 1, 200, (2e-5, 3e-5, 1e-5))])
    report.note("A note.")
    return report


def test_sides_take_turns_and_no_call_sees_the_same_number():
    seen: list[tuple[str, int]] = []
    sides = [Side("a", lambda k: seen.append(("a", k)), calls=2), Side("b", lambda k: seen.append(("b", k)))]
    timings = take_turns(sides, repeats=3, warmups=1)
    assert [len(timings[name].seconds) for name in "ab"] == [3, 3]
    assert len({k for _, k in seen}) == len(seen) == 4 * 3
    order = [name for name, _ in seen]
    assert order[3:6] == ["a", "a", "b"]  # the first timed repeat
    assert order[6:9] == ["b", "a", "a"]  # the next one, the other way round


def test_sides_of_one_name_or_none_are_refused():
    with pytest.raises(ValueError, match="different names"):
        take_turns([Side("a", print), Side("a", print)], repeats=1)
    with pytest.raises(ValueError, match="at least one"):
        take_turns([], repeats=1)


def test_a_timing_is_the_median_and_keeps_every_repeat():
    timing = Timing("batch", 10, 1, (5.0, 1.0, 2.0))
    assert timing.median == 2.0
    assert timing.per_item == 0.2
    assert timing.to_dict()["repeats"] == [5.0, 1.0, 2.0]


def test_a_result_says_machine_code_and_whether_goals_are_met(report: harness.Report):
    result = json.loads(json.dumps(report.to_dict()))
    assert [figure["met"] for figure in result["figures"]] == [True, False, None]
    assert result["machine"]["cores"] >= 1
    assert result["machine"]["libraries"]["numpy"]
    assert set(result["code"]) == {"commit", "dirty"}
    assert 0 <= result["others_cpu_share"] <= 1


def test_a_figure_that_is_no_number_meets_no_goal(report: harness.Report):
    report.figure("AUC", float("nan"), "", at_least=0.9)
    assert report.to_dict()["figures"][-1]["met"] is False


def test_results_are_written_read_back_and_shown(report: harness.Report, tmp_path):
    path = harness.write_result(report.to_dict(), tmp_path)
    assert path.name == "forest.json"
    (result,) = harness.read_results(tmp_path)
    text = harness.readable(result)
    assert "at least 300" in text
    assert "MISSED" in text
    assert "A note." in text
    markdown = page([result])
    assert "`python -m benchmarks forest`" in markdown
    assert "cmapss \\| all" in markdown
    (tmp_path / "other.json").write_text(path.read_text())
    with pytest.raises(ValueError, match=r"other\.json"):
        harness.read_results(tmp_path)


def test_a_quick_result_never_replaces_a_committed_one(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "QUICK_RESULTS", tmp_path / "quick")
    result = harness.Report("forest", "How fast?", quick=True).to_dict()
    assert harness.write_result(result).parent == tmp_path / "quick"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), ("a", "a"), (12_340, "12,340"), (0.00012345, "0.0001234"), (1672.4, "1,672"), (1.0, "1")],
)
def test_numbers_are_written_for_people(value: Any, text: str):
    assert harness.number(value) == text


@pytest.mark.parametrize("name", NAMES)
def test_every_script_asks_one_question(name: str):
    script = importlib.import_module(f"benchmarks.{name}")
    assert script.QUESTION.endswith(".")
    assert callable(script.run)


def test_the_command_lists_what_there_is_and_refuses_the_rest():
    listed = CliRunner().invoke(main, ["--list"])
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(NAMES)
    assert CliRunner().invoke(main, ["speed"]).exit_code == 2


def test_machine_and_code_name_no_person_or_host():
    text = json.dumps([describe_machine(), describe_code()])
    import getpass
    import socket

    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text


def test_the_page_is_what_the_results_say():
    results = harness.read_results()
    assert {result["benchmark"] for result in results} <= {*NAMES, *APART}
    assert not any(result["quick"] for result in results)
    if results:
        assert PAGE.read_text("utf-8") == page(results), "run: python -m benchmarks.document"
    elsewhere = harness.read_results(harness.ELSEWHERE)
    whole = performance.page(results, elsewhere)
    assert performance.PAGE.read_text("utf-8") == whole, "run: python -m benchmarks.document"


def test_without_results_every_measured_cell_says_so():
    text = performance.page([])
    assert "| 1 | 4.2 ms / 180 MB | 1.2 ms | not measured | not measured | not measured |" in text
    assert "| all of it | 52 min |  | not measured |" in text
    assert "| int8, 10,000 rows in a call |  |  | not measured |" in text
    assert "_20" not in text, "no run, no circumstances"


def test_the_performance_page_takes_figures_and_cells_from_results():
    report = harness.Report("scoring", "How fast?")
    report.figure("batch 1: ours of 500 trees, times as fast as scikit-learn's of 300", 412.3, "x", at_least=1)
    report.table(
        "Milliseconds a call by batch size, on one", ("side", "1", "1, 2 threads"), [["ours fp32", 0.0151, None]]
    )
    report.table("Peak memory of a process", ("side", "1"), [["ours fp32", 71.4]])
    network = harness.Report("autoencoder", "How small?")
    network.figure("file, times smaller", 3.7, "x", at_least=3.5)
    text = performance.page([report.to_dict(), network.to_dict()])
    assert "| 1 | 4.2 ms / 180 MB | 1.2 ms | not measured | 0.0151 ms / 71.4 MB | not measured |" in text
    assert "times as fast |  | at least 1 | 412.3 x |" in text
    assert "| file, times smaller |  |  | 3.7 x |" in text


def test_what_another_machine_missed_is_told():
    report = harness.Report("ingest", "How fast?")
    report.figure("results a second through HTTP", 13_000, "/s", at_least=15_000)
    text = performance.page([], [report.to_dict()])
    assert "## On another machine" in text
    assert "| ingest: results a second through HTTP | 13,000 | /s | at least 15,000 | MISSED |" in text
    assert "## On another machine" not in performance.page([])


def test_models_are_compared_with_another_python(report: harness.Report, tmp_path, monkeypatch):
    """What an emulated Arm core is asked, asked of this very Python."""
    monkeypatch.setattr(aarch64, "EMULATOR", tmp_path / "none")
    for name, bias in (("one", 0.25), ("two", 0.75)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "windows.npy", np.random.default_rng(0).normal(size=(50, 4, 2)).astype(np.float32))
        (tmp_path / name / "fp32.onnx").write_bytes(small_graph(4, 2, bias, 0.8))
    aarch64.measure(report, tmp_path, {"this": [sys.executable]})
    result = report.to_dict()
    assert [row[:4] for row in result["tables"][-1]["rows"]] == [
        ["one", "fp32", "this", 50],
        ["two", "fp32", "this", 50],
    ]
    assert [figure["value"] for figure in result["figures"][-2:]] == [0.0, 0]
    assert result["tables"][-1]["rows"][1][4] > 0
    scores = np.load(tmp_path / "one" / "fp32.this.npz")
    np.savez(tmp_path / "one" / "fp32.other.npz", raw_score=scores["raw_score"] + 8, is_anomaly=~scores["is_anomaly"])
    assert aarch64.compare(tmp_path / "one" / "fp32.onnx", "other")[-3:] == [pytest.approx(8.0), "0.00%", 50]


def test_arm_without_an_emulator_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(aarch64, "EMULATOR", tmp_path)
    done = CliRunner().invoke(aarch64.main, [])
    assert done.exit_code == 1
    assert "--prepare" in done.output
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert "apt-get install" in CliRunner().invoke(aarch64.main, ["--prepare"]).output


def test_what_was_measured_is_on_the_performance_page() -> None:
    """A row that asks a result for a column of another name would say that nothing was measured."""
    page = (harness.REPOSITORY / "docs" / "performance.md").read_text("utf-8")
    before_gpu, _, _ = page.partition("## GPU")
    assert "not measured" not in before_gpu
