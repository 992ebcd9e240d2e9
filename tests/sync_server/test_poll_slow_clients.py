"""Clients that do nothing, or very little, thousands of them: polls go on beside them."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from sync_server.patient_worker import MOST_HEAD_BYTES

CLIENTS = 2_000
CLIENT_SECONDS = 6
HEAD = b"GET /health HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """A real server with two threads; returns host and port."""
    folder = tmp_path_factory.mktemp("slow")
    (folder / "server.toml").write_text(f"client_seconds = {CLIENT_SECONDS}\n")
    command = [sys.executable, "-m", "sync_server", "run", "--data-dir", str(folder), "--port", "0", "--json"]
    with subprocess.Popen([*command, "--threads", "2"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        host, _, port = json.loads(process.stdout.readline())["address"].removeprefix("http://").partition(":")
        yield host, int(port)
        process.terminate()
        assert process.wait(30) == 0


def ask(place: tuple[str, int], *, pieces: int = 1, request: bytes = HEAD + b"Connection: close\r\n\r\n") -> bytes:
    with socket.create_connection(place, timeout=CLIENT_SECONDS) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        size = -(-len(request) // pieces)
        for start in range(0, len(request), size):
            client.sendall(request[start : start + size])
            time.sleep(0.01 if pieces > 1 else 0)
        answer = b""
        while data := client.recv(65_536):
            answer += data
        return answer


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(HEAD, id="half a request"),
        pytest.param(HEAD + b"\r\n", id="a request, and then nothing"),
        pytest.param((HEAD + b"\r\n") * 2 + HEAD, id="two requests and a half"),
        pytest.param(HEAD + b"Connection: close\r\n\r\n", id="the last request, without hanging up"),
    ],
)
def test_thousands_of_slow_clients_do_not_stop_polls(place: tuple[str, int], said: bytes) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(CLIENTS):
            stack.enter_context(socket.create_connection(place, timeout=10)).sendall(said)
        for _ in range(5):
            assert ask(place).startswith(b"HTTP/1.1 200 OK")


def test_a_request_in_pieces_is_read(place: tuple[str, int]) -> None:
    assert ask(place, pieces=20).startswith(b"HTTP/1.1 200 OK")


def test_requests_that_come_at_once_are_answered_one_by_one(place: tuple[str, int]) -> None:
    answer = ask(place, request=(HEAD + b"\r\n") * 2 + HEAD + b"Connection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 3


def test_a_request_that_came_in_part_behind_another_is_answered_when_it_is_whole(place: tuple[str, int]) -> None:
    with socket.create_connection(place, timeout=CLIENT_SECONDS) as client:
        client.sendall(HEAD + b"\r\n" + HEAD)
        assert client.recv(65_536).startswith(b"HTTP/1.1 200 OK")
        time.sleep(0.2)
        client.sendall(b"Connection: close\r\n\r\n")
        answer = b""
        while data := client.recv(65_536):
            answer += data
        assert b"HTTP/1.1 200 OK" in answer


def test_a_head_without_end_is_refused(place: tuple[str, int]) -> None:
    # No more than the limit by one byte: what is sent beyond the answer could reset the connection before it is read.
    answer = ask(place, request=HEAD + b"X: " + b"a" * (MOST_HEAD_BYTES + 1 - len(HEAD) - 3))
    assert answer.startswith(b"HTTP/1.1 431")


def test_a_byte_now_and_then_does_not_hold_a_connection_for_ever(place: tuple[str, int]) -> None:
    with socket.create_connection(place, timeout=1) as slow:
        slow.sendall(HEAD)
        ended = time.monotonic() + 3 * CLIENT_SECONDS
        while time.monotonic() < ended:
            try:
                slow.sendall(b"X")
                if slow.recv(1) == b"":
                    return
            except TimeoutError:
                continue
            except OSError:
                return
    pytest.fail("the server waits for the rest of a head for ever")
