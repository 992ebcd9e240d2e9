"""Upload: nothing leaves the outbox before the server holds it, and nothing is sent for ever in vain."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulators.enrolled import EnrolledDevice
from simulators.repository import Fault, RepositorySimulator, problem

from edge_runtime.backoff import CAP_SECONDS, MAX_RETRY_AFTER_SECONDS, jittered, parse_retry_after, retry_delay
from edge_runtime.contract.problem import MEDIA_TYPE
from edge_runtime.contract.result import AnyRecord, Event
from edge_runtime.device_status import report_status
from edge_runtime.edge_db import EdgeDatabase
from edge_runtime.errors import TransportError
from edge_runtime.outbox import Outbox
from edge_runtime.upload import UploadReport, upload, upload_all

NOW_MS = 1_700_000_000_000


@pytest.fixture
def enrolled(tmp_path: Path) -> EnrolledDevice:
    return EnrolledDevice.make(tmp_path / "home", RepositorySimulator())


@pytest.fixture
def database(enrolled: EnrolledDevice) -> Iterator[EdgeDatabase]:
    with EdgeDatabase(enrolled.device.home.database) as database:
        yield database


@pytest.fixture
def outbox(database: EdgeDatabase) -> Outbox:
    return Outbox(database)


NUMBERS = itertools.count(1)


def fill(outbox: Outbox, count: int) -> list[int]:
    """Put events into the outbox; each carries a number of its own."""
    numbers = [next(NUMBERS) for _ in range(count)]
    outbox.append([Event(0, None, NOW_MS + n, "noticed", {"number": n}) for n in numbers])
    return numbers


def numbers_of(enrolled: EnrolledDevice) -> list[int]:
    """The numbers that the server holds, in the order of arrival; twice is twice."""
    events = [record for _, record in enrolled.seen.records if isinstance(record, Event)]
    return [int(event.detail["number"]) for event in events if event.name == "noticed"]


def test_everything_arrives_once_and_leaves_the_outbox(enrolled: EnrolledDevice, outbox: Outbox) -> None:
    numbers = fill(outbox, 250)
    report = upload(enrolled.device, outbox, batch_records=100)
    assert report == UploadReport(acknowledged=250, refused=0, forks=0, requests=3)
    assert numbers_of(enrolled) == numbers
    assert outbox.state().records == 0
    assert upload(enrolled.device, outbox) == UploadReport()


def test_a_batch_is_compressed_and_carries_the_token(enrolled: EnrolledDevice, outbox: Outbox) -> None:
    fill(outbox, 3)
    upload(enrolled.device, outbox)
    request = enrolled.server.requests[-1]
    assert request.headers["Authorization"] == f"Bearer {enrolled.device.token}"
    assert request.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(request.body or b""))["stream"] == outbox.state().stream


@pytest.mark.parametrize("kind", ["drop", "lost", "cut"])
def test_a_lost_answer_loses_and_doubles_nothing(enrolled: EnrolledDevice, outbox: Outbox, kind: str) -> None:
    numbers = fill(outbox, 30)
    enrolled.server.faults.append(Fault("/api/results", kind, times=3, after=5))
    for _ in range(3):
        with pytest.raises(TransportError):
            upload(enrolled.device, outbox, batch_records=10)
        assert outbox.state().records == 30
    upload(enrolled.device, outbox, batch_records=10)
    assert numbers_of(enrolled) == numbers
    assert outbox.state().records == 0


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (500, {"Content-Type": "text/html"}, b"<html>Internal Server Error</html>"),
        (502, {}, b""),
        (503, {"Retry-After": "120"}, b""),
        (429, {"Retry-After": "120"}, b""),
        (200, {"Content-Type": "text/html"}, b"<html>Log in</html>"),
        (200, {}, b"{}"),
        (200, {}, b'{"stored": 0, "held": [[1, 0]], "refused": []}'),
        (200, {}, b'{"stored": 0, "held": [], "refused": []}'),
        (200, {}, b'{"stored": 5, "held": [[1000, 2000]], "refused": []}'),
        (302, {"Location": "https://elsewhere.example"}, b""),
        (400, {"Content-Type": "text/html"}, b"<html>A proxy says: Bad Request</html>"),
        (413, {}, b""),
        (403, {}, b""),
    ],
)
def test_an_answer_that_is_none_keeps_every_record(
    enrolled: EnrolledDevice, outbox: Outbox, status: int, headers: dict[str, str], body: bytes
) -> None:
    fill(outbox, 5)
    enrolled.server.faults.append(Fault("/api/results", "answer", status=status, headers=headers, body=body))
    with pytest.raises(TransportError) as caught:
        upload(enrolled.device, outbox)
    assert caught.value.advice
    assert caught.value.retry_after_seconds == (120 if headers.get("Retry-After") else None)
    assert (outbox.state().records, outbox.state().dead_letters) == (5, 0)


def test_a_revoked_token_says_so(enrolled: EnrolledDevice, outbox: Outbox) -> None:
    fill(outbox, 1)
    enrolled.seen.token = "another"
    with pytest.raises(TransportError, match="This token was revoked") as caught:
        upload(enrolled.device, outbox)
    assert caught.value.status == 401
    assert "enrol the device again" in caught.value.advice
    assert enrolled.device.token not in str(caught.value)
    assert outbox.state().records == 1


def test_refused_records_become_dead_letters_and_the_rest_goes_on(enrolled: EnrolledDevice, outbox: Outbox) -> None:
    numbers = fill(outbox, 10)

    def refuse(record: AnyRecord) -> str | None:
        odd = isinstance(record, Event) and int(record.detail["number"]) % 2
        return "bad_record" if odd else None

    enrolled.server.refuse = refuse
    report = upload(enrolled.device, outbox)
    assert (report.acknowledged, report.refused) == (5, 5)
    assert numbers_of(enrolled) == [number for number in numbers if number % 2 == 0]
    assert (outbox.state().records, outbox.state().dead_letters) == (0, 5)


def test_a_record_that_spoils_its_batch_is_found_and_set_aside(enrolled: EnrolledDevice, outbox: Outbox) -> None:
    numbers = fill(outbox, 40)
    bad = numbers[17]
    serve = enrolled.server._results

    def picky(device, request):  # type: ignore[no-untyped-def]
        events = json.loads(gzip.decompress(request.body))["events"]
        if any(detail["number"] == bad for detail in events["detail"]):
            return problem(422, "bad_batch", "Something in it cannot be read.")
        return serve(device, request)

    enrolled.server._results = picky  # type: ignore[method-assign]
    report = upload(enrolled.device, outbox)
    assert (report.acknowledged, report.refused) == (39, 1)
    assert sorted(numbers_of(enrolled)) == [number for number in numbers if number != bad]
    assert outbox.state().dead_letters == 1


def test_a_batch_that_is_too_large_is_halved(enrolled: EnrolledDevice, outbox: Outbox) -> None:
    fill(outbox, 16)
    serve = enrolled.server._results

    def small(device, request):  # type: ignore[no-untyped-def]
        events = json.loads(gzip.decompress(request.body))["events"]
        return problem(413, "too_large", "Too large.") if len(events["sequence"]) > 4 else serve(device, request)

    enrolled.server._results = small  # type: ignore[method-assign]
    assert upload(enrolled.device, outbox).acknowledged == 16


def test_a_restored_copy_continues_in_a_new_stream(enrolled: EnrolledDevice, database: EdgeDatabase) -> None:
    outbox = Outbox(database)
    before = fill(outbox, 5)
    upload(enrolled.device, outbox)
    old = outbox.state().stream
    # The restored database gives the numbers 1 to 5 again, to other records.
    with database.transaction() as sql:
        sql.execute("UPDATE stream SET next_sequence = 1")
    after = fill(outbox, 7)
    report = upload(enrolled.device, outbox)
    assert report.forks == 1
    assert outbox.state().stream != old
    assert outbox.state().records == 0
    assert sorted(numbers_of(enrolled)) == before + after
    names = [record.name for _, record in enrolled.seen.records if isinstance(record, Event)]
    assert names.count("stream_forked") == 1


def test_offline_hours_are_not_cut_into_pieces(
    enrolled: EnrolledDevice, database: EdgeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    monkeypatch.setattr("edge_runtime.scoring_state.close_open_summaries", lambda database: closed.append(1) or 0)
    fill(Outbox(database), 1)
    enrolled.server.faults.append(Fault("/api/results", "drop", times=3))
    for _ in range(3):
        with pytest.raises(TransportError):
            upload_all(enrolled.device, database)
    assert closed == []
    upload_all(enrolled.device, database, close_summaries=False)
    assert closed == []
    upload_all(enrolled.device, database)
    assert closed == [1]


def test_the_status_says_how_the_device_is(enrolled: EnrolledDevice, database: EdgeDatabase) -> None:
    enrolled.server.roll_out(7)
    enrolled.sync()
    fill(Outbox(database), 2)
    report_status(enrolled.device, database)
    (status,) = enrolled.seen.statuses
    assert (status["active"], status["previous"], status["insecure_http"]) == (None, None, False)
    assert status["outbox"] == {"records": 2, "dead_letters": 0, "oldest_ms": status["outbox"]["oldest_ms"]}
    assert status["last_update"]["reason"] == "release_missing"
    assert status["runtime"]["onnxruntime"]
    assert status["stale"] is False


def test_the_media_type_of_problems_is_what_the_contract_says() -> None:
    assert MEDIA_TYPE == "application/problem+json"


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_the_delay_grows_to_a_cap_and_is_jittered_from_nothing(attempt: int, draw: float) -> None:
    delay = retry_delay(attempt, None, draw)
    assert 0 <= delay <= min(CAP_SECONDS, 2.0 * 2 ** min(attempt - 1, 20))
    assert retry_delay(attempt, None, 0.0) == 0


@given(st.integers(1, 100), st.floats(0, 1e9), st.floats(0, 1, exclude_max=True))
def test_the_delay_respects_retry_after(attempt: int, asked: float, draw: float) -> None:
    delay = retry_delay(attempt, asked, draw)
    assert delay >= min(asked, MAX_RETRY_AFTER_SECONDS)
    assert delay <= MAX_RETRY_AFTER_SECONDS * 1.1 + CAP_SECONDS


@given(st.floats(1, 1e6), st.floats(0, 1, exclude_max=True))
def test_intervals_spread_by_a_tenth(interval: float, draw: float) -> None:
    assert 0.899 * interval <= jittered(interval, draw) <= 1.101 * interval


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Wed, 21 Oct 2015 07:28:10 GMT", 10.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("1e9", None),
        ("٣", None),
        ("9" * 400, None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    assert parse_retry_after(text, 1_445_412_480.0) == seconds
