"""A fleet of mobile devices that never existed: telemetry to try everything on, with faults that build up.

The simulator makes what a fleet makes: a few hardware types, people with a daily rhythm, readings that come a little
early or late, gaps, missing values, and a share of devices that wear out in one of six ways. It writes the layout
that the exporter reads anywhere else (``readings.parquet``, ``labels.parquet``, ``failures.csv``).

It refuses to be clever about physics: every effect is one line that a person can read and change.

Example::

    from pathlib import Path
    from exporter.simulator import FleetOptions, simulate_fleet

    written = simulate_fleet(FleetOptions(devices=12, days=3), Path("fleet"))
    print(written.readings, written.failures)
"""

from __future__ import annotations

from exporter.simulator.browsers import BrowserOptions, simulate_browsers
from exporter.simulator.fleet import FleetOptions
from exporter.simulator.writer import WrittenFleet, simulate_fleet

__all__ = ["BrowserOptions", "FleetOptions", "WrittenFleet", "simulate_browsers", "simulate_fleet"]
