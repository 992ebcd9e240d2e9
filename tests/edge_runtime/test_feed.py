"""The feed: whole lines in order, across growth, rotation and turns, and it always ends when told."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from edge_runtime.errors import InputError
from edge_runtime.feed import CHUNK_BYTES, Feed

HEADER = b"timestamp,heat\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "readings.csv"
    path.write_bytes(HEADER)
    return path


@pytest.fixture
def feed(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Feed]:
    monkeypatch.setattr("edge_runtime.feed.POLL_SECONDS", 0.01)
    with Feed(path) as feed:
        yield feed


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def read_until(stream: BinaryIO, wanted: bytes) -> bytes:
    got = b""
    while not got.endswith(wanted):
        chunk = stream.read(65536)
        assert chunk, f"ended after {got!r}"
        got += chunk
    return got


def next_stream(feed: Feed) -> BinaryIO:
    stream = feed.next_stream()
    assert stream is not None
    return stream


def test_a_file_is_followed_line_by_line(feed: Feed, path: Path) -> None:
    with next_stream(feed) as stream:
        assert read_until(stream, b"\n") == HEADER
        append(path, b"1,2\n2,")
        assert read_until(stream, b"1,2\n") == b"1,2\n"
        append(path, b"3\n")
        assert read_until(stream, b"\n") == b"2,3\n"


def test_stopping_ends_the_stream_and_drops_half_a_line(feed: Feed, path: Path) -> None:
    append(path, b"1,2\n2,3.")
    with next_stream(feed) as stream:
        assert read_until(stream, b"1,2\n") == HEADER + b"1,2\n"
        time.sleep(0.05)
        feed.stop()
        feed.stop()
        assert stream.read(10) == b""
    assert feed.next_stream() is None


def test_a_turn_repeats_the_header_and_loses_nothing(feed: Feed, path: Path) -> None:
    append(path, b"1,2\n")
    with next_stream(feed) as first:
        got = read_until(first, b"1,2\n")
        feed.turn()
        with next_stream(feed) as second:
            append(path, b"2,3\n")
            assert read_until(second, b"2,3\n") == HEADER + b"2,3\n"
        assert got + first.read(100) == HEADER + b"1,2\n"


def test_ndjson_has_no_header_to_repeat(tmp_path: Path) -> None:
    path = tmp_path / "readings.ndjson"
    path.write_bytes(b'{"timestamp": 1}\n')
    with Feed(path) as feed:
        with next_stream(feed) as first:
            read_until(first, b"\n")
            feed.turn()
            second = next_stream(feed)
        with second:
            append(path, b'{"timestamp": 2}\n')
            assert read_until(second, b"2}\n").strip() == b'{"timestamp": 2}'


def rotated(path: Path, content: bytes) -> None:
    path.rename(path.with_suffix(".1"))
    path.write_bytes(content)


def truncated(path: Path, content: bytes) -> None:
    path.write_bytes(b"")
    time.sleep(0.1)
    path.write_bytes(content)


@pytest.mark.parametrize("renew", [rotated, truncated])
def test_a_renewed_file_goes_on_without_a_second_header(
    feed: Feed, path: Path, renew: Callable[[Path, bytes], None]
) -> None:
    append(path, b"1,2\n")
    with next_stream(feed) as stream:
        read_until(stream, b"1,2\n")
        renew(path, HEADER + b"2,3\n")
        assert read_until(stream, b"2,3\n") == b"2,3\n"


def test_a_renewed_file_with_another_header_begins_anew(feed: Feed, path: Path) -> None:
    with next_stream(feed) as first:
        read_until(first, b"\n")
        rotated(path, b"timestamp,load\n1,2\n")
        with next_stream(feed) as second:
            assert read_until(second, b"1,2\n") == b"timestamp,load\n1,2\n"
        assert first.read(100) == b""


def test_a_reader_that_is_slow_holds_the_feed_not_the_memory(feed: Feed, path: Path) -> None:
    lines = b"".join(b"%d,1\n" % n for n in range(100_000))
    append(path, lines)
    with next_stream(feed) as stream:
        time.sleep(0.05)
        assert read_until(stream, b"99999,1\n") == HEADER + lines


def test_stopping_a_feed_that_nobody_reads_does_not_wait(path: Path) -> None:
    append(path, b"1,1\n" * 100_000)
    with Feed(path) as feed:
        time.sleep(0.05)
        feed.turn()
        feed.stop()


def test_standard_input_ends_with_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    readable, writable = os.pipe()
    with os.fdopen(readable, "rb") as stdin, Feed_of(stdin, monkeypatch) as feed:
        os.write(writable, HEADER + b"1,2\n3,4")
        os.close(writable)
        with next_stream(feed) as stream:
            assert read_until(stream, b"3,4") == HEADER + b"1,2\n3,4"
            assert stream.read(1) == b""
        assert feed.next_stream() is None


def Feed_of(stdin: BinaryIO, monkeypatch: pytest.MonkeyPatch) -> Feed:  # noqa: N802
    monkeypatch.setattr("edge_runtime.feed.sys.stdin", stdin)
    return Feed(None)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv"), Feed(tmp_path / "none.csv"):
        pass


def test_what_was_read_before_the_stop_is_passed_on(path: Path) -> None:
    """The feed has taken it from its writer, and a pipe's writer has it no more: it must reach the reader."""
    path.write_bytes(HEADER + b"1795435200,1.25\n" * 20_000)
    with Feed(path) as feed, next_stream(feed) as stream:
        time.sleep(0.3)  # the pipe is full, and the feed holds a second read in its hands
        feed.stop()
        got = b"".join(iter(lambda: stream.read(65536), b""))
        assert feed.next_stream() is None
    assert len(got) > 1.5 * CHUNK_BYTES
    assert got.endswith(b"\n")


def test_a_reader_that_leaves_does_not_keep_the_feed(path: Path) -> None:
    path.write_bytes(HEADER + b"1795435200,1.25\n" * 20_000)
    with contextlib.ExitStack() as kept, Feed(path) as feed:
        kept.enter_context(next_stream(feed))
        time.sleep(0.1)  # the feed waits for room in the pipe, and the end of the block for the feed
