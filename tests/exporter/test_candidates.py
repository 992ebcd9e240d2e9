"""Which form ships: the goals first, then what is preferred; and the sentence that says why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exporter.candidates import Measured, choose
from exporter.costs import Cost
from exporter.parity import Fidelity
from exporter.spec import GoalSpec

KEPT = Fidelity(1000, 1e-3, 1e-4, 0.9999, 1, 0.001, 0.9, 0.0)


def form(
    name: str, deflated: int, us: float, *, precision: str = "int8", same: bool = False, **fidelity: float
) -> Measured:
    cost = Cost(2 * deflated, deflated, 1.0, {1: us, 100: us / 10, 10_000: us / 20})
    return Measured(name, precision, "About it.", (), b"", same, {"held out": replace(KEPT, **fidelity)}, cost)


FP32 = form("fp32", 100_000, 20.0, precision="fp32", same=True)
CODEBOOK = form("codebook8", 80_000, 25.0, precision="codebook8", same=True)
SLOW = form("int8", 51_000, 26.0)
QUICK = form("int8 static", 60_000, 10.0)


def test_the_smallest_that_is_hardly_slower() -> None:
    choice = choose([FP32, CODEBOOK, SLOW], GoalSpec(), "auto")
    assert choice.name == "codebook8"
    assert choice.verdicts["int8"] == (
        "Not chosen: INT8 is 1.3 times slower at batch 1 on this CPU and saves 49 KB (49%)."
    )
    assert "saves 20 KB (20%)" in choice.reason
    assert choose([FP32, SLOW, QUICK], GoalSpec(), "auto").name == "int8 static"
    assert choose([FP32, CODEBOOK, SLOW], GoalSpec(slowdown=1.4), "auto").name == "int8"


def test_fp32_ships_where_int8_loses() -> None:
    choice = choose([FP32, SLOW], GoalSpec(), "auto")
    assert choice.name == "fp32"
    assert choice.reason == "No smaller form keeps the goals and its speed."
    assert choice.verdicts["fp32"].startswith("Ships.")


def test_the_fastest_at_the_batch_that_counts() -> None:
    late = form("int8 dynamic", 70_000, 30.0)
    late = replace(late, cost=replace(late.cost, window_us={1: 30.0, 100: 0.5, 10_000: 0.4}))
    goals = GoalSpec(prefer="fastest")
    assert choose([FP32, QUICK, late], goals, "auto").name == "int8 static"
    assert choose([FP32, QUICK, late], replace(goals, batch=100), "auto").name == "int8 dynamic"
    assert choose([FP32, CODEBOOK], goals, "auto").name == "codebook8"  # as fast, and smaller


@pytest.mark.parametrize("poor", [{"spearman": 0.99}, {"label_flip_share": 0.01}, {"auc_change": -0.01}])
def test_a_goal_missed_on_any_data_set_is_out(poor: dict[str, float]) -> None:
    two = replace(QUICK, fidelity={"held out": KEPT, "winter": replace(KEPT, **poor)})
    choice = choose([FP32, two], GoalSpec(), "auto")
    assert choice.name == "fp32"
    assert choice.verdicts["int8 static"].startswith("Refused: it has ")
    assert "(winter)" in choice.verdicts["int8 static"]
    assert choice.missed == ()


def test_a_precision_by_name() -> None:
    assert choose([FP32, SLOW, QUICK], GoalSpec(), "fp32").name == "fp32"
    slow = choose([FP32, CODEBOOK, SLOW], GoalSpec(), "int8")
    assert slow.name == "int8"  # slow, and asked for
    assert slow.reason.startswith("It is the smallest int8 form that keeps the goals, and model.toml asks for int8: ")
    poor = form("int8 poor", 50_000, 10.0, label_flip_share=0.1)
    best = form("int8 better", 50_000, 10.0, label_flip_share=0.05)
    choice = choose([FP32, poor, best], GoalSpec(), "int8")
    assert choice.name == "int8 better"
    assert choice.missed == ("int8 better has 5.000% other verdicts, with at most 0.200% wanted (held out).",)
    none = choose([FP32, CODEBOOK], GoalSpec(), "int8")
    assert (none.name, none.missed) == ("fp32", ("model.toml asks for int8, and this detector has no such form.",))


def test_the_reason_holds_on_every_machine() -> None:
    """It travels in the bundle, whose bytes are the same wherever it is built."""
    slower = replace(QUICK, cost=replace(QUICK.cost, load_ms=9.0, window_us={1: 11.0, 100: 1.0, 10_000: 0.5}))
    assert choose([FP32, QUICK], GoalSpec(), "auto").reason == choose([FP32, slower], GoalSpec(), "auto").reason
