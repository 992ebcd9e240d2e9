"""Where the workers of one server put their metrics, so that any of them can answer for all.

prometheus-client gives each process files of its own, which it maps into memory. The folder must exist, and the
environment name it, before that library is imported: ``sync-server run`` prepares it first of all. It lies in
``/dev/shm`` where there is one: a mapped file on a full disk ends the process that writes to it.

Files of workers that have died are added up into one, so that a server that loses workers for months keeps its counters
and not its files. What a dead worker's gauges said is no longer true and goes with it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ENVIRONMENT = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "stella-metrics-"
_ADDED_UP = ("counter", "histogram")  # the library's names of kinds whose values add up; the rest are gauges
_DEAD = "dead"  # stands where a process's number stands in a file's name
_YOUNG_SECONDS = 60.0


@contextmanager
def prepared() -> Iterator[None]:
    """Make the folder and name it in the environment; it goes when this process leaves the block.

    A folder that a killed server left behind goes as well: nobody holds its lock any more.
    """
    shared = Path("/dev/shm")  # noqa: S108 - the folder in it is made by mkdtemp
    base = shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())
    _sweep(base)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    owner = os.getpid()
    os.environ[ENVIRONMENT] = str(folder)
    try:
        with _lock(folder / "server"):  # held by forked workers as well, as long as one lives
            yield
    finally:
        if os.getpid() == owner:  # workers leave through here, too
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(base: Path) -> None:
    for folder in base.glob(f"{_PREFIX}*"):
        try:
            if folder.stat().st_uid != os.geteuid() or time.time() - folder.stat().st_mtime < _YOUNG_SECONDS:
                continue
            with _lock(folder / "server", wait=False):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # in use, or gone meanwhile


@contextmanager
def _lock(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        yield


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Keep the files as they are while they are read."""
    with _lock(folder / "reading", shared=True):
        yield


def bury(pid: int) -> None:
    """Add a dead worker's counts to those of the dead, and remove its files."""
    folder = Path(os.environ[ENVIRONMENT])
    with _lock(folder / "reading"):
        for path in folder.glob(f"*_{pid}.db"):
            kind = path.name.partition("_")[0]
            if kind in _ADDED_UP:
                _add_up(path, folder / f"{kind}_{_DEAD}.db")
            path.unlink()


def _add_up(path: Path, total_path: Path) -> None:
    from prometheus_client.mmap_dict import MmapedDict

    library: Any = MmapedDict  # it has no types
    total = library(str(total_path))
    for key, value, _, _ in library.read_all_values_from_file(str(path)):
        before, _ = total.read_value(key)
        total.write_value(key, before + value, 0.0)
    total.close()
