"""Sync: what is activated, what is refused and why, and that the active bundle stays whatever happens."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from simulators.bundles import BuiltBundle, SmallBundle
from simulators.enrolled import EnrolledDevice
from simulators.repository import Fault, RepositorySimulator
from simulators.sync_scenes import FIRST, SECOND, offer, refused

from edge_runtime.contract.archive import pack
from edge_runtime.contract.bundle import CARD_PAGE_NAME
from edge_runtime.identity import save_identity
from edge_runtime.update_outcome import load_outcome


def test_the_first_release_is_activated_and_reported(tmp_path: Path) -> None:
    server = RepositorySimulator()
    device = EnrolledDevice.make(tmp_path / "home", server)
    report = device.sync()
    assert (report.outcome.outcome, report.outcome.release, report.error) == ("unchanged", None, None)
    server.publish(FIRST)
    server.roll_out(1)
    report = device.sync()
    assert report.outcome.outcome == "activated"
    assert report.downloaded_bytes == len(FIRST.data)
    (event,) = device.sink.events
    assert (event.name, event.detail["release"], event.bundle) == ("update_activated", 1, FIRST.digest)
    active = device.device.store.active()
    assert active is not None
    assert active.digest == FIRST.digest
    assert not device.device.home.staging.exists()


def test_a_page_for_people_in_a_bundle_is_taken_along(enrolled: EnrolledDevice) -> None:
    page = b"<!doctype html><title>card</title>"
    offer(enrolled, SmallBundle(version="2.0.0", release_number=2, extra=((CARD_PAGE_NAME, page),)).build())
    assert enrolled.sync().outcome.outcome == "activated"
    active = enrolled.device.store.active()
    assert active is not None
    assert active.files[CARD_PAGE_NAME] == page


def test_nothing_new_changes_nothing_and_says_nothing(enrolled: EnrolledDevice) -> None:
    enrolled.server.requests.clear()
    report = enrolled.sync()
    assert (report.outcome.outcome, report.outcome.release) == ("unchanged", 1)
    assert enrolled.sink.events == []
    assert len(enrolled.server.requests) == 2


def test_an_update_keeps_the_bundle_before(enrolled: EnrolledDevice) -> None:
    offer(enrolled, SECOND)
    assert enrolled.sync().outcome.outcome == "activated"
    pointer = enrolled.device.store.pointer()
    assert pointer is not None
    assert pointer.previous is not None
    assert (pointer.active.digest, pointer.previous.digest) == (SECOND.digest, FIRST.digest)


def test_a_roll_back_needs_no_download(enrolled: EnrolledDevice) -> None:
    offer(enrolled, SECOND)
    enrolled.sync()
    enrolled.server.roll_out(2, previous=1, state="rolled_back")
    enrolled.server.requests.clear()
    report = enrolled.sync()
    assert (report.outcome.outcome, report.outcome.release, report.downloaded_bytes) == ("activated", 1, 0)
    assert not [request for request in enrolled.server.requests if "/targets/" in request.path]
    assert enrolled.active_release() == 1


def test_a_share_of_none_keeps_a_device_out(enrolled: EnrolledDevice) -> None:
    offer(enrolled, SECOND, share=0)
    assert enrolled.sync().outcome.outcome == "unchanged"
    enrolled.server.roll_out(2, previous=1, state="paused")
    assert enrolled.sync().outcome.release == 1


def test_a_device_gets_the_bundle_of_its_cohort(enrolled: EnrolledDevice) -> None:
    cohort = SmallBundle(version="1.0.0", cohort="FD001", bias=0.75).build()
    enrolled.server.publish(cohort)
    assert enrolled.sync().outcome.outcome == "unchanged"
    device = enrolled.device
    identity = dataclasses.replace(device.identity, cohort="FD001")
    save_identity(device.home, identity, device.token, device.files)
    enrolled.device = dataclasses.replace(device, identity=identity)
    assert enrolled.sync().outcome.outcome == "activated"
    active = enrolled.device.store.active()
    assert active is not None
    assert active.manifest.cohort == "FD001"


@pytest.mark.parametrize("after", [0, 1000, 2500])
def test_an_interrupted_download_continues(enrolled: EnrolledDevice, after: int) -> None:
    offer(enrolled, SECOND)
    enrolled.server.faults.append(Fault("/targets/", "cut", times=1, after=after))
    report = enrolled.sync()
    assert (report.outcome.outcome, report.outcome.reason) == ("failed", "download_failed")
    assert enrolled.active_release() == 1
    assert enrolled.sync().outcome.outcome == "activated"
    ranges = [request.headers.get("Range") for request in enrolled.server.requests if "/targets/" in request.path]
    assert ranges[-1] == (f"bytes={after}-" if after else None)


def test_a_server_without_ranges_sends_it_all_again(enrolled: EnrolledDevice) -> None:
    offer(enrolled, SECOND)
    enrolled.server.ranges_honoured = False
    enrolled.server.faults.append(Fault("/targets/", "cut", times=1, after=1000))
    enrolled.sync()
    assert enrolled.sync().outcome.outcome == "activated"


@pytest.mark.parametrize("kept", [b"\0" * 700, b"\0" * 100_000])
def test_a_damaged_part_is_thrown_away(enrolled: EnrolledDevice, kept: bytes) -> None:
    offer(enrolled, SECOND)
    enrolled.device.home.staging.mkdir()
    (enrolled.device.home.staging / f"{SECOND.digest}.part").write_bytes(kept)
    (enrolled.device.home.staging / f"{'0' * 64}.part").write_bytes(b"of another release")
    assert enrolled.sync().outcome.outcome == "activated"
    assert enrolled.active_release() == 2


def test_another_part_than_asked_for_is_not_used(enrolled: EnrolledDevice) -> None:
    offer(enrolled, SECOND)
    enrolled.server.faults.append(Fault("/targets/", "cut", times=1, after=1000))
    enrolled.sync()
    wrong = {"Content-Range": f"bytes 5-9/{len(SECOND.data)}"}
    enrolled.server.faults.append(Fault("/targets/", "answer", times=1, status=206, headers=wrong, body=b"wrong"))
    assert enrolled.sync().outcome.reason == "download_failed"
    assert enrolled.sync().outcome.outcome == "activated"


@pytest.mark.parametrize(
    "fault",
    [
        Fault("/targets/", "drop"),
        Fault("/targets/", "cut", after=10),
        Fault("/targets/", "answer", status=503, headers={"Retry-After": "30"}),
        Fault("/targets/", "answer", status=404),
        Fault("/targets/", "answer", status=416),
        Fault("/targets/", "answer", status=200, body=b"short"),
    ],
    ids=["drop", "cut", "503", "404", "416", "short"],
)
def test_a_download_that_fails_changes_nothing(enrolled: EnrolledDevice, fault: Fault) -> None:
    offer(enrolled, SECOND)
    enrolled.server.faults.append(fault)
    report = refused(enrolled, "download_failed")
    assert report.outcome.outcome == "failed"


def test_a_server_out_of_reach_is_no_news_for_the_outbox(enrolled: EnrolledDevice) -> None:
    enrolled.server.faults.append(Fault("", "drop"))
    refused(enrolled, "download_failed", release=None)
    assert enrolled.sink.events == []


@pytest.mark.parametrize("at", [0, 100, len(SECOND.data) // 2, len(SECOND.data) - 1])
def test_a_bundle_with_one_bit_changed_is_refused(enrolled: EnrolledDevice, at: int) -> None:
    offer(enrolled, SECOND)
    enrolled.server.faults.append(Fault("/targets/", "corrupt", after=at))
    refused(enrolled, "bad_digest")


def test_a_download_without_end_is_cut_off(enrolled: EnrolledDevice) -> None:
    offer(enrolled, SECOND)
    enrolled.server.faults.append(Fault("/targets/", "endless"))
    refused(enrolled, "bad_digest")


def listed_as(bundle: BuiltBundle, data: bytes) -> BuiltBundle:
    """The same bundle with other bytes: a release engineer's mistake, signed into targets."""
    return dataclasses.replace(bundle, data=data)


def test_a_bundle_signed_by_another_key_is_refused(enrolled: EnrolledDevice) -> None:
    other = SECOND.what.build(ec.generate_private_key(ec.SECP256R1()))
    offer(enrolled, dataclasses.replace(other, key=SECOND.key))
    refused(enrolled, "bad_signature")


def test_a_file_changed_after_signing_is_refused(enrolled: EnrolledDevice) -> None:
    files = {**SECOND.files, "provenance.json": SECOND.files["provenance.json"].replace(b"null", b"nill")}
    manifest = json.loads(files["manifest.json"])
    manifest["files"]["provenance.json"]["sha256"] = hashlib.sha256(files["provenance.json"]).hexdigest()
    files["manifest.json"] = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    offer(enrolled, listed_as(dataclasses.replace(SECOND, files=files), pack(files)))
    refused(enrolled, "bad_signature")


@pytest.mark.parametrize(
    "data",
    [b"", b"no zip at all", SECOND.data[:-30], SECOND.data + b"tail", pack({"manifest.json": b"{}"})],
    ids=["empty", "text", "truncated", "tail", "incomplete"],
)
def test_what_is_no_bundle_is_refused(enrolled: EnrolledDevice, data: bytes) -> None:
    offer(enrolled, listed_as(SECOND, data))
    refused(enrolled, "bad_bundle")


@pytest.mark.parametrize("name", ["../../../etc/cron.d/evil", "/etc/passwd", "a/b", "..", "C:\\evil"])
def test_an_archive_that_climbs_out_of_its_folder_is_refused(enrolled: EnrolledDevice, name: str) -> None:
    buffer = io.BytesIO(SECOND.data)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(name, b"evil")
    offer(enrolled, listed_as(SECOND, buffer.getvalue()))
    refused(enrolled, "bad_bundle")


def test_a_newer_format_is_named(enrolled: EnrolledDevice) -> None:
    files = {**SECOND.files}
    manifest = json.loads(files["manifest.json"])
    manifest["format"] = 2
    files["manifest.json"] = json.dumps(manifest).encode()
    offer(enrolled, listed_as(SECOND, pack(files)))
    report = refused(enrolled, "newer_format")
    assert report.error is not None
    assert "Update" in report.error.advice


def test_a_runtime_that_is_too_old_is_named(enrolled: EnrolledDevice) -> None:
    @dataclasses.dataclass(frozen=True)
    class Demanding(SmallBundle):
        def manifest(self, files: dict[str, bytes]) -> Any:
            return dataclasses.replace(super().manifest(files), runtime={"onnxruntime": ">=99.1", "opset": 18})

    offer(enrolled, Demanding(version="2.0.0", release_number=2).build())
    refused(enrolled, "newer_runtime")


def test_another_manifest_than_the_release_keys_signed_is_refused(enrolled: EnrolledDevice) -> None:
    listed = SmallBundle(version="2.0.1", release_number=2).build()
    offer(enrolled, dataclasses.replace(listed, data=SECOND.data, files=SECOND.files))
    refused(enrolled, "bad_bundle")


def test_a_model_that_fails_its_golden_windows_is_refused(enrolled: EnrolledDevice) -> None:
    offer(enrolled, SmallBundle(version="2.0.0", release_number=2, golden_shift=2e-5).build())
    refused(enrolled, "golden_failed")


def test_a_model_that_does_not_load_is_refused(enrolled: EnrolledDevice) -> None:
    what = SmallBundle(version="2.0.0", release_number=2, extra=(("model.onnx", b"not a model"),))
    offer(enrolled, what.build())
    refused(enrolled, "golden_failed")


def test_a_model_whose_scores_are_no_numbers_is_refused(enrolled: EnrolledDevice) -> None:
    offer(enrolled, SmallBundle(version="2.0.0", release_number=2, bias=float("nan")).build())
    report = refused(enrolled, "golden_failed")
    assert report.error is not None
    assert report.error.fields["cause"] == "not_finite"


def test_a_refused_bundle_is_not_downloaded_again(enrolled: EnrolledDevice) -> None:
    offer(enrolled, SmallBundle(version="2.0.0", release_number=2, golden_shift=1e-3).build())
    refused(enrolled, "golden_failed")
    assert len([request for request in enrolled.server.requests if "/targets/" in request.path]) == 2


def test_a_release_that_is_not_listed_is_refused(enrolled: EnrolledDevice) -> None:
    enrolled.server.roll_out(2, previous=1)
    refused(enrolled, "release_missing")


def test_a_release_of_another_channel_is_refused(enrolled: EnrolledDevice) -> None:
    offer(enrolled, SmallBundle(version="2.0.0", release_number=2, channels=("beta",)).build())
    refused(enrolled, "wrong_channel")


def test_a_release_of_another_model_is_refused(enrolled: EnrolledDevice) -> None:
    offer(enrolled, SmallBundle(model="fans", version="2.0.0", release_number=2).build())
    refused(enrolled, "wrong_model")


def test_a_channel_of_another_model_is_refused(enrolled: EnrolledDevice) -> None:
    enrolled.server.roll_out(2, model="fans")
    refused(enrolled, "wrong_model", release=None)


def test_a_release_below_the_floor_is_refused(enrolled: EnrolledDevice) -> None:
    offer(enrolled, SECOND)
    enrolled.server.publish(floor={"pumps": 3})
    refused(enrolled, "below_floor")


def test_expired_metadata_keeps_the_bundle(enrolled: EnrolledDevice) -> None:
    offer(enrolled, SECOND)
    enrolled.server.lifetimes["timestamp"] *= -1
    enrolled.server.sign_timestamp()
    refused(enrolled, "metadata_expired", release=None)


def test_a_replayed_repository_keeps_the_bundle(enrolled: EnrolledDevice) -> None:
    old = enrolled.server.state()
    enrolled.server.roll_out(1)
    enrolled.sync()
    enrolled.server.metadata = old
    refused(enrolled, "metadata_rollback", release=None)


def test_recovery_is_remembered(enrolled: EnrolledDevice) -> None:
    enrolled.server.roll_out(2, previous=1)
    refused(enrolled, "release_missing")
    enrolled.server.roll_out(1)
    assert enrolled.sync().outcome.outcome == "unchanged"
    last = load_outcome(enrolled.device.home)
    assert last is not None
    assert (last.outcome, last.reason) == ("unchanged", None)


def test_progress_counts_every_byte(enrolled: EnrolledDevice) -> None:
    from edge_runtime.sync import synchronise

    offer(enrolled, SECOND)
    told: list[tuple[int, int]] = []
    synchronise(enrolled.device, enrolled.sink, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (len(SECOND.data), len(SECOND.data))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_bundle_that_claims_too_much_is_not_even_asked_for(enrolled: EnrolledDevice) -> None:
    enrolled.server.publish(SECOND)
    listed = enrolled.server.targets.targets[SECOND.path]
    listed.unrecognized_fields["custom"]["size_unpacked"] = 10 * 2**30
    enrolled.server.sign_targets()
    enrolled.server.roll_out(2, previous=1)
    refused(enrolled, "bad_bundle")
    assert not [request for request in enrolled.server.requests if SECOND.digest in request.path]


def test_a_floor_above_the_active_release_is_reported_and_scoring_goes_on(enrolled: EnrolledDevice) -> None:
    enrolled.server.publish(floor={"pumps": 2})
    enrolled.server.roll_out(2, previous=None, share=0)
    refused(enrolled, "below_floor", release=1)


def test_a_device_enrolled_for_another_model_changes_over(enrolled: EnrolledDevice) -> None:
    fans = SmallBundle(model="fans", version="7.0", release_number=7).build()
    enrolled.server.publish(fans)
    device = enrolled.device
    identity = dataclasses.replace(device.identity, model="fans")
    enrolled.device = dataclasses.replace(device, identity=identity)
    # Paused: a device keeps its active release, but the one of another model does not count as such.
    enrolled.server.roll_out(8, previous=7, model="fans", state="paused")
    assert enrolled.sync().outcome.outcome == "activated"
    assert enrolled.active_release() == 7
