"""Who is in the fleet: options, hardware types, and the devices with their small differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError

Floats = npt.NDArray[np.float64]

# A fixed start keeps two runs with one seed equal byte for byte: 2026-01-01T00:00:00Z.
START_MS = 1_767_225_600_000
MINUTE_MS = 60_000
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """What to simulate.

    Args:
        devices: Number of devices, at least 1.
        days: Length of the record in days, at least 1.
        interval_minutes: Minutes between two readings of a device, 1 to 1,440.
        seed: Seed of everything random; equal options give equal files.
        fault_share: Share of the devices that develop a fault, 0 to 1.

    Raises:
        InputError: An option lies outside its range.
    """

    devices: int = 120
    days: int = 14
    interval_minutes: int = 30
    seed: int = 0
    fault_share: float = 0.3

    def __post_init__(self) -> None:
        checks = (
            (self.devices >= 1, "--devices must be at least 1"),
            (self.days >= 1, "--days must be at least 1"),
            (1 <= self.interval_minutes <= 1440, "--interval-minutes must lie between 1 and 1440"),
            (0.0 <= self.fault_share <= 1.0, "--fault-share must lie between 0 and 1"),
        )
        for holds, sentence in checks:
            if not holds:
                raise InputError(f"{sentence}.", advice="Give a value in that range.")

    @property
    def steps(self) -> int:
        """Readings that a device would make without gaps."""
        return self.days * 1440 // self.interval_minutes


@dataclass(frozen=True, slots=True)
class Hardware:
    """One hardware type; a cohort of the fleet.

    ``share`` of the fleet, ``drain`` in percent per hour at rest, ``charge`` in percent per hour, ``heat`` in degrees
    above ambient, ``radio`` in dB against the best type, ``storage`` in GB, ``memory`` in MB, ``latency`` in ms of a
    write.
    """

    name: str
    share: float
    drain: float
    charge: float
    heat: float
    radio: float
    storage: float
    memory: float
    latency: float


# Invented types; the figures are of the order of data sheets of 2024: a phone, a rugged handheld, a tablet.
HARDWARE = (
    Hardware("handheld", 0.30, 1.1, 28.0, 8.0, -2.0, 64.0, 4096.0, 6.0),
    Hardware("phone", 0.45, 1.6, 45.0, 11.0, 0.0, 128.0, 8192.0, 3.5),
    Hardware("tablet", 0.25, 0.9, 22.0, 7.0, -5.0, 256.0, 6144.0, 4.5),
)


@dataclass(frozen=True, slots=True)
class Devices:
    """A block of devices of one hardware type; every array is (n_devices,) float64.

    ``habit`` shifts the daily rhythm in hours, ``activity`` scales use, the rest are small offsets of build and place.
    """

    hardware: Hardware
    ids: tuple[str, ...]
    habit: Floats
    activity: Floats
    ambient: Floats
    coverage: Floats
    fullness: Floats
    build: Floats

    def __len__(self) -> int:
        return len(self.ids)


def cohort_sizes(devices: int) -> list[tuple[Hardware, int]]:
    """Split a number of devices over the hardware types by their shares, every device in exactly one.

    Args:
        devices: Number of devices of the fleet.

    Returns:
        The types with their number of devices, in the order of their names; types without a device are left out.
    """
    edges = np.cumsum([0.0, *(kind.share for kind in HARDWARE)])
    counts = np.diff(np.floor(edges / edges[-1] * devices + 0.5).astype(int))
    return [(kind, int(count)) for kind, count in zip(HARDWARE, counts, strict=True) if count]


def make_devices(hardware: Hardware, first: int, count: int, rng: np.random.Generator) -> Devices:
    """Draw a block of devices of one type.

    Args:
        hardware: Their type.
        first: Number of the first one; ids are ``TYPE-00001`` and so on, so that they sort as they count.
        count: How many.
        rng: Source of the differences.

    Returns:
        The devices.
    """
    return Devices(
        hardware=hardware,
        ids=tuple(f"{hardware.name}-{first + i:05d}" for i in range(count)),
        habit=rng.normal(0.0, 0.8, count),
        activity=np.exp(rng.normal(0.0, 0.15, count)),
        ambient=rng.normal(22.0, 1.2, count),
        coverage=rng.normal(0.0, 2.0, count),
        fullness=np.clip(rng.normal(0.55, 0.1, count), 0.2, 0.8),
        build=rng.normal(0.0, 1.0, count),
    )
