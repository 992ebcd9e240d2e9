"""Parity figures on cases small enough to check by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from exporter.parity import Fidelity, area_under_curve, average_precision, compare_graph, missed_exactness
from exporter.spec import GoalSpec

GOOD = Fidelity(1000, 1e-3, 1e-4, 0.9999, 1, 0.001, 0.9, -0.001)


def test_one_graph_against_the_trained_model() -> None:
    trained = np.array([0.1, 0.2, 0.3, 0.4])
    graph = np.array([0.1, 0.3, 0.2, 0.4])
    found = compare_graph(trained, graph, trained > 0.25, graph > 0.25, np.array([0, 0, 1, 1], np.int8))
    assert found.windows == 4
    assert found.max_raw_difference == pytest.approx(0.1)
    assert found.mean_raw_difference == pytest.approx(0.05)
    assert found.spearman == pytest.approx(0.8)
    assert (found.label_flips, found.label_flip_share) == (2, 0.5)
    assert (found.auc, found.auc_change) == (0.75, -0.25)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, None),
        ({"spearman": 0.9989}, "rank correlation of 0.99890"),
        ({"label_flip_share": 0.0021}, "0.210% other verdicts"),
        ({"auc_change": -0.006}, "AUC lower by 0.0060"),
        ({"auc_change": 0.2}, None),
        ({"auc": None, "auc_change": None}, None),
        ({"alone_difference": 9e-6}, None),
        ({"alone_difference": 0.02}, "differ by 0.02 for a window alone and among others"),
    ],
)
def test_goals_that_a_form_misses(change: dict, says: str | None) -> None:
    missed = replace(GOOD, **change).missed(GoalSpec())
    assert missed == [] if says is None else says in missed[0]


def test_the_exact_graph_is_held_to_the_trained_model() -> None:
    exact = replace(GOOD, max_raw_difference=9e-7, label_flips=0)
    assert missed_exactness({"held out": exact}, 1e-6) == []
    assert "with 1 other verdicts" in missed_exactness({"held out": replace(exact, label_flips=1)}, 1e-6)[0]
    assert (
        "2e-06 in raw score on new"
        in missed_exactness({"held out": exact, "new": replace(exact, max_raw_difference=2e-6)}, 1e-6)[0]
    )


def test_no_auc_without_both_labels() -> None:
    assert area_under_curve(np.array([0, 0, -1], np.int8), np.array([1.0, 2, 3])) is None
    assert area_under_curve(np.array([0, 1, -1], np.int8), np.array([1.0, 2, 0])) == 1.0
    assert average_precision(np.array([0, 0, -1], np.int8), np.array([1.0, 2, 3])) is None
    assert average_precision(np.array([0, 1, 0], np.int8), np.array([1.0, 2, 3])) == 0.5
