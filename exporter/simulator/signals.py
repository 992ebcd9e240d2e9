"""What a device measures, given what it is doing and what is wrong with it: 25 signals, three of them context.

Every formula is plausible rather than measured: base level of the hardware, effect of the circumstances, effect of
each fault, noise. Noise is slow (a device has good and bad hours) plus fast (a reading is a reading).
"""

from __future__ import annotations

import numpy as np

from exporter.simulator.daily_life import DailyLife
from exporter.simulator.faults import Faults
from exporter.simulator.fleet import Devices, FleetOptions, Floats

CONTEXT = ("charging", "network_type", "screen_on")
UNITS = {
    "charging": "0/1",
    "network_type": "0 cellular, 1 Wi-Fi",
    "screen_on": "0/1",
    "battery_level": "%",
    "battery_temperature": "degC",
    "battery_voltage": "mV",
    "battery_drain": "%/h",
    "cpu_load": "%",
    "cpu_temperature": "degC",
    "cpu_throttled": "%",
    "radio_signal": "dBm",
    "radio_latency": "ms",
    "radio_retries": "count",
    "radio_handovers": "count",
    "data_received": "MB",
    "data_sent": "MB",
    "storage_free": "%",
    "storage_read_latency": "ms",
    "storage_write_latency": "ms",
    "storage_errors": "count",
    "memory_free": "%",
    "memory_largest_app": "MB",
    "app_crashes": "count",
    "restarts": "count",
    "background_jobs": "count",
}
SIGNALS = tuple(UNITS)
# Sensors that now and then answer too late, and latencies of times without a read or write.
_SOMETIMES_MISSING = ("battery_temperature", "storage_read_latency", "storage_write_latency")


class _Noise:
    """Noise of one shape, drawn in a fixed order so that a seed means one fleet."""

    def __init__(self, shape: tuple[int, int], interval_minutes: int, rng: np.random.Generator) -> None:
        self.shape = shape
        self.rng = rng
        # Slow noise forgets itself over about three hours.
        self.keep = float(np.exp(-interval_minutes / 180.0))

    def fast(self, spread: float) -> Floats:
        """Return independent normal noise."""
        return self.rng.normal(0.0, spread, self.shape)

    def slow(self, spread: float) -> Floats:
        """Return first-order autoregressive normal noise with that overall spread."""
        steps = self.rng.normal(0.0, spread * np.sqrt(1.0 - self.keep**2), self.shape)
        steps[:, 0] = self.rng.normal(0.0, spread, self.shape[0])
        for i in range(1, self.shape[1]):
            steps[:, i] += self.keep * steps[:, i - 1]
        return steps

    def counts(self, rate: Floats) -> Floats:
        """Return Poisson counts."""
        return self.rng.poisson(np.clip(rate, 0.0, 1e4)).astype(np.float64)


def _battery_level(drain: Floats, charging: Floats, charge: Floats, hours_a_step: float, start: Floats) -> Floats:
    """Integrate drain and charge into a level in percent, between 1 and 100."""
    level = np.empty_like(drain)
    now = start
    for i in range(drain.shape[1]):
        # The last tenth of a charge is slow.
        gain = charge * np.where(now > 90.0, 0.3, 1.0)
        now = now + np.where(charging[:, i] > 0, gain, -drain[:, i]) * hours_a_step
        now = np.clip(now, 1.0, 100.0)
        level[:, i] = now
    return level


def _heat_and_power(
    out: dict[str, Floats], devices: Devices, life: DailyLife, faults: Faults, v: Floats, noise: _Noise, hours: float
) -> None:
    """Add CPU and battery signals: load, temperatures, throttling, drain, level, voltage."""
    kind = devices.hardware
    screen, charging, wifi = out["screen_on"], out["charging"], out["network_type"]
    thermal, wear, leak = (faults.of(name, v) for name in ("thermal", "battery_wear", "memory_leak"))
    loop, radio, worn = (faults.of(name, v) for name in ("crash_loop", "radio_degradation", "storage_wear"))
    ambient = devices.ambient[:, None] + 2.0 * np.sin((life.hours - 9.0) / 24.0 * 2 * np.pi) + noise.slow(0.8)
    load = 7.0 + 26.0 * screen * devices.activity[:, None] + 3.0 * charging + noise.slow(2.0) + noise.fast(2.0)
    load += 12.0 * thermal + 12.0 * leak + 14.0 * loop + 8.0 * worn
    out["cpu_load"] = np.clip(load, 0.5, 100.0)
    rise = kind.heat + 0.22 * out["cpu_load"] + 2.0 * charging + 16.0 * thermal
    out["cpu_temperature"] = ambient + rise + noise.fast(0.7)
    # Even a cool device is held back now and then; a signal that is always 0 would be constant.
    throttled = np.abs(noise.fast(0.4)) + 3.0 * np.clip(out["cpu_temperature"] - 46.0, 0.0, 30.0)
    out["cpu_throttled"] = np.clip(throttled, 0.0, 100.0)
    body = ambient + 0.4 * rise + 4.0 * charging + 6.0 * wear + 6.0 * thermal
    out["battery_temperature"] = body + noise.fast(0.6)
    drain = kind.drain * (1.0 + 5.0 * screen + 0.04 * out["cpu_load"] + 0.5 * (1.0 - wifi))
    drain *= (1.0 + 2.6 * wear + 0.5 * radio + 0.4 * thermal) * np.exp(noise.slow(0.08) + noise.fast(0.06))
    charge = kind.charge * (1.0 - 0.4 * wear.max(axis=1))
    start = noise.rng.uniform(50.0, 95.0, len(devices))
    out["battery_level"] = _battery_level(drain, charging, charge, hours, start)
    out["battery_drain"] = np.where(charging > 0, -charge[:, None] * (0.55 + 0.02 * noise.fast(1.0)), drain)
    sag = 6.0 * drain * (1.0 + 1.5 * wear) + 260.0 * wear
    voltage = 3480.0 + 7.2 * out["battery_level"] + 90.0 * charging - np.where(charging > 0, 0.4, 1.0) * sag
    out["battery_voltage"] = voltage + 6.0 * devices.build[:, None] + noise.fast(9.0)


def _radio(out: dict[str, Floats], devices: Devices, life: DailyLife, faults: Faults, v: Floats, noise: _Noise) -> None:
    """Add radio and data signals; without a network they are missing, which is no fault."""
    wifi, screen = out["network_type"], out["screen_on"]
    worn = faults.of("radio_degradation", v)
    place = devices.coverage[:, None] + noise.slow(2.5)
    signal = np.where(wifi > 0, -56.0, -92.0) + devices.hardware.radio + place - 15.0 * worn
    out["radio_signal"] = signal + noise.fast(1.5)
    weak = np.clip(-place / 10.0, 0.0, 2.0)
    latency = np.where(wifi > 0, 18.0, 48.0) * (1.0 + 0.3 * weak + 3.0 * worn)
    out["radio_latency"] = latency * np.exp(noise.slow(0.12) + noise.fast(0.1))
    out["radio_retries"] = noise.counts(np.where(wifi > 0, 1.0, 2.5) * (1.0 + weak) + 14.0 * worn)
    out["radio_handovers"] = noise.counts(np.where(wifi > 0, 0.2, 1.5) + 5.0 * worn)
    volume = (2.0 + 45.0 * screen * np.where(wifi > 0, 1.6, 1.0)) * devices.activity[:, None] * (1.0 - 0.6 * worn)
    out["data_received"] = volume * np.exp(noise.fast(0.35))
    out["data_sent"] = 0.18 * volume * np.exp(noise.fast(0.35)) + 1.2 * faults.of("crash_loop", v)
    for name in ("radio_signal", "radio_latency", "radio_retries", "data_received", "data_sent"):
        out[name][life.offline] = np.nan


def _storage_and_memory(out: dict[str, Floats], devices: Devices, faults: Faults, v: Floats, noise: _Noise) -> None:
    """Add storage, memory and stability signals."""
    kind = devices.hardware
    screen, charging = out["screen_on"], out["charging"]
    worn, leak, loop = (faults.of(name, v) for name in ("storage_wear", "memory_leak", "crash_loop"))
    full = devices.fullness[:, None]
    out["storage_free"] = np.clip(100.0 * (1.0 - full) + noise.slow(2.0) - 9.0 * worn, 1.0, 99.0)
    crowded = 1.0 + 0.3 * full
    write = kind.latency * crowded * (1.0 + 0.15 * screen) * (1.0 + 5.0 * worn)
    out["storage_write_latency"] = write * np.exp(noise.slow(0.1) + noise.fast(0.12))
    out["storage_read_latency"] = 0.35 * write / (1.0 + 2.0 * worn) * np.exp(noise.slow(0.08) + noise.fast(0.1))
    out["storage_errors"] = noise.counts(0.02 + 5.0 * worn)
    free = 46.0 - 12.0 * screen + 1.5 * devices.build[:, None] + noise.slow(2.5) + noise.fast(1.5)
    out["memory_free"] = np.clip(free - 26.0 * leak - 5.0 * loop, 1.0, 95.0)
    largest = kind.memory * (0.05 + 0.03 * screen + 0.22 * leak)
    out["memory_largest_app"] = largest * np.exp(noise.slow(0.1) + noise.fast(0.05))
    out["app_crashes"] = noise.counts(0.03 + 0.05 * screen + 2.0 * leak + 7.0 * loop + 1.5 * worn)
    low = np.clip((15.0 - out["battery_level"]) / 15.0, 0.0, 1.0)
    wear = faults.of("battery_wear", v)
    out["restarts"] = noise.counts(0.004 + 1.8 * loop + 0.5 * leak + 1.2 * wear * low)
    jobs = 14.0 + 9.0 * charging + 5.0 * screen + 28.0 * loop
    out["background_jobs"] = noise.counts(jobs * devices.activity[:, None])


def measure(
    devices: Devices, life: DailyLife, faults: Faults, options: FleetOptions, rng: np.random.Generator
) -> dict[str, Floats]:
    """Return every signal of a block of devices.

    Args:
        devices: The devices.
        life: What they are doing.
        faults: What is wrong with them.
        options: Interval of the readings.
        rng: Source of the noise.

    Returns:
        Signal name to (n_devices, n_steps) float64, NaN where missing, in the order of ``SIGNALS``.
    """
    noise = _Noise(life.times_ms.shape, options.interval_minutes, rng)
    severity = faults.severity(life.times_ms)
    out = {
        "charging": life.charging.astype(np.float64),
        "network_type": life.wifi.astype(np.float64),
        "screen_on": life.screen.astype(np.float64),
    }
    _heat_and_power(out, devices, life, faults, severity, noise, options.interval_minutes / 60.0)
    _radio(out, devices, life, faults, severity, noise)
    _storage_and_memory(out, devices, faults, severity, noise)
    for name in _SOMETIMES_MISSING:
        out[name][rng.random(life.times_ms.shape) < 0.01] = np.nan
    return {name: out[name] for name in SIGNALS}
