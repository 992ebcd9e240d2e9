"""Bundles: reproducible, readable by the contract, accepted by the model-signing package."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from simulators.tiny_build import tiny_model, tiny_provenance
from sklearn.ensemble import IsolationForest

from edge_runtime.contract.archive import pack, unpack
from edge_runtime.contract.bundle import CARD_PAGE_NAME, REQUIRED_FILES, check_signature, open_bundle
from edge_runtime.errors import ContractError, StellaError, TrustError
from exporter import forest_to_onnx
from exporter.keys import ReleaseKey, create_key
from exporter.packing import PackedBundle, pack_model, runtime_needs
from exporter.verification import verify_bundle


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> ReleaseKey:
    return create_key(tmp_path_factory.mktemp("keys") / "targets.key", "targets", None)


@pytest.fixture(scope="module")
def packed(key: ReleaseKey) -> PackedBundle:
    return pack_model(tiny_model(), tiny_provenance(), key, name="fleet", version="1.0", release_number=1)


def test_bundle_opens_and_holds_every_required_file(packed: PackedBundle, key: ReleaseKey) -> None:
    opened = open_bundle(packed.data)
    assert set(opened.files) == REQUIRED_FILES | {CARD_PAGE_NAME}
    check_signature(opened, key.public.text)
    assert packed.path == "fleet/1.0/default.bundle"
    assert packed.digest == opened.digest
    assert packed.unpacked_bytes == sum(len(content) for content in opened.files.values())


def test_same_inputs_give_the_same_bytes(packed: PackedBundle, key: ReleaseKey) -> None:
    again = pack_model(tiny_model(), tiny_provenance(), key, name="fleet", version="1.0", release_number=1)
    assert again.data == packed.data


def test_time_of_packing_is_inside_only_when_given(packed: PackedBundle, key: ReleaseKey) -> None:
    assert "created" not in json.loads(unpack(packed.data)["provenance.json"])
    dated = pack_model(
        tiny_model(),
        tiny_provenance(created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        key,
        name="fleet",
        version="1.0",
        release_number=1,
    )
    assert json.loads(unpack(dated.data)["provenance.json"])["created"] == "2026-01-02T03:04:05Z"


def test_card_tells_a_person_what_the_model_is(packed: PackedBundle) -> None:
    card = unpack(packed.data)["MODEL_CARD.md"].decode()
    for part in ("# fleet 1.0", "Release 1", "| heat | degC | signal |", "1,234 readings", "| AUC | 0.9900 |"):
        assert part in card


def test_free_text_cannot_break_the_card(key: ReleaseKey) -> None:
    model = tiny_model("a|b <script>", notes=("one|two",))
    card = unpack(pack_model(model, tiny_provenance(), key, name="f", version="1", release_number=1).data)
    assert b"one\\|two" in card["MODEL_CARD.md"]


def test_parts_that_do_not_fit_are_refused_before_anybody_gets_them(key: ReleaseKey) -> None:
    with pytest.raises(ContractError, match="reference windows"):
        pack_model(tiny_model(reference_count=3), tiny_provenance(), key, name="f", version="1", release_number=1)
    with pytest.raises(ContractError, match="model name"):
        pack_model(tiny_model(), tiny_provenance(), key, name="Fleet!", version="1", release_number=1)


def test_model_signing_package_accepts_the_signature(packed: PackedBundle, key: ReleaseKey, tmp_path: Path) -> None:
    import model_signing.hashing
    import model_signing.verifying

    for name, content in unpack(packed.data).items():
        (tmp_path / "model" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "model" / name).write_bytes(content)
    (tmp_path / "key.pub").write_bytes(key.public.pem)
    signature = tmp_path / "model" / "model.sig"
    config = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "key.pub")
    config.set_hashing_config(model_signing.hashing.Config().set_ignored_paths(paths=[signature]))
    config.verify(tmp_path / "model", signature)
    (tmp_path / "model" / "model.onnx").write_bytes(b"another")
    with pytest.raises(ValueError, match="mismatch"):
        config.verify(tmp_path / "model", signature)


def test_verify_names_every_check(packed: PackedBundle, key: ReleaseKey) -> None:
    verified = verify_bundle(packed.data, keys=[key.public])
    assert len(verified.checks) == 3
    assert "4 golden windows" in verified.checks[-1]


def test_verify_refuses_another_key_and_no_key(packed: PackedBundle, tmp_path: Path) -> None:
    other = create_key(tmp_path / "other.key", "targets", None)
    with pytest.raises(TrustError, match="did not sign"):
        verify_bundle(packed.data, keys=[other.public])
    with pytest.raises(TrustError, match="No key"):
        verify_bundle(packed.data)


def test_any_changed_byte_is_refused_or_shows_in_the_digest(packed: PackedBundle, key: ReleaseKey) -> None:
    for position in range(0, len(packed.data), max(1, len(packed.data) // 40)):
        changed = bytearray(packed.data)
        changed[position] ^= 1
        # Some header bytes of a zip say nothing (times, versions): then TUF's digest of the archive tells.
        with contextlib.suppress(StellaError):
            verified = verify_bundle(bytes(changed), keys=[key.public])
            assert verified.bundle.digest != packed.digest
            assert verified.bundle.files == open_bundle(packed.data).files


def test_verify_refuses_a_signed_model_that_fails_its_golden_windows(key: ReleaseKey) -> None:
    model = tiny_model(golden_f32=tiny_model().golden_f32[:-4] + b"\x00\x00\x00\x00")
    packed = pack_model(model, tiny_provenance(), key, name="f", version="1", release_number=1)
    with pytest.raises(StellaError, match="golden"):
        verify_bundle(packed.data, keys=[key.public])


def test_verify_refuses_an_added_file(packed: PackedBundle, key: ReleaseKey) -> None:
    files = unpack(packed.data)
    with pytest.raises(ContractError, match="disagree"):
        verify_bundle(pack({**files, "extra.txt": b"hello"}), keys=[key.public])


def test_the_manifest_asks_for_the_operators_that_the_graph_has(packed: PackedBundle) -> None:
    """A graph without tree operators runs where ai.onnx.ml is missing, and must not be said to need it."""
    assert packed.manifest.runtime == {"onnxruntime": ">=1.20", "opset": 18}
    forest = IsolationForest(n_estimators=3, random_state=0).fit([[0.0], [1.0], [3.0]])
    assert runtime_needs(forest_to_onnx(forest).SerializeToString())["ai.onnx.ml"] == 5
