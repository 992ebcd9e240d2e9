"""Trust: what a refresh accepts, what it refuses and by which reason, and where the rollouts are read from."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from simulators.bundles import SmallBundle
from simulators.enrolled import EnrolledDevice
from simulators.repository import Fault, RepositorySimulator
from tuf.api.metadata import Metadata, Timestamp

from edge_runtime.contract.rollout import FIELD, parse_rollouts
from edge_runtime.device import now_ms
from edge_runtime.errors import StellaError, TransportError, TrustError
from edge_runtime.freshness import expires_ms, is_stale
from edge_runtime.trust import View, refresh

DAY_MS = 86_400_000


@pytest.fixture
def enrolled(tmp_path: Path) -> EnrolledDevice:
    server = RepositorySimulator()
    server.publish(SmallBundle().build(), floor={"pumps": 1})
    server.roll_out(1)
    return EnrolledDevice.make(tmp_path / "home", server)


def refreshed(enrolled: EnrolledDevice) -> View:
    device = enrolled.device
    return refresh(device.home, device.identity, device.transport, device.files)


def refusal(enrolled: EnrolledDevice) -> StellaError:
    with pytest.raises((TrustError, TransportError)) as caught:
        refreshed(enrolled)
    assert caught.value.message
    assert caught.value.advice
    return caught.value


def test_a_refresh_reads_targets_rollouts_and_floor(enrolled: EnrolledDevice) -> None:
    view = refreshed(enrolled)
    assert view.rollouts == enrolled.server.rollouts
    assert view.targets_version == enrolled.server.targets.version
    assert view.floor("pumps") == 1
    assert view.floor("fans") == 0
    (target,) = view.targets.values()
    assert target.custom == SmallBundle().build().custom
    assert target.url_path in enrolled.server.files


def test_python_tuf_keeps_the_rollouts_where_they_are_read(enrolled: EnrolledDevice) -> None:
    # The design hangs on this: a field that TUF does not know survives parsing, verification and storing.
    refreshed(enrolled)
    stored = enrolled.device.home.trust / "metadata" / "timestamp.json"
    signed = Metadata[Timestamp].from_bytes(stored.read_bytes()).signed
    assert parse_rollouts(signed.unrecognized_fields) == enrolled.server.rollouts
    assert json.loads(stored.read_bytes())["signed"][FIELD] == signed.to_dict()[FIELD]


def test_a_second_refresh_costs_two_requests(enrolled: EnrolledDevice) -> None:
    refreshed(enrolled)
    enrolled.server.requests.clear()
    refreshed(enrolled)
    names = [request.path.rpartition("/")[2] for request in enrolled.server.requests]
    assert names == ["2.root.json", "timestamp.json"]


def test_the_rollout_of_an_unchanged_timestamp_is_the_stored_one(enrolled: EnrolledDevice) -> None:
    # Two timestamps of one version: the first one counts, as TUF has it.
    refreshed(enrolled)
    enrolled.server.timestamp.version -= 1
    enrolled.server.roll_out(9)
    assert refreshed(enrolled).rollouts["stable"].release == 1


def test_expired_metadata_is_refused_and_stale(enrolled: EnrolledDevice) -> None:
    enrolled.server.lifetimes["timestamp"] = timedelta(seconds=-1)
    enrolled.server.sign_timestamp()
    error = refusal(enrolled)
    assert isinstance(error, TrustError)
    assert error.reason == "metadata_expired"
    assert "clock" in error.advice


def test_an_expired_timestamp_replayed_is_refused(enrolled: EnrolledDevice) -> None:
    refreshed(enrolled)
    path = enrolled.device.home.trust / "metadata" / "timestamp.json"
    enrolled.server.lifetimes["timestamp"] = timedelta(seconds=-1)
    enrolled.server.timestamp.version -= 1
    enrolled.server.sign_timestamp()
    path.write_bytes(enrolled.server.metadata["timestamp.json"])
    error = refusal(enrolled)
    assert isinstance(error, TrustError)
    assert error.reason == "metadata_expired"


def test_staleness_follows_the_clock(enrolled: EnrolledDevice) -> None:
    trust = enrolled.device.home.trust
    assert is_stale(trust, now_ms())
    refreshed(enrolled)
    assert not is_stale(trust, now_ms())
    assert is_stale(trust, now_ms() + 8 * DAY_MS)
    expiry = expires_ms(trust)
    assert expiry is not None
    assert 6 * DAY_MS < expiry - now_ms() <= 7 * DAY_MS
    (trust / "metadata" / "snapshot.json").write_bytes(b"{")
    assert is_stale(trust, now_ms())


@pytest.mark.parametrize("what", ["timestamp", "snapshot", "everything"])
def test_metadata_never_goes_back(enrolled: EnrolledDevice, what: str) -> None:
    before = enrolled.server.state()
    enrolled.server.roll_out(1)
    if what != "timestamp":
        enrolled.server.publish(SmallBundle(version="2.0", release_number=2).build())
    refreshed(enrolled)
    if what == "snapshot":
        # A stolen online key can sign a newer timestamp, but not over an older snapshot.
        enrolled.server.snapshot.version -= 1
        enrolled.server.sign_timestamp()
    else:
        enrolled.server.metadata = before
    error = refusal(enrolled)
    assert isinstance(error, TrustError)
    assert error.reason == "metadata_rollback"


def test_targets_older_than_the_enrolment_line_are_refused(tmp_path: Path) -> None:
    server = RepositorySimulator()
    server.publish(SmallBundle().build())
    server.roll_out(1)
    old = server.state()
    server.publish(SmallBundle(version="2.0", release_number=2).build())
    fresh = EnrolledDevice.make(tmp_path / "home", server)
    server.metadata = old
    error = refusal(fresh)
    assert isinstance(error, TrustError)
    assert error.reason == "metadata_rollback"
    assert "enrolled" in error.message


@pytest.mark.parametrize("role", ["targets", "online"])
def test_another_key_is_refused(enrolled: EnrolledDevice, role: str) -> None:
    server = enrolled.server
    server.signers[role] = CryptoSigner.generate_ecdsa()
    server.sign_targets()
    error = refusal(enrolled)
    assert isinstance(error, TrustError)
    assert error.reason == "metadata_unsigned"


@pytest.mark.parametrize("role", ["root", "targets", "online"])
def test_keys_rotate_through_root(enrolled: EnrolledDevice, role: str) -> None:
    refreshed(enrolled)
    enrolled.server.rotate(role)
    enrolled.server.rotate(role)
    assert refreshed(enrolled).targets_version == enrolled.server.targets.version


def test_a_root_not_signed_by_its_predecessor_is_refused(enrolled: EnrolledDevice) -> None:
    stranger = RepositorySimulator()
    stranger.rotate("root")
    enrolled.server.metadata["2.root.json"] = stranger.metadata["2.root.json"]
    error = refusal(enrolled)
    assert isinstance(error, TrustError)
    assert error.reason == "metadata_unsigned"


@pytest.mark.parametrize("name", ["timestamp.json", "snapshot.json", "targets.json"])
@pytest.mark.parametrize("at", [0, 10, 200])
def test_a_flipped_bit_is_refused(enrolled: EnrolledDevice, name: str, at: int) -> None:
    enrolled.server.faults.append(Fault(name, "corrupt", after=at))
    error = refusal(enrolled)
    assert isinstance(error, TrustError)
    assert error.reason in {"metadata_unsigned", "metadata_invalid"}


@pytest.mark.parametrize("name", ["root.json", "timestamp.json", "snapshot.json", "targets.json"])
def test_an_endless_answer_is_cut_off(enrolled: EnrolledDevice, name: str) -> None:
    if name == "root.json":
        enrolled.server.rotate("online")
    enrolled.server.faults.append(Fault(name, "endless"))
    error = refusal(enrolled)
    assert isinstance(error, TrustError)
    assert error.reason == "metadata_too_large"


@pytest.mark.parametrize("name", ["root.json", "timestamp.json", "snapshot.json", "targets.json"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault("", "drop"),
        Fault("", "cut", after=100),
        Fault("", "answer", status=500),
        Fault("", "answer", status=502, headers={"Content-Type": "text/html"}, body=b"<html>Bad gateway</html>"),
        Fault("", "answer", status=302, headers={"Location": "https://elsewhere.example"}),
    ],
    ids=["drop", "cut", "500", "html", "redirect"],
)
def test_a_network_that_fails_is_no_refusal(enrolled: EnrolledDevice, name: str, fault: Fault) -> None:
    fault.match = name
    if name == "root.json":
        enrolled.server.rotate("online")
    enrolled.server.faults.append(fault)
    assert isinstance(refusal(enrolled), TransportError)
    enrolled.server.faults.clear()
    assert refreshed(enrolled).rollouts


def test_a_server_without_a_repository_is_named(enrolled: EnrolledDevice) -> None:
    enrolled.server.metadata.clear()
    error = refusal(enrolled)
    assert isinstance(error, TransportError)
    assert error.status == 404


def test_a_web_page_with_status_200_is_refused(enrolled: EnrolledDevice) -> None:
    enrolled.server.faults.append(Fault("timestamp.json", "answer", status=200, body=b"<html>Log in</html>"))
    error = refusal(enrolled)
    assert isinstance(error, TrustError)
    assert error.reason == "metadata_invalid"


@pytest.mark.parametrize("damage", [b"", b"{}"])
def test_a_changed_pinned_root_is_noticed(enrolled: EnrolledDevice, damage: bytes) -> None:
    (path,) = (enrolled.device.home.trust / "pinned").iterdir()
    path.write_bytes(damage)
    error = refusal(enrolled)
    assert isinstance(error, TrustError)
    assert error.reason == "trust_damaged"


@pytest.mark.parametrize("name", ["timestamp.json", "snapshot.json", "targets.json", "root.json"])
def test_damaged_local_metadata_is_fetched_again(enrolled: EnrolledDevice, name: str) -> None:
    refreshed(enrolled)
    path = enrolled.device.home.trust / "metadata" / name
    path.unlink() if name == "root.json" else path.write_bytes(b"\0" * 100)
    assert refreshed(enrolled).targets


def test_a_target_of_a_later_format_does_not_hide_the_others(enrolled: EnrolledDevice) -> None:
    server = enrolled.server
    strange = SmallBundle(model="fans", version="9").build()
    server.publish(strange)
    server.targets.targets[strange.path].unrecognized_fields["custom"] = {"kind": "delta"}
    server.sign_targets()
    assert list(refreshed(enrolled).targets) == [SmallBundle().path]


def test_rollouts_that_cannot_be_read_are_refused(enrolled: EnrolledDevice) -> None:
    server = enrolled.server
    server.sign_timestamp()
    server.timestamp.unrecognized_fields[FIELD]["stable"]["state"] = "exploded"
    server.timestamp.version += 1
    server._write("timestamp.json", server.timestamp, server.signers["online"])
    error = refusal(enrolled)
    assert isinstance(error, TrustError)
    assert error.reason == "metadata_invalid"
    assert "state" in error.message
