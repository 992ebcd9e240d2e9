"""The repository folder: who may sign, what is listed, and what a TUF client makes of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from simulators.release_desk import NOW, ReleaseDesk
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from edge_runtime.contract.release import choose_target
from edge_runtime.errors import InputError, TrustError
from exporter.keys import create_key
from exporter.release import adopt_release, prepare_release, sign_release, summarise
from exporter.repository import MAX_TARGETS, create_repository, load_repository, renew_root
from exporter.tuf_files import metadata_files


@pytest.fixture
def desk(tmp_path: Path) -> ReleaseDesk:
    return ReleaseDesk(tmp_path)


def test_root_names_offline_and_online_keys_and_lasts_two_years(desk: ReleaseDesk) -> None:
    root = desk.repository.root
    assert root.consistent_snapshot
    assert root.expires == NOW + timedelta(days=730)
    online = desk.online.public.tuf.keyid
    assert {name: role.keyids for name, role in root.roles.items()} == {
        "root": [desk.root.public.tuf.keyid],
        "targets": [desk.targets.public.tuf.keyid],
        "snapshot": [online],
        "timestamp": [online],
    }
    assert all(key.scheme == "ecdsa-sha2-nistp256" for key in root.keys.values())


def test_release_lists_bundles_with_what_release_keys_bind(desk: ReleaseDesk) -> None:
    folder, summary = desk.prepare(1, "phone")
    assert summary.releases == ("fleet 1 (1.1)",)
    assert len(summary.added) == 2
    released = load_repository(folder)
    assert released.targets is not None
    assert released.targets.signed.expires == NOW + timedelta(days=365)
    customs = released.customs
    path = choose_target(customs, model="fleet", channel="stable", cohort="phone", release=1, floor=0)
    assert customs[path].signer == desk.targets.public.text
    assert customs[path].cohort == "phone"


def test_metadata_holds_no_floats(desk: ReleaseDesk) -> None:
    folder, _ = desk.prepare(1)

    def refuse(text: str) -> float:
        raise AssertionError(f"{text} is a float")

    for path in metadata_files(folder).values():
        json.loads(path.read_bytes(), parse_float=refuse)


def test_tuf_client_accepts_what_the_server_makes_of_it(desk: ReleaseDesk, tmp_path: Path) -> None:
    from securesystemslib.signer import CryptoSigner

    folder, summary = desk.prepare(1, "phone")
    files = {path.name: path.read_bytes() for path in metadata_files(folder).values()}
    online = CryptoSigner(desk.online.private, desk.online.public.tuf)
    expires = datetime.now(UTC) + timedelta(days=1)
    snapshot = Metadata(Snapshot(expires=expires, meta={"targets.json": MetaFile(1)}))
    timestamp = Metadata(Timestamp(expires=expires, snapshot_meta=MetaFile(1)))
    for metadata in (snapshot, timestamp):
        metadata.sign(online)
    files |= {"1.snapshot.json": snapshot.to_bytes(), "timestamp.json": timestamp.to_bytes()}

    class Fetcher(FetcherInterface):
        def _fetch(self, url: str):  # type: ignore[no-untyped-def]
            from tuf.api.exceptions import DownloadHTTPError

            name = url.rsplit("/", 1)[-1]
            if url.startswith("m/") and name in files:
                return iter([files[name]])
            if url.startswith("t/"):
                where, hashed = url.removeprefix("t/").rsplit("/", 1)
                return iter([(folder / "targets" / where / hashed.split(".", 1)[1]).read_bytes()])
            raise DownloadHTTPError("no such file", 404)

    (tmp_path / "trust").mkdir()
    (tmp_path / "got").mkdir()
    updater = Updater(
        str(tmp_path / "trust"), "m/", str(tmp_path / "got"), "t/", Fetcher(), bootstrap=files["1.root.json"]
    )
    updater.refresh()
    for path in summary.added:
        info = updater.get_targetinfo(path)
        assert info is not None
        assert Path(updater.download_target(info)).read_bytes() == (folder / "targets" / path).read_bytes()


def test_two_of_three_signers_each_on_their_own_machine(tmp_path: Path) -> None:
    roots = [create_key(tmp_path / f"root{i}.key", "root", None) for i in range(2)]
    targets = [create_key(tmp_path / f"targets{i}.key", "targets", None) for i in range(3)]
    online = create_key(tmp_path / "online.key", "targets", None)
    repository_folder = tmp_path / "repository"
    create_repository(
        repository_folder,
        root_keys=[key.public for key in roots],
        targets_keys=[key.public for key in targets],
        online_key=online.public,
        signers=[roots[0]],
        root_threshold=2,
        targets_threshold=2,
        now=NOW,
    )
    with pytest.raises(TrustError, match="carries 1 of 2 needed root signatures"):
        load_repository(repository_folder)
    assert sign_release(repository_folder, [roots[1]]) == ["1.root.json"]
    desk_bundles = ReleaseDesk.bundles(_desk_with(targets[0], tmp_path), 1)
    folder = tmp_path / "release"
    prepare_release(load_repository(repository_folder), desk_bundles, folder, channels=["stable"], now=NOW)
    assert summarise(folder).signatures == (0, 2)
    sign_release(folder, [targets[0]])
    sign_release(folder, [targets[0]])
    assert summarise(folder).signatures == (1, 2), "signing twice with one key counts once"
    assert not summarise(folder).complete
    assert sign_release(folder, [targets[2]]) == ["1.targets.json"]
    assert summarise(folder).complete
    assert load_repository(folder).targets is not None


def _desk_with(key: object, folder: Path) -> ReleaseDesk:
    desk = object.__new__(ReleaseDesk)
    desk.targets = key  # type: ignore[assignment]
    return desk


def test_key_that_root_does_not_name_signs_nothing(desk: ReleaseDesk, tmp_path: Path) -> None:
    folder, _ = desk.prepare(1, signed=False)
    stranger = create_key(tmp_path / "stranger.key", "targets", None)
    with pytest.raises(TrustError, match="None of the given keys"):
        sign_release(folder, [stranger])
    with pytest.raises(TrustError, match="0 of 1 needed targets"):
        load_repository(folder)


def test_bundle_signed_by_a_stranger_is_not_listed(desk: ReleaseDesk, tmp_path: Path) -> None:
    stranger = create_key(tmp_path / "stranger.key", "targets", None)
    with pytest.raises(TrustError, match="not signed by a targets key of root"):
        prepare_release(desk.repository, desk.bundles(1, key=stranger), tmp_path / "r", channels=["stable"], now=NOW)


def test_signer_refuses_a_bundle_that_was_changed(desk: ReleaseDesk) -> None:
    folder, summary = desk.prepare(1, signed=False)
    path = folder / "targets" / summary.added[0]
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(TrustError, match="is not the bundle that the metadata lists"):
        sign_release(folder, [desk.targets])


def test_unused_releases_are_withdrawn_and_used_ones_stay(desk: ReleaseDesk) -> None:
    for number in range(1, 5):
        folder, summary = desk.prepare(number, in_use=frozenset({("fleet", 1)}))
        adopt_release(desk.repository_folder, folder)
    assert summary.withdrawn == ("fleet/1.2/default.bundle",)
    assert sorted(custom.release_number for custom in desk.repository.customs.values()) == [1, 3, 4]


def test_nothing_is_withdrawn_while_nobody_knows_what_runs(desk: ReleaseDesk) -> None:
    for number in range(1, 5):
        folder, summary = desk.prepare(number)
        assert not summary.withdrawn
        adopt_release(desk.repository_folder, folder)
    assert desk.repository.next_release_number("fleet") == 5
    assert desk.repository.next_release_number("other") == 1


def test_floor_rises_and_stays(desk: ReleaseDesk, tmp_path: Path) -> None:
    first = tmp_path / "first"
    prepare_release(desk.repository, desk.bundles(3), first, channels=["stable"], now=NOW, minimum_release={"fleet": 3})
    sign_release(first, [desk.targets])
    adopt_release(desk.repository_folder, first)
    assert desk.repository.floors == {"fleet": 3}
    _, summary = desk.prepare(4)
    assert summary.floors == {"fleet": 3}
    with pytest.raises(InputError, match="cannot go down"):
        prepare_release(
            desk.repository, desk.bundles(5), tmp_path / "x", channels=["stable"], now=NOW, minimum_release={"fleet": 1}
        )


def test_numbers_and_versions_are_not_used_twice(desk: ReleaseDesk, tmp_path: Path) -> None:
    folder, _ = desk.prepare(2)
    adopt_release(desk.repository_folder, folder)
    with pytest.raises(InputError, match=r"Version 1\.2 of fleet is listed already"):
        prepare_release(desk.repository, desk.bundles(2), tmp_path / "again", channels=["stable"], now=NOW)
    with pytest.raises(InputError, match="not above all earlier ones"):
        desk.prepare(1)


@pytest.mark.parametrize(
    ("pick", "sentence"),
    [
        (lambda a, b: [], "No bundle"),
        (lambda a, b: a[1:], "no default bundle"),
        (lambda a, b: [*a, a[0]], "same cohort"),
        (lambda a, b: [*a, *b], "not one release"),
    ],
)
def test_bundles_that_are_not_one_release_are_refused(
    desk: ReleaseDesk, tmp_path: Path, pick: object, sentence: str
) -> None:
    bundles = pick(desk.bundles(1, "phone"), desk.bundles(2))  # type: ignore[operator]
    with pytest.raises(InputError, match=sentence):
        prepare_release(desk.repository, bundles, tmp_path / "r", channels=["stable"], now=NOW)


def test_more_targets_than_a_device_reads_are_refused(
    desk: ReleaseDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_TARGETS == 1000
    monkeypatch.setattr("exporter.release.MAX_TARGETS", 1)
    with pytest.raises(InputError, match="at most 1 are allowed"):
        desk.prepare(1, "phone")


def test_one_key_for_two_parts_is_refused(desk: ReleaseDesk, tmp_path: Path) -> None:
    for root, targets, online in [
        (desk.root, desk.root, desk.online),
        (desk.root, desk.targets, desk.targets),
        (desk.root, desk.targets, desk.root),
    ]:
        with pytest.raises(InputError, match="two parts"):
            create_repository(
                tmp_path / "x",
                root_keys=[root.public],
                targets_keys=[targets.public],
                online_key=online.public,
                signers=[root],
                now=NOW,
            )


def test_threshold_above_the_number_of_keys_is_refused(desk: ReleaseDesk, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 targets signatures are asked for, with 1"):
        create_repository(
            tmp_path / "x",
            root_keys=[desk.root.public],
            targets_keys=[desk.targets.public],
            online_key=desk.online.public,
            signers=[desk.root],
            targets_threshold=2,
            now=NOW,
        )


def test_repository_is_not_overwritten(desk: ReleaseDesk) -> None:
    with pytest.raises(InputError, match="holds a repository already"):
        create_repository(
            desk.repository_folder,
            root_keys=[desk.root.public],
            targets_keys=[desk.targets.public],
            online_key=desk.online.public,
            signers=[desk.root],
            now=NOW,
        )


def test_renewed_root_is_signed_by_old_and_new_and_changes_the_online_key(desk: ReleaseDesk, tmp_path: Path) -> None:
    other = create_key(tmp_path / "online2.key", "targets", None)
    renew_root(desk.repository, signers=[desk.root], online_key=other.public, now=NOW + timedelta(days=100))
    repository = desk.repository
    assert len(repository.roots) == 2
    assert repository.root.roles["timestamp"].keyids == [other.public.tuf.keyid]
    assert repository.root.expires == NOW + timedelta(days=830)
    folder, _ = desk.prepare(1)
    assert ("root", 2) in metadata_files(folder)


def test_expiry_is_told_sixty_days_ahead(desk: ReleaseDesk) -> None:
    assert desk.repository.warnings(NOW) == []
    (warning,) = desk.repository.warnings(NOW + timedelta(days=680))
    assert "root metadata expires on 2028-10-31" in warning


@pytest.mark.parametrize("change", ["truncated", "edited", "renamed"])
def test_damaged_metadata_is_refused(desk: ReleaseDesk, change: str) -> None:
    path = desk.repository_folder / "metadata" / "1.root.json"
    content = path.read_bytes()
    if change == "truncated":
        path.write_bytes(content[:100])
    elif change == "edited":
        value = json.loads(content)
        value["signed"]["expires"] = "2099-01-01T00:00:00Z"
        path.write_text(json.dumps(value))
    else:
        path.with_name("1.targets.json").write_bytes(content)
    with pytest.raises(TrustError):
        load_repository(desk.repository_folder)


def test_release_of_another_repository_is_not_adopted(desk: ReleaseDesk, tmp_path: Path) -> None:
    folder, _ = ReleaseDesk(tmp_path / "elsewhere").prepare(1)
    with pytest.raises(InputError, match="another repository"):
        adopt_release(desk.repository_folder, folder)
    assert desk.repository.targets is None


def test_empty_folder_is_no_repository(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="repository create"):
        load_repository(tmp_path)


def test_unknown_fields_of_targets_are_kept(desk: ReleaseDesk) -> None:
    folder, _ = desk.prepare(1, signed=False)
    path = metadata_files(folder)["targets", 1]
    metadata = Metadata[Targets].from_bytes(path.read_bytes())
    metadata.signed.unrecognized_fields["future"] = {"x": 1}
    path.write_bytes(metadata.to_bytes())
    sign_release(folder, [desk.targets])
    adopt_release(desk.repository_folder, folder)
    again, _ = desk.prepare(2)
    targets = Metadata[Targets].from_bytes(metadata_files(again)["targets", 2].read_bytes())
    assert targets.signed.unrecognized_fields["future"] == {"x": 1}
    assert Metadata[Root].from_bytes(metadata_files(again)["root", 1].read_bytes()).signed == desk.repository.root


def test_list_is_signed_anew_for_another_year(desk: ReleaseDesk, tmp_path: Path) -> None:
    adopt_release(desk.repository_folder, desk.prepare(1)[0])
    later = NOW + timedelta(days=300)
    folder = tmp_path / "renewed"
    summary = prepare_release(desk.repository, [], folder, channels=[], now=later, renew=True)
    assert not summary.added
    assert not summary.withdrawn
    sign_release(folder, [desk.targets])
    adopt_release(desk.repository_folder, folder)
    targets = desk.repository.targets
    assert targets is not None
    assert targets.signed.version == 2
    assert targets.signed.expires == later + timedelta(days=365)
    assert list(targets.signed.targets) == ["fleet/1.1/default.bundle"]


def test_stolen_targets_key_is_replaced(desk: ReleaseDesk, tmp_path: Path) -> None:
    adopt_release(desk.repository_folder, desk.prepare(1)[0])
    new = create_key(tmp_path / "new.key", "targets", None)
    renew_root(desk.repository, signers=[desk.root], now=NOW, targets_keys=[new.public])
    with pytest.raises(TrustError, match="0 of 1 needed targets"):
        load_repository(desk.repository_folder)
    between = load_repository(desk.repository_folder, strict=False)
    folder = tmp_path / "renewed"
    prepare_release(between, [], folder, channels=[], now=NOW, renew=True)
    with pytest.raises(TrustError, match="None of the given keys"):
        sign_release(folder, [desk.targets])
    sign_release(folder, [new])
    adopt_release(desk.repository_folder, folder)
    # Bundles keep the signature and the signer that they were published with.
    assert {custom.signer for custom in desk.repository.customs.values()} == {desk.targets.public.text}
    with pytest.raises(TrustError, match="not signed by a targets key of root"):
        desk.prepare(2)
    bundles = desk.bundles(3, key=new)
    prepare_release(desk.repository, bundles, tmp_path / "r3", channels=["stable"], now=NOW)


def test_root_key_is_replaced_with_signatures_of_both(desk: ReleaseDesk, tmp_path: Path) -> None:
    new = create_key(tmp_path / "new.key", "root", None)
    renew_root(desk.repository, signers=[desk.root], now=NOW, root_keys=[new.public])
    with pytest.raises(TrustError, match="0 of 1 needed root"):
        load_repository(desk.repository_folder)
    assert sign_release(desk.repository_folder, [new]) == ["2.root.json"]
    assert desk.repository.root.roles["root"].keyids == [new.public.tuf.keyid]
    with pytest.raises(InputError, match="two parts"):
        renew_root(desk.repository, signers=[new], now=NOW, targets_keys=[new.public])
