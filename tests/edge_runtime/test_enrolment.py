"""Enrolment: one line, one root, one device however often it is tried."""

from __future__ import annotations

import dataclasses
import json
import stat
from pathlib import Path

import pytest
from simulators.disk import Crash, RecordingDisk
from simulators.repository import Fault, RepositorySimulator

from edge_runtime.contract.enrolment import EnrolmentLine
from edge_runtime.enrolment import Wishes, enrol
from edge_runtime.errors import InputError, StellaError, StorageError, TransportError, TrustError
from edge_runtime.files import FileSystem
from edge_runtime.home import Home
from edge_runtime.identity import Identity, is_enrolled, load_identity, load_token
from edge_runtime.trust import load_pinned_root


@pytest.fixture
def server() -> RepositorySimulator:
    return RepositorySimulator()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def join(home: Home, server: RepositorySimulator, line: EnrolmentLine | None = None, **wishes: str) -> Identity:
    return enrol(home, line or server.enrolment_line(), server, FileSystem(), Wishes(**wishes))  # type: ignore[arg-type]


def test_enrolment_pins_what_the_line_says(home: Home, server: RepositorySimulator) -> None:
    line = server.enrolment_line()
    identity = join(home, server, line, name="pump 7", cohort="FD001")
    assert load_identity(home) == identity
    assert (identity.root_sha256, identity.targets_version) == (line.root_digest, line.targets_version)
    assert (identity.model, identity.channel, identity.cohort) == ("pumps", "stable", "FD001")
    assert load_pinned_root(home, line.root_digest) == server.metadata["1.root.json"]
    (device,) = server.devices.values()
    assert (device.device_id, device.token) == (identity.device_id, load_token(home))
    assert device.body["installation_id"] == identity.installation_id
    assert (device.body["name"], device.body["cohort"], device.body["kind"]) == ("pump 7", "FD001", "edge")


def test_the_token_is_for_this_user_only(home: Home, server: RepositorySimulator) -> None:
    home.create()
    home.token.write_text("older")
    home.token.chmod(0o644)
    join(home, server)
    assert stat.S_IMODE(home.token.stat().st_mode) == 0o600
    assert load_token(home) not in home.device.read_text()
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["drop", "lost", "cut"])
@pytest.mark.parametrize("match", ["root-", "/api/devices"])
def test_an_enrolment_that_broke_off_is_the_same_device_when_tried_again(
    home: Home, server: RepositorySimulator, match: str, kind: str
) -> None:
    server.faults.append(Fault(match, kind, times=1))
    with pytest.raises(TransportError):
        join(home, server)
    assert not is_enrolled(home)
    identity = join(home, server)
    assert len(server.devices) == 1
    assert server.devices[identity.installation_id].token == load_token(home)


def test_enrolling_again_keeps_the_device_and_changes_the_token(home: Home, server: RepositorySimulator) -> None:
    first, token = join(home, server), load_token(home)
    server.rotate("online")
    second = join(home, server, cohort="FD002")
    assert second.device_id == first.device_id
    assert second.cohort == "FD002"
    assert second.root_sha256 != first.root_sha256
    assert load_token(home) != token


def usable(home: Home) -> bool:
    """Whether the home is enrolled; if it is, everything that enrolment promises is there."""
    if not is_enrolled(home):
        return False
    identity = load_identity(home)
    load_pinned_root(home, identity.root_sha256)
    assert len(load_token(home)) > 40
    return True


@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
def test_a_crash_at_any_step_leaves_no_half_enrolled_home(
    tmp_path: Path, server: RepositorySimulator, again: bool
) -> None:
    for step in range(100):
        home = Home(tmp_path / str(step))
        disk = RecordingDisk(home.path)
        if again:
            enrol(home, server.enrolment_line(), server, disk, Wishes())
            disk.settle()
        disk.crash_before = step
        try:
            enrol(home, server.enrolment_line(), server, disk, Wishes())
        except Crash:
            pass
        else:
            assert step > 10
            break
        for seed in range(4):
            left = Home(disk.after_power_loss(tmp_path / f"{step}-{seed}", seed))
            assert usable(left) or not again
            join(left, server)
            assert usable(left)
        assert usable(home) or not again
        known = len(server.devices)
        before = load_identity(home).device_id if again else None
        assert before in (None, join(home, server).device_id)
        assert not again or len(server.devices) == known
    else:
        pytest.fail("it never came to an end")


def test_an_empty_home_is_a_new_device(tmp_path: Path, server: RepositorySimulator) -> None:
    first, second = join(Home(tmp_path / "a"), server), join(Home(tmp_path / "b"), server)
    assert first.device_id != second.device_id


def refused(home: Home, server: RepositorySimulator, line: EnrolmentLine | None = None) -> StellaError:
    with pytest.raises(StellaError) as caught:
        join(home, server, line)
    assert caught.value.advice
    assert not is_enrolled(home)
    assert not home.token.exists()
    return caught.value


def test_a_line_for_another_root_is_refused(home: Home, server: RepositorySimulator) -> None:
    line = dataclasses.replace(server.enrolment_line(), root_digest="0" * 64)
    error = refused(home, server, line)
    assert isinstance(error, TrustError)
    assert error.reason == "wrong_root"
    assert error.exit_code == 4
    assert not [request for request in server.requests if request.path == "/api/devices"]  # the token never left


def test_a_server_that_shows_another_root_is_refused(home: Home, server: RepositorySimulator) -> None:
    line = server.enrolment_line()
    stranger = RepositorySimulator()
    server.metadata[f"root-{line.root_digest}.json"] = stranger.metadata["1.root.json"]
    error = refused(home, server, line)
    assert isinstance(error, TrustError)
    assert error.reason == "wrong_root"


def test_a_root_that_is_none_is_refused(home: Home, server: RepositorySimulator) -> None:
    import hashlib

    for body in (b"{}", server.metadata["timestamp.json"]):
        digest = hashlib.sha256(body).hexdigest()
        server.metadata[f"root-{digest}.json"] = body
        error = refused(home, server, dataclasses.replace(server.enrolment_line(), root_digest=digest))
        assert isinstance(error, TrustError)
        assert error.reason == "metadata_invalid"


def test_a_used_up_token_says_so(home: Home, server: RepositorySimulator) -> None:
    line = server.enrolment_line()
    server.enrolment_tokens.clear()
    error = refused(home, server, line)
    assert isinstance(error, TransportError)
    assert (error.status, error.exit_code) == (401, 5)
    assert "new line" in error.advice


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"{}",
        b"[]",
        b'{"device_id": "", "token": "x"}',
        b'{"device_id": "d", "token": "short", "model": "m", "channel": "c"}',
        b'{"device_id": "d", "token": "long enough for a token", "model": "../m", "channel": "c"}',
        b'{"device_id": "d\\n", "token": "long enough for a token", "model": "m", "channel": "c"}',
        b" " * 3_000_000,
    ],
)
def test_an_answer_that_makes_no_sense_is_refused(home: Home, server: RepositorySimulator, body: bytes) -> None:
    server.faults.append(Fault("/api/devices", "answer", status=201, body=body))
    assert isinstance(refused(home, server), TransportError)


def test_a_home_of_another_server_is_left_alone(home: Home, server: RepositorySimulator) -> None:
    identity = join(home, server)
    other = RepositorySimulator()
    other.server_url = "https://other.example"
    with pytest.raises(TrustError, match="enrolled with") as caught:
        join(home, other)
    assert caught.value.reason == "already_enrolled"
    assert load_identity(home) == identity


@pytest.mark.parametrize("wish", [{"name": ""}, {"cohort": "a\nb"}, {"name": "x" * 121}])
def test_names_that_the_server_would_refuse_are_refused_here(wish: dict[str, str]) -> None:
    with pytest.raises(InputError):
        Wishes(**wish)  # type: ignore[arg-type]


def test_a_home_that_is_not_enrolled_says_what_to_do(home: Home) -> None:
    with pytest.raises(StorageError, match="no enrolled device") as caught:
        load_identity(home)
    assert "enroll" in caught.value.advice


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 9}', '{"format": 1, "device_id": 7}'])
def test_a_damaged_identity_is_named(home: Home, server: RepositorySimulator, text: str) -> None:
    join(home, server)
    home.device.write_text(text)
    with pytest.raises(StorageError, match=r"device\.json is damaged"):
        load_identity(home)


def test_the_cohort_of_device_json_counts(home: Home, server: RepositorySimulator) -> None:
    join(home, server)
    fields = json.loads(home.device.read_text())
    home.device.write_text(json.dumps({**fields, "cohort": "FD004", "note": "edited by hand"}))
    assert load_identity(home).cohort == "FD004"
