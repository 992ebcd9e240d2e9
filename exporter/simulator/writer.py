"""Simulate a fleet block by block and write it in the layout that the exporter reads."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.errors import InputError, StorageError
from exporter.simulator.daily_life import live
from exporter.simulator.faults import KINDS, NO_FAULT, draw_faults, labels_of
from exporter.simulator.fleet import DAY_MS, START_MS, Devices, FleetOptions, cohort_sizes, make_devices
from exporter.simulator.signals import SIGNALS, UNITS, measure

if TYPE_CHECKING:
    import pyarrow as pa

# A block holds about this many readings, 25 signals of 8 bytes and as many temporaries: under 300 MB.
BLOCK_READINGS = 250_000
FILES = ("readings.parquet", "labels.parquet", "failures.csv")


@dataclass(frozen=True, slots=True)
class WrittenFleet:
    """What was written where: counts of devices, readings, faulty devices and failures, and the readings by cohort."""

    folder: Path
    devices: int
    readings: int
    faulty_devices: int
    failures: int
    cohorts: dict[str, int]

    def to_dict(self) -> dict[str, object]:
        """Return the counts as one JSON-ready object."""
        return {
            "folder": str(self.folder),
            "devices": self.devices,
            "readings": self.readings,
            "faulty_devices": self.faulty_devices,
            "failures": self.failures,
            "devices_by_cohort": self.cohorts,
        }


@dataclass(frozen=True, slots=True)
class _Block:
    """One block as tables, with what it adds to the failures list."""

    readings: pa.Table
    labels: pa.Table
    failures: list[tuple[str, str, str, str]]
    faulty: int


def simulate_fleet(
    options: FleetOptions,
    folder: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> WrittenFleet:
    """Simulate a fleet and write ``readings.parquet``, ``labels.parquet`` and ``failures.csv``.

    Memory is bounded by a block of devices, whatever the size of the fleet. Equal options give equal files.

    Args:
        options: What to simulate.
        folder: Where to write; made when missing.
        overwrite: Replace files of an earlier run instead of refusing.
        progress: Called with devices done and devices in all, after each block.

    Returns:
        What was written.

    Raises:
        InputError: The folder holds a fleet already and ``overwrite`` is false.
        StorageError: The files cannot be written.
    """
    with writing(folder, overwrite=overwrite):
        return _write(options, folder, progress)


@contextlib.contextmanager
def writing(folder: Path, *, overwrite: bool) -> Iterator[None]:
    """Make the folder of a fleet for the block, and say what a person can do when that or the block's writing fails.

    Raises:
        InputError: The folder holds a fleet already and ``overwrite`` is false.
        StorageError: The files cannot be written.
    """
    taken = [name for name in FILES if (folder / name).exists()]
    if taken and not overwrite:
        raise InputError(
            f"{folder} already holds {taken[0]}.",
            advice="Name another folder, or give --overwrite to replace the fleet.",
            path=str(folder),
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise StorageError(
            f"The fleet could not be written to {folder}: {error.strerror or error}.",
            advice="Check free space and permissions.",
            path=str(folder),
        ) from error


def _write(options: FleetOptions, folder: Path, progress: Callable[[int, int], None] | None) -> WrittenFleet:
    """Write all blocks, each as one row group, so that neither writing nor reading needs the whole fleet."""
    import pyarrow.parquet as pq

    done = readings = faulty = 0
    cohorts: dict[str, int] = {}
    failures: list[tuple[str, str, str, str]] = []
    block_devices = max(1, BLOCK_READINGS // options.steps)
    with contextlib.ExitStack() as stack:
        writers: dict[str, pq.ParquetWriter] = {}
        for hardware, count in cohort_sizes(options.devices):
            cohorts[hardware.name] = count
            for first in range(0, count, block_devices):
                size = min(block_devices, count - first)
                # One generator a block: a fleet of other size keeps no device, but blocks could run anywhere.
                rng = np.random.default_rng([options.seed, len(cohorts), first])
                block = _block(make_devices(hardware, first + 1, size, rng), faulty, options, rng)
                for name, table in (("readings", block.readings), ("labels", block.labels)):
                    if name not in writers:
                        path = folder / f"{name}.parquet"
                        writers[name] = stack.enter_context(pq.ParquetWriter(path, table.schema, compression="zstd"))
                    writers[name].write_table(table)
                failures += block.failures
                faulty += block.faulty
                readings += block.readings.num_rows
                done += size
                if progress is not None:
                    progress(done, options.devices)
    with (folder / "failures.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([("device_id", "timestamp", "cohort", "kind"), *failures])
    return WrittenFleet(folder, done, readings, faulty, len(failures), cohorts)


def _block(devices: Devices, faulty_before: int, options: FleetOptions, rng: np.random.Generator) -> _Block:
    """Simulate one block of devices and lay it out as rows: device by device, each in order of time."""
    import pyarrow as pa

    cohort = devices.hardware.name
    life = live(devices, options, rng)
    faults = draw_faults(len(devices), faulty_before, options, rng)
    signals = measure(devices, life, faults, options, rng)
    labels = labels_of(faults.severity(life.times_ms))
    failed = faults.kind != NO_FAULT
    keep = life.present & ~(failed[:, None] & (life.times_ms >= faults.failure_ms[:, None]))
    ids = np.repeat(np.arange(len(devices)), keep.sum(axis=1))
    times = pa.array(life.times_ms[keep] * 1000, type=pa.timestamp("us", tz="UTC"))
    device_ids = pa.array(devices.ids).take(pa.array(ids))
    columns = {name: pa.array(signals[name][keep].astype(np.float32)) for name in SIGNALS}
    same = pa.array([cohort]).take(pa.array(np.zeros(len(ids), dtype=np.int64)))
    end_ms = START_MS + options.days * DAY_MS
    failures = [
        (devices.ids[i], str(datetime.fromtimestamp(faults.failure_ms[i] // 1000, UTC)), cohort, KINDS[faults.kind[i]])
        for i in np.flatnonzero(failed & (faults.failure_ms < end_ms))
    ]
    # Units travel with the columns; ``exporter init`` reads them.
    fields = [pa.field(name, pa.float32(), metadata={"unit": UNITS[name]}) for name in SIGNALS]
    readings = pa.table({"device_id": device_ids, "timestamp": times, "cohort": same, **columns})
    return _Block(
        readings=readings.cast(pa.schema([*list(readings.schema)[:3], *fields])),
        labels=pa.table({"device_id": device_ids, "timestamp": times, "label": pa.array(labels[keep])}),
        failures=failures,
        faulty=int(failed.sum()),
    )
