"""A fleet whose devices are as unlike as real ones, made of random numbers: what rollouts' gates are measured on.

Each device has its own anomaly rate (lognormal, over a hundredfold; three in ten have hardly any), its own score
histogram and speed. Anomalies come in bursts of ten windows on average, a device has better and worse days, the whole
fleet has a daily rhythm and better and worse days too, and devices are offline now and then. A release may multiply the
anomalous windows, the latency, or make devices fail or fall silent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.contract.histogram import BINS, EDGES
from sync_server.rollouts.findings import Counted

Floats = npt.NDArray[np.float64]

WINDOWS_AN_HOUR = 60
_ANOMALOUS_BIN = 12  # the threshold of these fleets is a score of .995
_WIDTHS = np.diff(np.array(EDGES))


@dataclass(frozen=True, slots=True)
class Nature:
    """What a fleet is like.

    Attributes:
        devices: How many.
        anomalous: Mean share of anomalous windows.
        unlike: Spread of the logarithms of the devices' rates.
        quiet: Share of devices with a twentieth of their rate.
        burst: Mean windows of a burst.
        device_day: Spread of the logarithm of a device's day.
        fleet_day: Spread of the logarithm of the fleet's day.
        offline: Share of hours in which a device is off.
    """

    devices: int = 2000
    anomalous: float = 0.02
    unlike: float = 1.0
    quiet: float = 0.3
    burst: float = 10.0
    device_day: float = 0.3
    fleet_day: float = 0.15
    offline: float = 0.05


class RandomFleet:
    """One fleet, an hour or a stretch of hours at a time; the same seed gives the same fleet.

    Args:
        nature: What it is like.
        seed: Of all random numbers.
    """

    def __init__(self, nature: Nature, seed: int) -> None:
        self.nature = nature
        self.rng = np.random.default_rng(seed)
        count = nature.devices
        self.rates = self.rng.lognormal(-(nature.unlike**2) / 2, nature.unlike, count) * nature.anomalous
        self.rates[self.rng.random(count) < nature.quiet] *= 0.05
        self.rates *= nature.anomalous / self.rates.mean()
        tilt = self.rng.normal(0, 0.4, (count, 1)) * np.linspace(-1, 1, BINS)
        self._healthy = _WIDTHS * np.exp(tilt)
        self._healthy[:, _ANOMALOUS_BIN:] = 0
        self._healthy /= self._healthy.sum(axis=1, keepdims=True)
        self._latency_us = self.rng.lognormal(np.log(100), 0.5, count)
        self._day: Floats = np.ones(count)
        self._hours_of_day = 0

    def count(self, hours: int, rise: Floats | float = 1.0, slower: Floats | float = 1.0) -> Counted:
        """Return what every device counts in the next hours.

        Args:
            hours: How many.
            rise: [devices] or one: times as many anomalous windows.
            slower: [devices] or one: times the latency.
        """
        self._next_days(hours)
        rng, count = self.rng, self.nature.devices
        windows = WINDOWS_AN_HOUR * rng.binomial(hours, 1 - self.nature.offline, count)
        expected = np.minimum(self.rates * self._day * rise, 0.8) * windows
        bursts = rng.poisson(expected / self.nature.burst)
        sizes = bursts + rng.negative_binomial(np.maximum(bursts, 1), 1 / self.nature.burst) * (bursts > 0)
        anomalous = np.minimum(sizes, windows)
        histogram = rng.multinomial(windows - anomalous, self._healthy).astype(np.float64)
        histogram[:, _ANOMALOUS_BIN:] += rng.multinomial(anomalous, [0.7, 0.2, 0.1])
        latency = windows * self._latency_us * slower * rng.lognormal(0, 0.05, count)
        return Counted(
            windows.astype(float), anomalous.astype(float), histogram, windows.astype(float), latency.round()
        )

    def training_shares(self) -> Floats:
        """Return [15] the shares of a training histogram of this fleet."""
        mean: Floats = self._healthy.mean(axis=0) * (1 - self.nature.anomalous)
        mean[_ANOMALOUS_BIN:] += self.nature.anomalous * np.array([0.7, 0.2, 0.1])
        return mean

    def _next_days(self, hours: int) -> None:
        """Draw new days when midnight has passed; a stretch of days is as one."""
        if self._hours_of_day == 0 or self._hours_of_day + hours > 24:
            nature = self.nature
            own = self.rng.lognormal(-(nature.device_day**2) / 2, nature.device_day, nature.devices)
            self._day = own * self.rng.lognormal(0, nature.fleet_day)
            self._hours_of_day = 0
        self._hours_of_day += hours


def add(one: Counted, other: Counted) -> Counted:
    """Return the sums of two stretches."""
    return Counted(
        one.windows + other.windows,
        one.anomalous + other.anomalous,
        one.histogram + other.histogram,
        one.latency_count + other.latency_count,
        one.latency_sum_us + other.latency_sum_us,
    )
