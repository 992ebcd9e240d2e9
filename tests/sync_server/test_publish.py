"""Publishing against a real database, with metadata made by python-tuf and real signed bundles."""

from __future__ import annotations

import dataclasses
import errno
import random
from collections.abc import Callable
from typing import Any
from unittest import mock

import obstore
import obstore.exceptions
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flask import Flask
from flask.testing import FlaskClient
from securesystemslib.signer import CryptoSigner
from simulators.bundles import BuiltBundle, SmallBundle
from simulators.release_engineer import Parts, ReleaseEngineer, in_days, multipart
from sqlalchemy import select
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Targets
from werkzeug.test import TestResponse

from sync_server.access.models import AuditEntry
from sync_server.db import Database
from sync_server.repository.models import StoredBundle, TufMetadata
from sync_server.repository.online_key import load_or_create, public_pem

Publish = Callable[[Parts], TestResponse]


@pytest.fixture
def engineer(app: Flask) -> ReleaseEngineer:
    return ReleaseEngineer(public_pem(load_or_create(app.extensions["config"].online_key_path)))


@pytest.fixture
def publish(client: FlaskClient, auth: Callable[..., dict[str, str]]) -> Publish:
    headers = auth("pub")
    return lambda parts: client.post("/api/publish", data=multipart(parts), headers=headers)


def bundle(**changes: Any) -> BuiltBundle:
    return SmallBundle(**changes).build()


def stored(database: Database) -> dict[str, Any]:
    """All that a publish may change."""
    with database.session() as session:
        files = {(row.role, row.version): row.digest for row in session.scalars(select(TufMetadata))}
        bundles = sorted(session.scalars(select(StoredBundle.digest)))
        trail = len(session.scalars(select(AuditEntry.id).where(AuditEntry.action.like("repository%"))).all())
    return {"files": files, "bundles": bundles, "trail": trail}


def test_first_publish_then_the_next(
    engineer: ReleaseEngineer,
    publish: Publish,
    client: FlaskClient,
    auth: Callable[..., dict[str, str]],
    database: Database,
) -> None:
    first = bundle()
    answer = publish({**engineer.sign_root(), **engineer.sign_targets(first)})
    assert answer.status_code == 201
    assert answer.json == {"targets_version": 1, "root_version": 1, "added": [first.path], "withdrawn": []}
    second = bundle(version="2.0.0", release_number=2)
    del engineer.targets.targets[first.path]
    answer = publish(engineer.sign_targets(second))
    assert answer.json == {"targets_version": 2, "root_version": 1, "added": [second.path], "withdrawn": [first.path]}
    state = client.get("/api/publish", headers=auth("pub")).json
    assert state == {"root_version": 1, "targets_version": 2, "online_key": engineer.online_pem, "channels": {}}
    with database.session() as session:
        trail = session.scalars(select(AuditEntry.action).order_by(AuditEntry.id)).all()
    assert trail == ["repository.publish", "repository.first_root", "repository.publish"]


def test_the_same_again_changes_nothing(engineer: ReleaseEngineer, publish: Publish, database: Database) -> None:
    parts = {**engineer.sign_root(), **engineer.sign_targets(bundle())}
    publish(parts)
    before = stored(database)
    answer = publish(parts)
    assert (answer.status_code, answer.json["added"]) == (200, [])
    assert stored(database) == before


def test_a_bundle_larger_than_the_parsers_pieces_is_taken(engineer: ReleaseEngineer, publish: Publish) -> None:
    """Several pieces of 64 KiB, with line breaks everywhere: the parser keeps some of one for the next."""
    large = bundle(extra=(("notes.bin", random.Random(1).randbytes(400_000)),))
    answer = publish({**engineer.sign_root(), **engineer.sign_targets(large)})
    assert answer.status_code == 201, answer.text


def test_versions_must_follow(engineer: ReleaseEngineer, publish: Publish) -> None:
    assert publish(engineer.sign_targets(bundle())).json["code"] == "no_repository"
    assert publish({**engineer.sign_root(), **engineer.sign_targets(bundle())}).status_code == 201
    engineer.targets.version = 3
    answer = publish(engineer.sign_targets())
    assert (answer.status_code, answer.json["code"], answer.json["expected"]) == (409, "wrong_version", 3)
    engineer.root.version = 2
    answer = publish(engineer.sign_root())
    assert (answer.status_code, answer.json["expected"]) == (409, 2)


def test_an_empty_server_takes_a_repository_with_a_history(engineer: ReleaseEngineer, publish: Publish) -> None:
    engineer.targets.version = 6
    parts = {**engineer.sign_root(), **engineer.sign_root(), **engineer.sign_targets(bundle())}
    answer = publish(parts)
    assert (answer.json["targets_version"], answer.json["root_version"]) == (7, 2)


def test_key_rotation(engineer: ReleaseEngineer, publish: Publish) -> None:
    """A new root key is accepted when the old and the new one sign; a new targets key needs new targets."""
    publish({**engineer.sign_root(), **engineer.sign_targets(bundle())})
    old_root, new_root = engineer.root_keys[0], CryptoSigner.generate_ecdsa()
    engineer.root.revoke_key(old_root.public_key.keyid, "root")
    engineer.root.add_key(new_root.public_key, "root")
    engineer.root_keys = [new_root]
    forged = publish(engineer.sign_root())
    assert (forged.status_code, forged.json["code"]) == (422, "bad_signature")
    engineer.root.version = 1
    answer = publish(engineer.sign_root(old_root))
    assert (answer.status_code, answer.json["root_version"], answer.json["targets_version"]) == (201, 2, 1)
    fresh = CryptoSigner.generate_ecdsa()
    engineer.root.revoke_key(engineer.targets_keys[0].public_key.keyid, "targets")
    engineer.root.add_key(fresh.public_key, "targets")
    engineer.targets_keys = [fresh]
    root = engineer.sign_root()
    assert publish(root).json["code"] == "bad_signature"  # the stored targets would no longer verify
    assert publish({**root, **engineer.sign_targets()}).status_code == 201


def test_thresholds_count(engineer: ReleaseEngineer, publish: Publish) -> None:
    second = CryptoSigner.generate_ecdsa()
    engineer.root.add_key(second.public_key, "targets")
    engineer.root.roles["targets"].threshold = 2
    root = engineer.sign_root()
    answer = publish({**root, **engineer.sign_targets(bundle())})
    assert (answer.status_code, answer.json["code"]) == (422, "bad_signature")
    engineer.targets_keys.append(second)
    engineer.targets.version = 0
    assert publish({**root, **engineer.sign_targets(bundle())}).status_code == 201


Bend = Callable[[ReleaseEngineer], Parts]


def _root(bend: Callable[[ReleaseEngineer], object]) -> Bend:
    """Bend root before it is signed."""

    def parts(engineer: ReleaseEngineer) -> Parts:
        bend(engineer)
        return {**engineer.sign_root(), **engineer.sign_targets(bundle())}

    return parts


def _targets(bend: Callable[[ReleaseEngineer], object]) -> Bend:
    """Bend targets before they are signed; the bundle is sent."""

    def parts(engineer: ReleaseEngineer) -> Parts:
        sent = bundle()
        engineer.list(sent)
        bend(engineer)
        root, targets = engineer.sign_root(), engineer.sign_targets()
        return {**root, **targets, f"targets/{sent.path}": sent.data}

    return parts


def _custom(**changes: Any) -> Bend:
    return _targets(lambda engineer: engineer.list(bundle(), **changes))


def _sent(change: Callable[[Parts], object]) -> Bend:
    """Bend what is sent after all was signed."""

    def parts(engineer: ReleaseEngineer) -> Parts:
        whole = {**engineer.sign_root(), **engineer.sign_targets(bundle())}
        change(whole)
        return whole

    return parts


PATH = "targets/pumps/1.0.0/default.bundle"


def _two_hashes(engineer: ReleaseEngineer) -> None:
    target = next(iter(engineer.targets.targets.values()))
    target.hashes["sha512"] = "0" * 128


def _two_numbers(engineer: ReleaseEngineer) -> None:
    engineer.list(bundle(cohort="north", release_number=2))


def _delegate(engineer: ReleaseEngineer) -> None:
    signer = engineer.targets_keys[0].public_key
    role = DelegatedRole("extra", [signer.keyid], 1, False, paths=["*"])
    engineer.targets.delegations = Delegations({signer.keyid: signer}, {"extra": role})


def _many(engineer: ReleaseEngineer) -> None:
    for number in range(1001):
        engineer.list(dataclasses.replace(bundle(), what=SmallBundle(version=f"v{number}", release_number=number + 1)))


REFUSED: dict[str, tuple[Bend, str]] = {
    "other online key": (_root(lambda e: e.root.revoke_key(e.online.keyid, "timestamp")), "online_key"),
    "second online key": (_root(lambda e: e.root.add_key(e.root_keys[0].public_key, "snapshot")), "online_key"),
    "online key may sign targets": (_root(lambda e: e.root.add_key(e.online, "targets")), "online_key"),
    "online key may sign root": (_root(lambda e: e.root.add_key(e.online, "root")), "online_key"),
    "root expired": (_root(lambda e: setattr(e.root, "expires", in_days(-1))), "expired"),
    "no consistent snapshots": (_root(lambda e: setattr(e.root, "consistent_snapshot", False)), "bad_root"),
    "root signed by another": (_root(lambda e: setattr(e, "root_keys", [CryptoSigner.generate_ecdsa()])), "bad_signature"),
    "targets signed by another": (
        _root(lambda e: setattr(e, "targets_keys", [CryptoSigner.generate_ecdsa()])),
        "bad_signature",
    ),
    "targets expired": (_targets(lambda e: setattr(e.targets, "expires", in_days(-1))), "expired"),
    "delegation": (_targets(_delegate), "contract"),
    "too many targets": (_targets(_many), "contract"),
    "two hashes": (_targets(_two_hashes), "contract"),
    "two numbers for a version": (_targets(_two_numbers), "contract"),
    "custom of another model": (_custom(model="fridges"), "contract"),
    "custom of another release": (_custom(release_number=9), "bad_bundle"),
    "custom with another size": (_custom(size_unpacked=1), "bad_bundle"),
    "custom without channels": (_custom(channels="stable"), "contract"),
    "signer without a key": (_custom(signer="AAAA"), "bad_key"),
    "floor that is no number": (_targets(lambda e: e.targets.unrecognized_fields.update(minimum_release={"pumps": "1"})), "contract"),
    "bundle missing": (_sent(lambda parts: parts.pop(PATH)), "bundle_missing"),
    "bundle not listed": (_sent(lambda parts: parts.update({"targets/pumps/9/default.bundle": b"x"})), "not_listed"),
    "bundle changed": (_sent(lambda parts: parts.update({PATH: parts[PATH][:-1] + b"x"})), "bad_bundle"),
    "bundle truncated": (_sent(lambda parts: parts.update({PATH: parts[PATH][:-100]})), "bad_bundle"),
    "targets is no JSON": (_sent(lambda parts: parts.update({"metadata/1.targets.json": b"<html>"})), "contract"),
    "targets is a root": (_sent(lambda parts: parts.update({"metadata/1.targets.json": parts["metadata/1.root.json"]})), "contract"),
    "path that climbs": (_sent(lambda parts: parts.update({"targets/../../etc/passwd": b"x"})), "not_listed"),
    "part of another kind": (_sent(lambda parts: parts.update({"metadata/timestamp.json": b"{}"})), "bad_part"),
}  # fmt: skip


@pytest.mark.parametrize("defect", REFUSED)
def test_refused_whole(defect: str, engineer: ReleaseEngineer, publish: Publish, database: Database) -> None:
    bend, code = REFUSED[defect]
    before = stored(database)
    answer = publish(bend(engineer))
    assert (answer.status_code, answer.json["code"]) == (422, code), answer.json
    assert answer.content_type == "application/problem+json"
    assert stored(database) == before


def test_bundle_signed_by_another_key(engineer: ReleaseEngineer, publish: Publish) -> None:
    sent = bundle()
    other = ec.generate_private_key(ec.SECP256R1())
    engineer.list(sent, signer=dataclasses.replace(sent, key=other).custom.signer)
    answer = publish({**engineer.sign_root(), **engineer.sign_targets(), f"targets/{sent.path}": sent.data})
    assert (answer.status_code, answer.json["code"]) == (422, "bad_signature")


def test_a_published_path_keeps_its_bytes(engineer: ReleaseEngineer, publish: Publish) -> None:
    publish({**engineer.sign_root(), **engineer.sign_targets(bundle())})
    answer = publish(engineer.sign_targets(bundle(bias=0.5)))
    assert (answer.status_code, answer.json["code"]) == (409, "bundle_changed")


def test_channels_of_a_known_bundle_change_without_its_file(engineer: ReleaseEngineer, publish: Publish) -> None:
    sent = bundle()
    publish({**engineer.sign_root(), **engineer.sign_targets(sent)})
    engineer.list(sent, channels=["stable", "beta"])
    assert publish(engineer.sign_targets()).status_code == 201
    engineer.list(sent, size_unpacked=5)
    assert publish(engineer.sign_targets()).json["code"] == "bad_bundle"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 507, "disk_full"),
        (obstore.exceptions.GenericError("Unable to write: No space left on device (os error 28)"), 507, "disk_full"),
        (OSError(errno.EIO, "Input/output error"), 503, "storage"),
    ],
)
def test_a_full_disk_changes_nothing(
    error: Exception, status: int, code: str, engineer: ReleaseEngineer, publish: Publish, database: Database
) -> None:
    before = stored(database)
    parts = {**engineer.sign_root(), **engineer.sign_targets(bundle())}
    with mock.patch.object(obstore, "put", side_effect=error):
        answer = publish(parts)
    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert stored(database) == before
    assert publish(parts).status_code == 201


def test_who_may_publish(client: FlaskClient, auth: Callable[..., dict[str, str]]) -> None:
    assert client.post("/api/publish").status_code == 401
    assert client.post("/api/publish", headers=auth("ops")).status_code == 403
    assert client.post("/api/publish", headers=auth("dev", subject="d")).status_code == 403
    assert client.post("/api/publish", headers=auth("pub"), json={}).status_code == 415
    empty = client.post("/api/publish", headers=auth("pub"), data=multipart({"metadata/x": b""}))
    assert empty.json["code"] == "bad_part"
    assert client.get("/api/publish", headers=auth("view")).status_code == 403


def test_targets_read_back_as_signed(engineer: ReleaseEngineer, publish: Publish, client: FlaskClient) -> None:
    parts = {**engineer.sign_root(), **engineer.sign_targets(bundle(), pumps=1)}
    publish(parts)
    body = client.get("/repository/metadata/1.targets.json").data
    assert body == parts["metadata/1.targets.json"]
    signed = Metadata[Targets].from_bytes(body).signed
    assert signed.unrecognized_fields["minimum_release"] == {"pumps": 1}
