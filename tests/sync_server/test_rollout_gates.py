"""The gates' statistics: never wrong more often than they say, whatever the fleet; and they see what is there."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.rollout_fleet import Nature
from benchmarks.rollout_trial import try_out
from sync_server.rollouts.bounds import binomial_tail, less_own_past, mean_bounds, psi, randomisation_bounds
from sync_server.rollouts.findings import Counted, Figures, Finding
from sync_server.rollouts.gates import judge
from sync_server.rollouts.plan import GateSettings, Plan, Silent, Stage
from sync_server.rollouts.spending import WEIGHTS, budget, look_part, stage_part

BUDGET = 1e-3


# --- bounds ---


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-20, 1000), min_size=4, max_size=9), st.integers(1, 4))
def test_the_bound_is_above_the_exact_p_value_of_every_draw(numbers: list[int], treated: int) -> None:
    values = np.array(numbers, float)
    draws = [list(draw) for draw in combinations(range(len(values)), min(treated, len(values) - 1))]
    sums = np.array([values[draw].sum() for draw in draws])
    for draw, total in zip(draws, sums, strict=True):
        chosen = np.zeros(len(values), bool)
        chosen[draw] = True
        exact = (sums >= total).mean()
        assert randomisation_bounds(values[None], chosen)[0] >= exact - 1e-9


def test_the_bound_is_not_far_above_it_either() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=1000)
    treated = np.arange(1000) < 20
    values[treated] += 1.2
    z = values[treated].mean() / values.std() * math.sqrt(20)
    normal = math.erfc(z / math.sqrt(2)) / 2
    assert normal < randomisation_bounds(values[None], treated)[0] < 40 * normal


@pytest.mark.parametrize("values", [[1.0] * 6, [0.0, 0.0, 0.0, 9.0, 9.0, 9.0]])
def test_nothing_to_see_is_a_bound_of_one(values: list[float]) -> None:
    treated = np.array([True, True, False, False, False, False])
    assert randomisation_bounds(np.array([values]), treated)[0] == 1.0


def test_one_group_alone_is_a_bound_of_one() -> None:
    assert randomisation_bounds(np.arange(5.0)[None], np.ones(5, bool))[0] == 1.0


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.fractions(Fraction(1, 100), Fraction(99, 100), max_denominator=100))
def test_the_binomial_tail_is_exact(successes: int, more: int, chance: Fraction) -> None:
    trials = successes + more
    exact = sum(math.comb(trials, k) * chance**k * (1 - chance) ** (trials - k) for k in range(successes, trials + 1))
    assert binomial_tail(successes, trials, float(chance)) == pytest.approx(float(exact), rel=1e-9, abs=1e-300)


def test_the_binomial_tail_of_a_large_fleet() -> None:
    assert binomial_tail(0, 10, 0.5) == 1.0
    assert 0 < binomial_tail(21_000, 1_000_000, 0.02) < 1e-11


def test_psi_of_known_histograms() -> None:
    even, shifted = np.full(15, 1 / 15), np.array([2 / 15, 0.0] + [1 / 15] * 13)
    assert psi(even, even) == pytest.approx(0)
    p, q = (2 / 15 + 1e-4) / 1.0015, (1 / 15 + 1e-4) / 1.0015
    gone = 1e-4 / 1.0015
    assert psi(shifted, even) == pytest.approx((p - q) * math.log(p / q) + (gone - q) * math.log(gone / q))


def test_what_all_devices_share_falls_away() -> None:
    before = np.array([1.0, 2.0, 3.0, np.nan, np.nan])
    rest = less_own_past(np.array([12.0, 14.0, 16.0, 5.0, 9.0]), before)
    assert rest == pytest.approx([0, 0, 0, -2, 2])


def test_the_bound_on_a_mean_holds_and_is_used_up() -> None:
    """Of rare large values, the hardest case for a bound on means, and of plain ones."""
    rng = np.random.default_rng(2)
    for values in (np.where(rng.random((20_000, 100)) < 0.02, 0.98, -0.02), rng.uniform(-1, 1, (20_000, 100))):
        bounds = mean_bounds(values)
        for level in (0.5, 0.1, 0.01):
            assert (bounds <= level).mean() <= level
    assert mean_bounds(np.full((1, 400), 0.3))[0] < 1e-10
    assert mean_bounds(np.full((1, 1), 0.9))[0] == 1.0


# --- what may be spent ---


@pytest.mark.parametrize(("stages", "planned"), [(1, 1), (4, 24), (20, 7)])
def test_all_that_can_ever_be_spent_is_the_error_rate(stages: int, planned: int) -> None:
    looks = sum(look_part(look, planned) for look in range(1, 20_000))
    parts = sum(stage_part(stage, stages, 0) for stage in range(stages))
    extra = sum(stage_part(0, stages, number) for number in range(1, 20_000))
    assert looks == pytest.approx(1, abs=1e-4)
    assert parts + extra == pytest.approx(1, abs=1e-4)
    assert sum(WEIGHTS.values()) == pytest.approx(1)
    assert budget(0.01, stage=0, stages=stages, extra=0, look=1, planned=planned) > 0


# --- gates ---


def quiet(count: int) -> Counted:
    """Devices with 1 % anomalous windows, each with another speed."""
    histogram = np.zeros((count, 15))
    histogram[:, 2], histogram[:, 13] = 990.0, 10.0
    windows = np.full(count, 1000.0)
    speed = windows * (100 + np.arange(count) % 7)
    jitter = np.arange(count) % 3
    return Counted(windows, 10.0 + jitter, histogram, windows, speed)


def figures(count: int = 400, inside: int = 100, **changes: object) -> Figures:
    """A fleet in which nothing happens, but for the changes."""
    none = np.zeros(count, bool)
    training = np.tile(quiet(1).histogram / 1000, (count, 1))
    treated = np.arange(count) % (count // inside) == 0 if inside < count else ~none
    made = Figures(treated, treated, none, none, quiet(count), quiet(count), training, training)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def by_gate(found: list[Finding]) -> dict[str, Finding]:
    return {finding.gate: finding for finding in found}


def verdicts(made: Figures, plan: Plan | None = None) -> dict[str, str]:
    return {gate: found.verdict for gate, found in by_gate(judge(made, plan or Plan(), BUDGET)).items()}


ALL_HOLD = dict.fromkeys(WEIGHTS, "holds")


def worse(made: Figures, **fields: float) -> Figures:
    """Multiply what the treated devices count now."""
    now = made.now
    values = {
        name: np.where(made.treated, getattr(now, name) * factor, getattr(now, name)) for name, factor in fields.items()
    }
    return dataclasses.replace(made, now=dataclasses.replace(now, **values))


@pytest.mark.parametrize("inside", [100, 400])
def test_the_same_release_holds_with_and_without_control(inside: int) -> None:
    assert verdicts(figures(inside=inside)) == ALL_HOLD


@pytest.mark.parametrize("inside", [100, 400])
@pytest.mark.parametrize(("gate", "fields"), [("anomalies", {"anomalous": 3.0}), ("latency", {"latency_sum_us": 2.0})])
def test_a_worse_release_trips_its_gate_alone(inside: int, gate: str, fields: dict[str, float]) -> None:
    assert verdicts(worse(figures(inside=inside), **fields)) == {**ALL_HOLD, gate: "tripped"}


@pytest.mark.parametrize(("gate", "fields"), [("anomalies", {"anomalous": 1.1}), ("latency", {"latency_sum_us": 1.3})])
def test_what_is_clear_but_small_does_not_trip(gate: str, fields: dict[str, float]) -> None:
    found = by_gate(judge(worse(figures(4000, 1000), **fields), Plan(), BUDGET))[gate]
    assert found.p is not None
    assert found.p < BUDGET * WEIGHTS[gate]
    assert found.verdict == "holds"


@pytest.mark.parametrize("inside", [100, 400])
def test_another_distribution_trips_without_more_anomalies(inside: int) -> None:
    made = figures(inside=inside)
    moved = made.now.histogram.copy()
    moved[made.treated, 2], moved[made.treated, 8] = 490.0, 500.0
    made = dataclasses.replace(made, now=dataclasses.replace(made.now, histogram=moved))
    assert verdicts(made) == {**ALL_HOLD, "scores": "tripped"}


def test_failures_are_compared_with_what_is_tolerated() -> None:
    made = figures()
    for count, verdict in ((2, "holds"), (12, "tripped")):
        failed = made.treated & (np.cumsum(made.treated) <= count)
        assert verdicts(dataclasses.replace(made, failed=failed))["failures"] == verdict
    few = figures(400, 20)
    failed = few.treated & (np.cumsum(few.treated) <= 2)
    found = by_gate(judge(dataclasses.replace(few, failed=failed), Plan(), 1.0))["failures"]
    assert found.verdict == "holds", "two failures are below the least count, however many devices"


@pytest.mark.parametrize("inside", [100, 400])
def test_devices_that_fall_silent_trip(inside: int) -> None:
    made = figures(inside=inside)
    silent = made.treated & (np.arange(len(made.treated)) % 3 == 0)
    assert verdicts(dataclasses.replace(made, silent=silent)) == {**ALL_HOLD, "silent": "tripped"}
    everywhere = np.arange(len(made.treated)) % 13 == 0
    assert verdicts(dataclasses.replace(made, silent=everywhere)) == ALL_HOLD, "the network, not the release"


def test_devices_that_come_once_a_day_are_no_alarm_at_the_last_stage() -> None:
    often_silent = np.arange(400) % 2 == 0
    made = figures(inside=400, silent=often_silent)
    assert verdicts(made)["silent"] == "tripped"
    assert verdicts(dataclasses.replace(made, silent_before=0.5))["silent"] == "holds"
    assert verdicts(dataclasses.replace(made, silent=made.treated, silent_before=0.5))["silent"] == "tripped"


def test_too_few_devices_say_so() -> None:
    found = judge(figures(92, 4), Plan(), BUDGET)
    assert {finding.verdict for finding in found} == {"few"}
    assert all("Not enough devices" in finding.why for finding in found)


def test_devices_without_a_past_are_compared_by_assignment_alone() -> None:
    none = {name: np.zeros_like(getattr(quiet(400), name)) for name in Counted.__slots__}
    made = figures(before=Counted(**none))
    assert verdicts(made) == ALL_HOLD
    assert verdicts(worse(made, anomalous=3.0)) == {**ALL_HOLD, "anomalies": "tripped"}
    nobody = figures(inside=400, before=Counted(**none))
    compared = {"failures": "holds", "silent": "holds"}
    nothing = {**compared, "anomalies": "none", "scores": "none", "latency": "none"}
    assert verdicts(nobody) == nothing, "neither a control nor an own week, and nothing to wait for"
    first = figures(before=Counted(**none), now=only_treated(made), replaces=False)
    assert verdicts(first) == nothing, "nobody outside runs anything"
    waiting = dataclasses.replace(first, replaces=True)
    assert verdicts(waiting)["anomalies"] == "few", "those outside run the release before, and may still come"
    starting = dataclasses.replace(nobody, now=Counted(**none))
    assert verdicts(starting)["anomalies"] == "few", "their windows may still come"


def only_treated(made: Figures) -> Counted:
    """Return what is counted now, by the treated devices alone."""
    fields = {name: getattr(made.now, name).T * made.treated for name in Counted.__slots__}
    return Counted(**{name: value.T for name, value in fields.items()})


def test_one_stormy_week_does_not_hide_a_tripled_share() -> None:
    made = figures()
    before = made.before.anomalous.copy()
    before[np.flatnonzero(made.treated)[0]] = 900.0
    stormy = dataclasses.replace(made, before=dataclasses.replace(made.before, anomalous=before))
    assert verdicts(stormy) == ALL_HOLD
    found = by_gate(judge(worse(stormy, anomalous=3.0), Plan(), BUDGET))["anomalies"]
    assert (found.verdict, found.effect) == ("tripped", pytest.approx(3.0, rel=0.02))


def test_a_control_that_had_nothing_before_hides_nothing() -> None:
    made = figures()
    counts = np.where(made.treated, made.before.anomalous, 0.0)
    quieter = dataclasses.replace(made, before=dataclasses.replace(made.before, anomalous=counts))
    loud = np.where(made.treated & (np.arange(400) % 8 == 0), 300.0, quieter.now.anomalous)
    found = by_gate(judge(dataclasses.replace(quieter, now=dataclasses.replace(made.now, anomalous=loud)), Plan(), 1.0))
    assert found["anomalies"].effect == pytest.approx(15.5, rel=0.1), "now, and not over a thousand before"


def test_a_gate_that_is_off_is_not_asked() -> None:
    assert "silent" not in verdicts(figures(), Plan(gates=GateSettings(silent=Silent(on=False))))


def test_one_device_has_one_vote_however_loud() -> None:
    made = figures()
    loud = made.now.anomalous.copy()
    loud[np.flatnonzero(made.treated)[:2]] = 1000.0
    assert verdicts(dataclasses.replace(made, now=dataclasses.replace(made.now, anomalous=loud))) == ALL_HOLD


# Three stages of sixteen hours, a look each four.
FAST = Plan(stages=(Stage(500, 960), Stage(3000, 960), Stage(10_000, 960)), look_minutes=240)


def test_of_two_hundred_identical_releases_at_most_two_trip() -> None:
    """The whole way of gates and budgets on fleets of unlike devices."""
    trials = [try_out(seed, FAST, Nature(devices=400)) for seed in range(200)]
    assert sum(bool(trial.tripped) for trial in trials) <= 2


@pytest.mark.parametrize(
    "nature",
    [
        Nature(devices=400, unlike=1.5, burst=40, device_day=0.6, fleet_day=0.3, quiet=0.6),
        Nature(devices=400, anomalous=0.0005, burst=5),
        Nature(devices=400, anomalous=0.2, burst=100),
    ],
    ids=["wild", "rare", "bursts"],
)
def test_no_kind_of_fleet_is_stopped_for_what_it_is(nature: Nature) -> None:
    assert [seed for seed in range(5000, 5025) if try_out(seed, FAST, nature).tripped] == []


def test_of_twenty_bad_releases_all_trip() -> None:
    trials = [try_out(seed, FAST, Nature(devices=400), rise=3.0) for seed in range(20)]
    assert all("anomalies" in trial.tripped for trial in trials), [trial.tripped for trial in trials]
    assert max(trial.had_it for trial in trials) < 0.4, "before the last stage"
