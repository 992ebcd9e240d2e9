"""Telemetry from CSV and NDJSON: what becomes a reading, what is set aside, what is refused."""

from __future__ import annotations

import io
import math
import os
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime import lines as line_reading
from edge_runtime.errors import InputError
from edge_runtime.readings import ReadingParser, UnusableReadingError, moment
from edge_runtime.stopping import Stop
from edge_runtime.telemetry import Telemetry, open_input

SIGNALS = ("battery", "radio")


def read(data: bytes | str, **options: object) -> tuple[np.ndarray, np.ndarray, Telemetry]:
    raw = data.encode() if isinstance(data, str) else data
    source = Telemetry(io.BytesIO(raw), SIGNALS, **options)  # type: ignore[arg-type]
    groups = [group for group, _ in source.groups()]
    return np.concatenate([g.times_ms for g in groups]), np.concatenate([g.cells for g in groups]), source


def test_csv_with_every_kind_of_value() -> None:
    text = "\ufefftimestamp,radio,extra,battery\r\n2026-11-23T12:00:00Z,-70,x,81.5\r\n1795435201.25,,y,1e2\r\n\r\n"
    text += '"2026-11-23 13:00:02",NaN,"a,b",true\r\n2026-11-23T14:00:03+02:00, -1 ,,null'
    times, cells, source = read(text)
    noon = 1_795_435_200_000
    assert times.tolist() == [noon, noon + 1250, noon + 3_602_000, noon + 3_000]
    np.testing.assert_array_equal(cells, np.float32([[81.5, -70], [100, np.nan], [1, np.nan], [np.nan, -1]]))
    assert source.report.ignored_columns == ("extra",)
    assert (source.report.format, source.report.lines, source.report.readings) == ("csv", 4, 4)


def test_ndjson_with_every_kind_of_value() -> None:
    text = '{"timestamp": 1795435200, "battery": 81.5, "radio": null, "extra": {}}\n'
    text += '{"timestamp": "2026-11-23T12:00:01Z", "battery": true}\n{"timestamp": 1795435202, "radio": NaN}\n'
    times, cells, source = read(text)
    assert np.diff(times).tolist() == [1000, 1000]
    np.testing.assert_array_equal(cells, np.float32([[81.5, np.nan], [1, np.nan], [np.nan, np.nan]]))
    assert source.report.format == "ndjson"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1795435200,1", "bad_line"),
        ("1795435200,1,2,3", "bad_line"),
        ('1795435200,"1,2', "bad_line"),
        (",1,2", "missing_timestamp"),
        ("yesterday,1,2", "bad_timestamp"),
        ("1795435200000,1,2", "bad_timestamp"),
        ("-5,1,2", "bad_timestamp"),
        ("inf,1,2", "bad_timestamp"),
        ("1795435200,full,2", "text_in_number"),
        ("1795435200,1_000,2", "text_in_number"),
        ("1795435200,٣,2", "text_in_number"),
        ("1795435200,0x10,2", "text_in_number"),
        ("1795435200,inf,2", "infinity"),
        ("1795435200,1,-Infinity", "infinity"),
        ("1795435200,1e39,2", "infinity"),
        ("1795435200,1e999,2", "infinity"),
        (b"1795435200,\xff,2", "bad_encoding"),
        ("1795435200,1," + "2" * (line_reading.MAX_LINE_BYTES + 1), "line_too_long"),
        ("1795435200,1," + "2" * (3 * line_reading.MAX_LINE_BYTES), "line_too_long"),
    ],
)
def test_a_bad_csv_line_is_set_aside_and_the_rest_goes_on(line: str | bytes, reason: str) -> None:
    raw = line.encode() if isinstance(line, str) else line
    times, _, source = read(b"timestamp,battery,radio\n1,1,2\n" + raw + b"\n3,1,2\n")
    assert times.tolist() == [1000, 3000]
    assert source.report.set_aside == Counter({reason: 1})
    assert source.report.lines == 3
    assert source.report.example.startswith("line 3: ")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "bad_line"),
        ("[]", "bad_line"),
        ("[" * 100_000, "bad_line"),
        ('{"battery": 1}', "missing_timestamp"),
        ('{"timestamp": {}}', "bad_timestamp"),
        ('{"timestamp": true}', "bad_timestamp"),
        ('{"timestamp": 1e400}', "bad_timestamp"),
        ('{"timestamp": 2, "battery": "80"}', "text_in_number"),
        ('{"timestamp": 2, "battery": [1]}', "text_in_number"),
        ('{"timestamp": 2, "battery": -Infinity}', "infinity"),
        ('{"timestamp": 2, "battery": 1' + "0" * 400 + "}", "infinity"),
    ],
)
def test_a_bad_json_line_is_set_aside_and_the_rest_goes_on(line: str, reason: str) -> None:
    times, _, source = read('{"timestamp": 1, "battery": 1, "radio": 2}\n' + line + '\n{"timestamp": 3}\n')
    assert times.tolist() == [1000, 3000]
    assert source.report.set_aside == Counter({reason: 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("timestamp,battery,radio\n", "no readings"),
        ("timestamp,battery,radio\nx,1,2\ny,1,2\n", r"None of the 2 lines .*bad_timestamp 2"),
        ("timestamp,batery,radio\n1,2,3\n", "'battery' \\(did you mean 'batery'\\?\\)"),
        ("timestamp,Battery,Radio\n1,2,3\n", "columns 'battery' .*'Battery'.*'Radio'"),
        ("time,battery,radio\n1,2,3\n", "'timestamp' \\(did you mean 'time'"),
        ("timestamp,battery,radio,radio\n1,2,3,4\n", "'radio' twice"),
        ('{"timestamp": 1, "battery": 2}\n', "lacks the column 'radio'"),
        ("not json\n", "lacks the column"),
    ],
)
def test_an_input_that_cannot_be_meant_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(text)
    assert caught.value.exit_code == 3
    assert caught.value.advice


def test_missing_signals_can_be_allowed_but_not_all() -> None:
    _, cells, source = read("timestamp,radio\n1,2\n", allow_missing_signals=True)
    np.testing.assert_array_equal(cells, np.float32([[np.nan, 2]]))
    assert source.report.missing_signals == ("battery",)
    with pytest.raises(InputError, match="lacks the columns"):
        read("timestamp,other\n1,2\n", allow_missing_signals=True)


def test_the_format_can_be_named() -> None:
    with pytest.raises(InputError, match="None of the 2 lines"):
        read("timestamp,battery,radio\n1,2,3\n", form="ndjson")


def test_a_pipe_gives_what_it_has_when_it_falls_silent() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as pipe:
        groups = Telemetry(stream, SIGNALS).groups()
        pipe.write(b"timestamp,battery,radio\n1,2,3\n4,5")
        first, _ = next(groups)  # a slow sensor does not wait for the 200th reading
        assert first.times_ms.tolist() == [1000]
        threading.Timer(0.05, lambda: (pipe.write(b",6\n7,8,x\n"), pipe.close())).start()
        second, aside = next(groups)
        assert second.times_ms.tolist() == [4000]
        assert aside == Counter({"text_in_number": 1})
        assert next(groups, None) is None


def test_a_file_is_read_in_groups(tmp_path: Path) -> None:
    path = tmp_path / "readings.csv"
    path.write_text("timestamp,battery,radio\n" + "".join(f"{n},1,2\n" for n in range(450)))
    with open_input(str(path)) as stream:
        assert [len(g.times_ms) for g, _ in Telemetry(stream, SIGNALS).groups()] == [200, 200, 50]
    with pytest.raises(InputError, match="No such file"), open_input(str(tmp_path / "absent")):
        pass
    with pytest.raises(InputError, match="directory"), open_input(str(tmp_path)):
        pass


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    source = Telemetry(io.BytesIO(b"timestamp,battery,radio\n1,2,3\n" + data), SIGNALS)
    for group, _ in source.groups():
        assert not np.isinf(group.cells).any()
    assert source.report.lines == source.report.readings + source.report.set_aside.total()


@given(st.floats(width=32, allow_infinity=False), st.floats(width=32, allow_infinity=False))
def test_both_formats_give_the_same_cells(battery: float, radio: float) -> None:
    _, csv_cells, _ = read(f"timestamp,battery,radio\n1,{battery!r},{radio!r}\n")
    _, json_cells, _ = read(f'{{"timestamp":1,"battery":{_json(battery)},"radio":{_json(radio)}}}\n')
    np.testing.assert_array_equal(csv_cells, np.float32([[battery, radio]]))
    np.testing.assert_array_equal(json_cells, csv_cells)


@given(st.integers(0, 253_402_300_799_000))
def test_times_survive_both_notations(at_ms: int) -> None:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
    assert moment(at.isoformat()) == moment(at) == at_ms
    assert moment(at.astimezone(timezone(timedelta(hours=-1))).isoformat() if at.year > 1970 else at) == at_ms
    if at_ms < 2**42:  # epoch seconds as a double
        assert moment(at_ms / 1000) == moment(str(at_ms / 1000)) == at_ms


def test_numbers_of_numpy_and_missing_ones() -> None:
    at_ms, cells = ReadingParser(SIGNALS).row({"timestamp": np.int64(5), "battery": np.float32(0.5)})
    assert (at_ms, cells[0]) == (5000, 0.5)
    assert math.isnan(cells[1])
    with pytest.raises(UnusableReadingError):
        moment("")


def _json(number: float) -> str:
    return "null" if math.isnan(number) else repr(number)


def test_what_was_read_is_given_when_somebody_says_stop() -> None:
    """A reading that came in the last second is not lost with the process; half a line is not a reading yet."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as pipe, Stop() as stop:
        source = Telemetry(stream, SIGNALS, stop=stop)
        groups = source.groups()
        pipe.write(b"timestamp,battery,radio\n1,2,3\n")
        next(groups)
        pipe.write(b"4,5,6\n7,8")
        threading.Timer(0.1, stop.tell).start()
        assert [group.times_ms.tolist() for group, _ in groups] == [[4000]]
        assert source.report.readings == 2


def test_stopping_before_the_first_reading_is_no_complaint() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb"), Stop() as stop:
        stop.tell()
        assert list(Telemetry(stream, SIGNALS, stop=stop).groups()) == []
