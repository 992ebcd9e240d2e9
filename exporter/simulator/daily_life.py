"""What the devices are doing, and when they report: charging, network, screen, and the times of the readings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exporter.simulator.fleet import DAY_MS, MINUTE_MS, START_MS, Devices, FleetOptions, Floats

Flags = npt.NDArray[np.bool_]
Times = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DailyLife:
    """The circumstances of every reading; all arrays are (n_devices, n_steps).

    ``times_ms`` is when a reading is taken, ``hours`` the local hour of day, ``present`` whether it was taken at all,
    ``charging``, ``wifi``, ``screen`` and ``offline`` what the device was doing.
    """

    times_ms: Times
    hours: Floats
    present: Flags
    charging: Flags
    wifi: Flags
    screen: Flags
    offline: Flags


def _bump(hours: Floats, middle: float, width: float) -> Floats:
    """Return 1 at the middle hour of the day, falling to 0 over ``width`` hours on either side, around the clock."""
    distance = np.abs((hours - middle + 12.0) % 24.0 - 12.0)
    bump: Floats = np.clip(1.0 - distance / width, 0.0, 1.0)
    return bump


def _sticky(chance: Floats, stay: float, rng: np.random.Generator) -> Flags:
    """Draw on/off states that follow a chance and keep their value from step to step.

    Args:
        chance: (n_devices, n_steps) chance of being on.
        stay: Chance of not reconsidering at a step.
        rng: Source of the draws.

    Returns:
        (n_devices, n_steps) bool.
    """
    drawn = rng.random(chance.shape) < chance
    again = rng.random(chance.shape) >= stay
    again[:, 0] = True
    # The state is the one drawn at the last step at which the device reconsidered.
    last = np.maximum.accumulate(np.where(again, np.arange(chance.shape[1]), 0), axis=1)
    states: Flags = np.take_along_axis(drawn, last, axis=1)
    return states


def _times(devices: int, options: FleetOptions, rng: np.random.Generator) -> Times:
    """Draw reading times: a step a device, each up to a fifth of the interval late, so strictly ascending."""
    interval_ms = options.interval_minutes * MINUTE_MS
    phase = rng.integers(0, interval_ms // 2, (devices, 1))
    lateness = rng.integers(0, interval_ms // 5, (devices, options.steps))
    times: Times = START_MS + np.arange(options.steps, dtype=np.int64) * interval_ms + phase + lateness
    return times


def _present(devices: int, options: FleetOptions, rng: np.random.Generator) -> Flags:
    """Draw which readings exist: 2 % are lost, and now and then a device is off for two to twelve hours."""
    steps_an_hour = 60.0 / options.interval_minutes
    present = rng.random((devices, options.steps)) >= 0.02
    # A device goes off about every ten days.
    starts = rng.random((devices, options.steps)) < 1.0 / (240.0 * max(steps_an_hour, 1 / 24))
    lengths = np.ceil(rng.uniform(2.0, 12.0, (devices, options.steps)) * steps_an_hour)
    index = np.arange(options.steps)
    off_until = np.maximum.accumulate(np.where(starts, index + lengths, 0.0), axis=1)
    present &= index >= off_until
    return present


def live(devices: Devices, options: FleetOptions, rng: np.random.Generator) -> DailyLife:
    """Draw what a block of devices does over the whole record.

    Args:
        devices: The devices.
        options: Length and interval of the record.
        rng: Source of the draws.

    Returns:
        Their daily life.
    """
    times = _times(len(devices), options, rng)
    hours = (times % DAY_MS) / (DAY_MS / 24) + devices.habit[:, None]
    hours %= 24.0
    # People keep a state for about an hour and a half; screens for half an hour.
    stay = float(np.exp(-options.interval_minutes / 90.0))
    stay_screen = float(np.exp(-options.interval_minutes / 30.0))
    night = _bump(hours, 2.5, 6.0)
    evening = _bump(hours, 20.0, 5.0)
    noon = _bump(hours, 13.0, 5.0)
    use = devices.activity[:, None]
    return DailyLife(
        times_ms=times,
        hours=hours,
        present=_present(len(devices), options, rng),
        charging=_sticky(0.08 + 0.85 * night, stay, rng),
        wifi=_sticky(np.clip(0.25 + 0.8 * night + 0.5 * evening, 0.0, 0.97), stay, rng),
        screen=_sticky(np.clip((0.04 + 0.4 * evening + 0.35 * noon) * use, 0.0, 0.9), stay_screen, rng),
        offline=_sticky(np.full_like(hours, 0.015), stay, rng),
    )
