"""Incidents that resolve by themselves: after a healthy day of their device, and not against a person's decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from flask.testing import FlaskClient
from simulators.server_devices import HOUR, NOON, ServerDevice, anomaly, ended, enrolment_token, summary

from sync_server.anomalies.recovery import NOTE, resolve_recovered
from sync_server.db import Database

Auth = Callable[..., dict[str, str]]
NOW = datetime(2026, 11, 26, tzinfo=UTC)


@pytest.fixture
def device(client: FlaskClient, database: Database) -> ServerDevice:
    """A device with one incident from noon to 20 minutes past."""
    device = ServerDevice.enrol(client, enrolment_token(database))
    device.send([anomaly(1, NOON), anomaly(2, NOON + 600_000, started_at_ms=NOON, windows=2)])
    device.send([ended(3, NOON, NOON + 1_200_000, 2)])
    return device


def hours(device: ServerDevice, span: Sequence[int], *, first: int = 10, anomalous: int = 0) -> None:
    device.send([summary(first + k, NOON + hour * HOUR, anomalous=anomalous) for k, hour in enumerate(span)])


def turn(database: Database, **options: int) -> int:
    with database.session() as session:
        return resolve_recovered(session, now=NOW, **options)


def incident(client: FlaskClient, auth: Auth, place: int = 0) -> dict:
    number = client.get("/api/anomalies", headers=auth("view")).json["items"][place]["id"]
    return client.get(f"/api/incidents/{number}", headers=auth("view")).json


def test_a_healthy_day_resolves_and_is_on_record(
    client: FlaskClient, device: ServerDevice, auth: Auth, database: Database
) -> None:
    hours(device, [0], first=4, anomalous=2)  # the hour of the incident itself
    hours(device, range(1, 24))
    assert turn(database) == 0
    hours(device, [24], first=50)
    assert turn(database) == 1
    now = incident(client, auth)
    assert (now["status"], now["status_by"], now["status_note"]) == ("resolved", "server", NOTE)
    assert [(change["old_status"], change["new_status"], change["changed_by"]) for change in now["history"]] == [
        ("open", "resolved", "server")
    ]
    assert turn(database) == 0


@pytest.mark.parametrize(
    ("healthy", "anomalous"),
    [
        ([], []),  # silent
        ([1, 2, 3], []),  # silent since
        ([25], []),  # reported an hour of the day
        (range(1, 30), [20]),  # trouble again
    ],
)
def test_anything_less_leaves_it_open(
    client: FlaskClient,
    device: ServerDevice,
    auth: Auth,
    database: Database,
    healthy: Sequence[int],
    anomalous: list[int],
) -> None:
    if healthy:
        hours(device, healthy)
    if anomalous:
        hours(device, anomalous, first=100, anomalous=1)
    assert turn(database) == 0
    assert incident(client, auth)["status"] == "open"


def test_merged_days_count(client: FlaskClient, device: ServerDevice, auth: Auth, database: Database) -> None:
    day = NOON - NOON % (24 * HOUR) + 24 * HOUR
    device.send([summary(10, day, period="day")])
    assert turn(database) == 1


def test_what_a_person_decided_wins(client: FlaskClient, device: ServerDevice, auth: Auth, database: Database) -> None:
    hours(device, range(1, 30))
    number = incident(client, auth)["id"]

    def decide(status: str) -> None:
        body = {"status": status, "note": "looked at"}
        assert client.post(f"/api/incidents/{number}/status", json=body, headers=auth("ops")).status_code == 200

    decide("acknowledged")
    assert turn(database) == 1
    decide("open")  # somebody opens it again: it is theirs
    assert turn(database) == 0
    assert incident(client, auth)["status"] == "open"
    decide("resolved")
    assert turn(database) == 0
    assert len(incident(client, auth)["history"]) == 4


def test_late_records_and_new_incidents_open_nothing_again(
    client: FlaskClient, device: ServerDevice, auth: Auth, database: Database
) -> None:
    hours(device, range(1, 30))
    assert turn(database) == 1
    device.send([anomaly(90, NOON + 900_000, started_at_ms=NOON, windows=3), anomaly(91, NOON + 40 * HOUR)])
    assert turn(database) == 0
    assert [incident(client, auth, place)["status"] for place in (0, 1)] == ["open", "resolved"]


def test_turns_go_round(client: FlaskClient, auth: Auth, database: Database) -> None:
    token = enrolment_token(database)
    for n in range(5):
        device = ServerDevice.enrol(client, token)
        device.send([anomaly(1, NOON + n)])
        if n == 4:
            hours(device, range(1, 30))
    assert [turn(database, examined=2) for _ in range(3)] == [0, 0, 1]
    assert [turn(database, examined=2) for _ in range(3)] == [0, 0, 0]


def test_incidents_of_a_clock_that_is_ahead_stay(client: FlaskClient, auth: Auth, database: Database) -> None:
    device = ServerDevice.enrol(client, enrolment_token(database))
    device.send([anomaly(1, 4_000_000_000_000)])
    hours(device, range(1, 30))
    assert turn(database) == 0
