"""Names, enrolment lines, rollouts, releases: small rules, and the inputs that break them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.contract import histogram, names, release, rollout
from edge_runtime.contract.enrolment import EnrolmentLine
from edge_runtime.contract.manifest import Manifest
from edge_runtime.contract.problem import Problem
from edge_runtime.contract.release import TargetCustom, choose_target
from edge_runtime.contract.window import clock_stepped
from edge_runtime.errors import ContractError, StellaError, TrustError

from .goldens import SALT, bundle_files

DIGEST = "c" * 64


@pytest.mark.parametrize("name", ["", "A", "-a", "a" * 65, "a/b", "..", "a b", None, 5, "ü"])
def test_bad_names_are_refused(name: object) -> None:
    with pytest.raises(ContractError):
        names.check_name("model", name)


@given(st.text(max_size=40))
def test_any_cohort_makes_a_safe_path(cohort: str) -> None:
    path = names.target_path("m", "1", cohort)
    assert path.startswith("m/1/")
    assert len(path.removeprefix("m/1/")) == len("0123456789abcdef.bundle")
    assert names.cohort_part(cohort) != names.DEFAULT_COHORT_PART


@pytest.mark.parametrize("url", ["https://fleet.example.com", "http://127.0.0.1:8080", "https://[::1]:8443/edge"])
def test_an_enrolment_line_reads_back(url: str) -> None:
    line = EnrolmentLine(url, "st_enr_" + "x" * 43, DIGEST, 12)
    assert EnrolmentLine.parse(f"  {line}\n") == line


@pytest.mark.parametrize(
    "text",
    [
        "", "stella-enroll:1", f"stella-enroll:2:https://a:{'t' * 20}:{DIGEST}:1", f"stella-enroll:1:a:{'t' * 20}:{DIGEST}:1",
        f"stella-enroll:1:ftp://a:{'t' * 20}:{DIGEST}:1", f"stella-enroll:1:https://u:p@a:{'t' * 20}:{DIGEST}:1",
        f"stella-enroll:1:https://a:{'t' * 20}:{DIGEST[:-1]}:1", f"stella-enroll:1:https://a?x=1:{'t' * 20}:{DIGEST}:1",
        f"stella-enroll:1:https://a:99999999:{'t' * 20}:{DIGEST}:1",
    ],
)  # fmt: skip
def test_a_broken_enrolment_line_is_refused(text: str) -> None:
    with pytest.raises(ContractError):
        EnrolmentLine.parse(text)


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.text(max_size=20))
def test_devices_stay_in_as_the_share_grows(a: int, b: int, device: str) -> None:
    small, large = sorted((a, b))
    entry = {"id": 1, "model": "m", "release": 2, "previous": 1, "salt": SALT, "state": "running"}
    first = rollout.Rollout.from_dict({**entry, "share": small})
    second = rollout.Rollout.from_dict({**entry, "share": large})
    assert rollout.is_in(second, device, None) or not rollout.is_in(first, device, None)


def test_the_share_is_the_share() -> None:
    buckets = [rollout.bucket(SALT, f"device-{i}") for i in range(4000)]
    # Binomial with n = 4000, p = .2: five standard deviations are 126.
    assert abs(sum(b < 2000 for b in buckets) - 800) < 126


@pytest.mark.parametrize(
    "change",
    [
        {"state": "stopped"},
        {"share": 10_001},
        {"share": 1.0},
        {"salt": "x"},
        {"release": 0},
        {"model": "A"},
        {"id": True},
    ],
)
def test_a_broken_rollout_is_refused(change: dict[str, object]) -> None:
    entry = {"id": 1, "model": "m", "release": 2, "previous": None, "share": 5, "salt": SALT, "state": "running"}
    rollout.parse_rollouts({"rollouts": {"stable": entry}})
    with pytest.raises(ContractError):
        rollout.parse_rollouts({"rollouts": {"stable": {**entry, **change}}})


def _custom(
    number: int, cohort: str | None = None, model: str = "m", channels: tuple[str, ...] = ("stable",)
) -> TargetCustom:
    return TargetCustom(model, f"{number}", cohort, number, channels, 10, "key")


CUSTOMS = {
    "m/1/default": _custom(1), "m/2/default": _custom(2), "m/2/eu": _custom(2, "eu"), "n/3/default": _custom(3, model="n"),
    "m/4/default": _custom(4, channels=("beta",)), "m/5/us": _custom(5, "us"),
}  # fmt: skip


@pytest.mark.parametrize(("cohort", "path"), [("eu", "m/2/eu"), ("us", "m/2/default"), (None, "m/2/default")])
def test_a_device_takes_its_cohorts_bundle_else_the_default(cohort: str | None, path: str) -> None:
    assert choose_target(CUSTOMS, model="m", channel="stable", cohort=cohort, release=2, floor=2) == path


@pytest.mark.parametrize(
    ("wanted", "floor", "reason"),
    [
        (1, 2, "below_floor"),
        (9, 0, "release_missing"),
        (3, 0, "wrong_model"),
        (4, 0, "wrong_channel"),
        (5, 0, "release_missing"),
    ],
)
def test_what_release_keys_did_not_allow_is_refused(wanted: int, floor: int, reason: str) -> None:
    with pytest.raises(TrustError) as caught:
        choose_target(CUSTOMS, model="m", channel="stable", cohort="eu", release=wanted, floor=floor)
    assert caught.value.reason == reason


def test_a_target_and_the_floors_read_back() -> None:
    custom = _custom(2, "eu")
    assert release.custom_of("p", {"custom": custom.to_dict()}) == custom
    assert release.floor_of({"minimum_release": {"m": 3}}, "m") == 3
    assert release.floor_of({}, "m") == 0
    with pytest.raises(ContractError):
        release.custom_of("p", {})


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_a_score_outside_its_range_has_no_bin(score: float) -> None:
    with pytest.raises(ValueError, match="outside"):
        histogram.bin_of(score)


def test_a_clock_that_steps_back_by_more_than_a_day_is_noticed() -> None:
    day = 86_400_000
    assert clock_stepped(0, day + 1)
    assert not clock_stepped(0, day)
    assert not clock_stepped(0, None)


@pytest.mark.parametrize("field", ["signals", "window", "threshold", "regimes", "files", "histogram", "release_number"])
def test_a_manifest_with_a_broken_field_is_refused(field: str) -> None:
    value = Manifest.from_bytes(bundle_files()["manifest.json"]).to_dict()
    for junk in (None, [], "x", {}, -1, [[1]]):
        if (field, junk) in (("files", {}),):
            continue
        with pytest.raises(ContractError):
            Manifest.from_dict({**value, field: junk})


def test_a_problem_is_shown_without_control_characters() -> None:
    said = Problem.from_dict({"title": "No\x1b[31m", "code": 5, "detail": "x" * 900}, status=401)
    assert (said.title, said.code, len(said.detail)) == ("No[31m", "", 500)


def test_every_error_has_an_exit_code_of_its_family() -> None:
    assert {kind.exit_code for kind in StellaError.__subclasses__() if kind.__module__ == "edge_runtime.errors"} <= set(
        range(3, 8)
    )
