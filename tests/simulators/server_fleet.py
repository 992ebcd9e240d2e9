"""A small fleet with a past, for pages and figures: healthy devices, faulty ones, a clone, a stale one, a silent one."""

from __future__ import annotations

from datetime import timedelta

from flask.testing import FlaskClient
from simulators.server_devices import (
    BUNDLE,
    HOUR,
    ServerDevice,
    anomaly,
    ended,
    enrolment_token,
    gap,
    publish,
    summary,
)
from sqlalchemy import text

from sync_server.db import Database, utc_now

SIGNALS = (("vibration", "bearing_temperature", "rpm"), ("oil_pressure", "rpm"), ("coolant", "oil_pressure", "ambient"))


def populate(client: FlaskClient, database: Database, *, devices: int = 8, hours: int = 60) -> list[ServerDevice]:
    """Enrol devices in two cohorts and upload ``hours`` of hourly summaries up to now, with incidents on every third."""
    publish(database)
    token = enrolment_token(database)
    now_ms = int(utc_now().timestamp() * 1000)
    start = now_ms - now_ms % HOUR - hours * HOUR
    fleet = []
    for place in range(devices):
        cohort = ("north", "south")[place % 2]
        device = ServerDevice.enrol(client, token, cohort=cohort, name=f"pump-{place + 1:02d}")
        faulty = place % 3 == 0
        records: list = []
        for hour in range(hours):
            bad = 4 if faulty and hour % 20 in (17, 18, 19) else 0
            records.append(summary(len(records) + 1, start + hour * HOUR, windows=60, anomalous=bad))
            if faulty and hour % 20 == 17:
                begun = start + hour * HOUR + 600_000
                for step in range(3):
                    records.append(
                        anomaly(
                            len(records) + 1,
                            begun + step * HOUR,
                            started_at_ms=begun,
                            score=0.9991 + 0.0003 * step,
                            windows=4 * step + 1,
                            signals=SIGNALS[place // 3 % 3],
                        )
                    )
                if hour + 3 < hours:
                    records.append(ended(len(records) + 1, begun, begun + 3 * HOUR, 12))
        device.send(records)
        device.report(
            active={"bundle": BUNDLE, "release": 7, "version": "1.7"},
            cohort=cohort,
            runtime={"edge_runtime": "0.1.0", "onnxruntime": "1.32.0", "python": "3.11.2", "platform": "linux-x86_64"},
            last_update={"outcome": "activated", "reason": None, "release": 7, "at_ms": start},
        )
        fleet.append(device)
    _trouble(fleet, database)
    return fleet


def _trouble(fleet: list[ServerDevice], database: Database) -> None:
    """A clone with a gap, a stale device with dead letters, and one that fell silent."""
    cloned, stale, silent = fleet[0], fleet[1], fleet[2]
    cloned.send([gap(1000, 990, 999)])
    cloned.send([gap(3, 1, 2)], stream="c" * 32)
    cloned.send([gap(1010, 1001, 1009)])
    stale.report(
        stale=True,
        cohort="south",
        outbox={"records": 1234, "dead_letters": 3},
        active={"bundle": BUNDLE, "release": 7, "version": "1.7"},
        last_update={"outcome": "refused", "reason": "golden_failed", "release": 8, "at_ms": 1},
        insecure_http=True,
    )
    with database.session() as session:
        session.execute(
            text("UPDATE devices SET last_seen_at = :then WHERE id = :id"),
            {"then": utc_now() - timedelta(days=9), "id": silent.id},
        )
