"""Contributions: by hand, against a slow second implementation, and with everything that can be missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.edge_models import REGIMES, tiny_manifest, tiny_model

from edge_runtime.errors import ScoringError
from edge_runtime.explanation import Explainer
from edge_runtime.scoring import Scorer

PLAIN = Scorer(tiny_model())
WITH_CONTEXT = Scorer(tiny_model(context=True))


def explainer(references: np.ndarray, *, context: bool) -> Explainer:
    manifest = tiny_manifest(context=context)
    return Explainer(WITH_CONTEXT if context else PLAIN, manifest, references.astype("<f4").tobytes())


def explain(window: np.ndarray, references: np.ndarray, *, context: bool) -> dict[str, float]:
    window = np.float32(window)
    raw = float((WITH_CONTEXT if context else PLAIN).score(window[None]).raw_score[0])
    return dict(explainer(references, context=context).contributions(window, raw))


def test_the_signal_that_is_off_carries_the_score() -> None:
    found = explain([[4, 0.1]] * 4, np.full((2, 4, 2), 0.1), context=False)
    assert found == {"battery": pytest.approx(1.95, rel=1e-5)}


def test_contributions_are_signed_and_ordered_by_size() -> None:
    references = np.stack([np.full((4, 2), 1.0), np.full((4, 2), 2.0)])
    window = np.float32([[0.0, 5.0]] * 4)
    found = explainer(references, context=False).contributions(window, 2.5)
    assert found == (("radio", pytest.approx(1.75)), ("battery", pytest.approx(-0.75)))


def test_a_slot_without_a_reading_stays_without_one() -> None:
    window = [[np.nan, np.nan], [np.nan, np.nan], [4, 0], [4, 0]]
    found = explain(window, np.full((2, 4, 2), 1.0), context=False)
    assert found == {"battery": pytest.approx(1.5), "radio": pytest.approx(-0.5)}


def test_with_context_a_column_is_replaced_in_its_own_regime() -> None:
    # Charging: 10 is a normal battery there, 13 is 3 spreads off; the references were not charging.
    references = np.broadcast_to(np.float32([0.1, 0.1, 0]), (2, 4, 3))
    found = explain([[13, 100, 1]] * 4, references, context=True)
    assert found == {"battery": pytest.approx(1.45, rel=1e-5), "radio": pytest.approx(-0.05, rel=1e-4)}


def test_a_reading_without_context_is_left_alone() -> None:
    references = np.broadcast_to(np.float32([0.1, 0.1, 0]), (2, 4, 3))
    found = explain([[13, 100, np.nan]] * 2 + [[13, 100, 1]] * 2, references, context=True)
    assert found["battery"] == pytest.approx(1.45, rel=1e-5)


def test_references_of_another_size_are_refused() -> None:
    with pytest.raises(ScoringError, match="bytes instead of"):
        Explainer(PLAIN, tiny_manifest(), b"1234")


def test_references_that_score_as_no_number_are_refused() -> None:
    with pytest.raises(ScoringError) as caught:
        explainer(np.full((2, 4, 2), np.inf), context=False).contributions(np.float32([[4, 0.1]] * 4), 2.05)
    assert caught.value.reason == "not_finite"


cells = st.one_of(st.floats(-50, 150, width=32), st.just(float("nan")))
rows = st.tuples(cells, cells, st.sampled_from([0.0, 1.0, 0.0, 1.0, float("nan")]))
windows = st.lists(rows, min_size=4, max_size=4)


@settings(max_examples=60, deadline=None)
@given(windows, windows, windows)
def test_against_loops(window: list, first: list, second: list) -> None:
    own = np.float32(window)
    references = np.float32([first, second])
    raw = float(WITH_CONTEXT.score(own[None]).raw_score[0])
    expected = {
        "battery": raw - np.mean([_raw(_column(own, reference, 0)) for reference in references]),
        "radio": raw - np.mean([_raw(_column(own, reference, 1)) for reference in references]),
        "context": raw - np.mean([_raw(_context(own, reference)) for reference in references]),
    }
    found = dict(explainer(references, context=True).contributions(own, raw))
    for name, value in expected.items():
        # Residuals go through float32 twice on the way: a few last digits of values up to 150.
        assert found.get(name, 0.0) == pytest.approx(value, rel=1e-5, abs=2e-4)


def _raw(window: np.ndarray) -> float:
    return float(WITH_CONTEXT.score(np.float32(window)[None]).raw_score[0])


def _column(own: np.ndarray, reference: np.ndarray, column: int) -> np.ndarray:
    result = own.copy()
    for slot in range(len(own)):
        if np.isnan(own[slot]).all() or np.isnan(own[slot, 2]):
            continue
        here = int(own[slot, 2] > 0.5)
        if np.isnan(reference[slot, 2]):
            result[slot, column] = np.nan
            continue
        there = int(reference[slot, 2] > 0.5)
        residual = (reference[slot, column] - REGIMES.means[there][column]) / REGIMES.spreads[there][column]
        result[slot, column] = REGIMES.means[here][column] + REGIMES.spreads[here][column] * residual
    return result


def _context(own: np.ndarray, reference: np.ndarray) -> np.ndarray:
    result = own.copy()
    for slot in range(len(own)):
        if np.isnan(own[slot, 2]) or np.isnan(reference[slot, 2]):
            continue
        here, there = int(own[slot, 2] > 0.5), int(reference[slot, 2] > 0.5)
        for column in (0, 1):
            residual = (own[slot, column] - REGIMES.means[here][column]) / REGIMES.spreads[here][column]
            result[slot, column] = REGIMES.means[there][column] + REGIMES.spreads[there][column] * residual
        result[slot, 2] = reference[slot, 2]
    return result
