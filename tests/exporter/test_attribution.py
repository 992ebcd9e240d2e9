"""Hit rates: the paper's definition, chance by its formula, and a ranking that finds the signal at fault."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from simulators.edge_models import tiny_manifest, tiny_model

from edge_runtime.explanation import Explainer
from edge_runtime.scoring import Scorer
from exporter.attribution import chance_hit_rate, hit_rate, rank_signals


def test_hits_among_as_many_signals_as_are_at_fault_and_half_as_many_again() -> None:
    ranked = ("a", "x", "b", "y", "z")
    assert hit_rate(ranked, {"a", "b"}, 1.0) == 0.5
    assert hit_rate(ranked, {"a", "b"}, 1.5) == 1.0
    assert hit_rate(ranked, {"b"}, 1.5) == 0.0, "one and a half signals are one"
    assert hit_rate(ranked, set(ranked), 1.5) == 1.0, "no more signals than there are"


@pytest.mark.parametrize(("truth", "share"), [(1, 1.0), (2, 1.0), (2, 1.5), (4, 1.0), (4, 1.5)])
def test_chance_is_the_mean_over_all_rankings(truth: int, share: float) -> None:
    faulty = set(random.Random(truth).sample("abcde", truth))
    rates = [hit_rate(ranked, faulty, share) for ranked in itertools.permutations("abcde")]
    assert chance_hit_rate(5, truth, share) == pytest.approx(np.mean(rates))


@pytest.mark.parametrize("context", [False, True])
def test_the_signal_that_is_off_comes_first_and_context_is_no_signal(context: bool) -> None:
    scorer, manifest = Scorer(tiny_model(context=context)), tiny_manifest(context=context)
    columns = len(manifest.signals)
    references = np.full((manifest.references, 4, columns), 0.0, "<f4")
    explainer = Explainer(scorer, manifest, references.tobytes())
    windows = np.zeros((40, 4, columns), np.float32)
    windows[:, :, 0] = 9
    names = [manifest.signals[column].name for column in manifest.signal_columns]

    def ranked() -> tuple[str, ...]:
        return rank_signals(explainer, windows, scorer.raw_scores(windows))

    assert ranked()[0] == names[0]
    windows[:, :, 0], windows[:, :, 1] = 0, 9
    assert ranked() == tuple(reversed(names))
