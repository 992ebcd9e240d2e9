"""Models side by side: in threads of this machine, or on a Dask cluster.

Threads share the readings, which processes would each get a copy of: of a large fleet they are all the memory there
is. Training, graphs and arrays let go of the interpreter while they compute.

A cluster runs this very code and gets the telemetry as it is: whoever can reach its scheduler can run programs on its
workers, so it is trusted as this machine is (``tls://`` addresses keep others out). Results come as they are done::

    for number, result in run_side_by_side(build, tasks, Workers(jobs=2)):
        ...
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from edge_runtime.errors import InputError, TransportError

Result = TypeVar("Result")
# What a model needs while it is built, besides the readings: its features, and blocks on their way.
BUILD_BYTES = 1_000_000_000
# How long a scheduler may take to answer, and its first worker to be there.
ANSWER_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Workers:
    """Who builds the models.

    Attributes:
        jobs: Threads of this machine; None: one a core, as far as memory allows.
        dask: Address of a Dask scheduler, such as ``tcp://10.0.0.5:8786``, or None.
    """

    jobs: int | None = None
    dask: str | None = None

    def alone(self, tasks: int) -> bool:
        """Say whether so many tasks are done one after the other."""
        return self.dask is None and self.at_a_time(tasks) == 1

    def at_a_time(self, tasks: int) -> int:
        """Return how many of so many tasks this machine does at a time."""
        wanted = self.jobs or min(cores(), max(1, available_bytes() // BUILD_BYTES))
        return max(1, min(wanted, tasks))


def run_side_by_side(
    work: Callable[..., Result], tasks: Sequence[tuple[Any, ...]], workers: Workers
) -> Iterator[tuple[int, Result]]:
    """Run one function over many arguments.

    Args:
        work: A function of a module, so that a worker of a cluster finds it.
        tasks: Its arguments, one tuple a call; a cluster gets them as they are, with all readings they hold.
        workers: Who runs it.

    Yields:
        The number of a task and its result, in the order in which they are done.

    Raises:
        InputError: Dask is wanted and not installed.
        TransportError: The scheduler does not answer, or has no worker.
        StellaError: What the function raised.
    """
    import joblib

    with _cluster(workers.dask) if workers.dask else joblib.parallel_config("threading"):
        calls = (joblib.delayed(_numbered)(work, number, arguments) for number, arguments in enumerate(tasks))
        n_jobs = -1 if workers.dask else workers.at_a_time(len(tasks))
        yield from joblib.Parallel(n_jobs=n_jobs, batch_size=1, return_as="generator_unordered")(calls)


def check_workers(workers: Workers) -> None:
    """See that a Dask cluster answers, before hours of reading and training lead up to it.

    Raises:
        InputError: Dask is wanted and not installed.
        TransportError: The scheduler does not answer, or has no worker.
    """
    if workers.dask is not None:
        with _cluster(workers.dask):
            pass


def _numbered(work: Callable[..., Result], number: int, arguments: tuple[Any, ...]) -> tuple[int, Result]:
    return number, work(*arguments)


@contextlib.contextmanager
def _cluster(address: str) -> Iterator[None]:
    """Make a Dask cluster the one that joblib uses."""
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise InputError(
            "Dask is not installed here.", advice="Install it with: pip install 'stella-edge[exporter,dask]'"
        ) from error
    import joblib

    try:
        client: Any = cast("Any", Client)(address, timeout=ANSWER_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise TransportError(
            f"No Dask scheduler answers at {address}.", advice="Check the address; 'dask scheduler' prints it."
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=ANSWER_SECONDS)
        except TimeoutError as error:
            raise TransportError(
                f"The Dask scheduler at {address} has no worker.", advice=f"Start one: dask worker {address}"
            ) from error
        with joblib.parallel_config("dask", client=client):
            yield


def cores() -> int:
    """Return the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_bytes() -> int:
    """Return the memory that is free now, as far as the system tells; a gigabyte a core where it does not."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return cores() * BUILD_BYTES
