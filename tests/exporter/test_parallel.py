"""Models side by side are the models built one after the other, in threads and on a Dask cluster of two workers."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from simulators.charging_fleet import spec_of

from edge_runtime.errors import InputError, TransportError
from exporter.built import Build
from exporter.config import DetectorSpec, ModelSpec
from exporter.model_build import build_models
from exporter.parallel import Workers, run_side_by_side

COHORTS = {"big": 24, "red": 20, "tiny": 4}
# Whichever thread or machine builds it, a model is the same but for what was timed.
SAME = ("cohort", "candidates", "golden_f32", "references", "threshold", "histogram", "notes")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return spec_of(tmp_path_factory.mktemp("fleet"), COHORTS)


@pytest.fixture(scope="module")
def alone(spec: ModelSpec) -> Build:
    return build_models(spec, workers=Workers(jobs=1))


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", silence_logs=50
    ) as local:
        yield local.scheduler_address


def same(one: Build, other: Build) -> None:
    assert [model.cohort for model in one.models] == [model.cohort for model in other.models]
    assert one.notes == other.notes
    for mine, theirs in zip(one.models, other.models, strict=True):
        assert all(getattr(mine, name) == getattr(theirs, name) for name in SAME)


def test_threads_build_the_same_models(spec: ModelSpec, alone: Build) -> None:
    seen: list[float] = []
    same(build_models(spec, progress=lambda step, share: seen.append(share), workers=Workers(jobs=2)), alone)
    assert seen[-1] == 1.0
    assert seen[2:] == sorted(seen[2:])


@pytest.mark.filterwarnings("ignore::UserWarning:distributed", "ignore::ResourceWarning")
def test_a_dask_cluster_builds_the_same_models(spec: ModelSpec, alone: Build, cluster: str) -> None:
    same(build_models(spec, workers=Workers(dask=cluster)), alone)


def test_the_cohorts_of_a_hybrid_share_the_forest_of_all_devices(spec: ModelSpec) -> None:
    hybrid = replace(spec, detector=DetectorSpec(kind="hybrid", trees=60))
    build = build_models(hybrid, workers=Workers(jobs=2))
    assert [model.cohort for model in build.models] == [None, "big", "red"]
    default, *cohorts = build.models
    for model in cohorts:
        assert not model.below_goals
        assert model.regimes == default.regimes
        assert model.features == default.features
        # Two forests in one graph: twice the trees, one tree node.
        assert len(model.candidates["fp32"]) > 1.6 * len(default.candidates["fp32"])
        assert model.candidates["fp32"].count(b"TreeEnsemble") == 1


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_scheduler_that_does_not_answer(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.parallel.ANSWER_SECONDS", 1)
    for wrong in (f"tcp://127.0.0.1:{free_port()}", "nonsense://x"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(TransportError, match="No Dask scheduler answers at"):
                list(run_side_by_side(_double, [(1,)], Workers(dask=wrong)))


@pytest.fixture
def lonely_scheduler() -> Iterator[str]:
    """A scheduler that nobody works for, in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([*command, "--no-dashboard"], stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        yield f"tcp://127.0.0.1:{port}"
        process.terminate()


def test_a_scheduler_without_workers(spec: ModelSpec, lonely_scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.parallel.ANSWER_SECONDS", 3)
    monkeypatch.setattr("exporter.dataset.read_fleet", None)  # it is noticed before anything is read
    with pytest.raises(TransportError, match="has no worker"):
        build_models(spec, workers=Workers(dask=lonely_scheduler))


def _double(number: int) -> int:
    if number < 0:
        raise InputError("It is below zero.", advice="Give another.", number=number)
    return 2 * number


def test_results_come_with_their_number_and_errors_as_they_were() -> None:
    tasks: list[tuple[Any, ...]] = [(3,), (4,), (5,)]
    assert sorted(run_side_by_side(_double, tasks, Workers(jobs=2))) == [(0, 6), (1, 8), (2, 10)]
    with pytest.raises(InputError, match="below zero") as caught:
        list(run_side_by_side(_double, [(1,), (-1,)], Workers(jobs=2)))
    assert (caught.value.advice, caught.value.fields) == ("Give another.", {"number": -1})


@pytest.mark.parametrize(
    ("workers", "tasks", "free", "threads"),
    [
        (Workers(), 5, 8e9, 2),
        (Workers(), 5, 1.5e9, 1),
        (Workers(jobs=4), 3, 1e8, 3),
        (Workers(jobs=1), 3, 8e9, 1),
        (Workers(), 0, 8e9, 1),
    ],
)
def test_threads_are_bounded_by_cores_memory_and_work(
    workers: Workers, tasks: int, free: float, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.parallel.cores", lambda: 2)
    monkeypatch.setattr("exporter.parallel.available_bytes", lambda: int(free))
    assert workers.at_a_time(tasks) == threads
    assert workers.alone(tasks) == (threads == 1)
