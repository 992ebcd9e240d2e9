"""The golden files pin every format: bytes that change here change for every device in the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.contract import archive, signature
from edge_runtime.contract.batch import decode_batch
from edge_runtime.contract.bundle import check_signature, open_bundle
from edge_runtime.contract.golden import GoldenSpec
from edge_runtime.contract.manifest import Manifest
from edge_runtime.contract.rollout import Rollout

from .goldens import STREAM, TEST_KEY, bundle_files, goldens, records

FOLDER = Path(__file__).resolve().parent.parent / "golden"


def _golden_bundle() -> bytes:
    files = bundle_files()
    return archive.pack({**files, "model.sig": signature.sign(files, TEST_KEY)})


@pytest.mark.parametrize("name", sorted(goldens()))
def test_formats_are_pinned(name: str, request: pytest.FixtureRequest) -> None:
    content = goldens()[name]
    if request.config.getoption("--update-goldens"):
        (FOLDER / name).write_bytes(content)
    assert (FOLDER / name).read_bytes() == content


def test_the_golden_bundle_opens_and_verifies(request: pytest.FixtureRequest) -> None:
    path = FOLDER / "fridge.bundle"
    if request.config.getoption("--update-goldens"):
        path.write_bytes(_golden_bundle())
    bundle = open_bundle(path.read_bytes())
    check_signature(bundle, signature.public_key_text(TEST_KEY.public_key()))
    assert {name: bundle.files[name] for name in bundle_files()} == bundle_files()
    assert bundle.manifest.cohort == "Kühl & Gefrier"


def test_packing_is_reproducible() -> None:
    assert _golden_bundle() == _golden_bundle()


def test_what_is_written_reads_back() -> None:
    files = bundle_files()
    manifest = Manifest.from_bytes(files["manifest.json"])
    assert manifest.to_bytes() == files["manifest.json"]
    assert manifest.unrecognized == {"note": "a field of a later format is kept"}
    assert GoldenSpec.from_bytes(files["golden.json"]).to_bytes() == files["golden.json"]
    batch = decode_batch((FOLDER / "batch.json").read_bytes())
    assert (batch.stream, list(batch.records), batch.refused) == (STREAM, records(), ())


def test_a_rollout_entry_fits_its_share_of_timestamp_json() -> None:
    from edge_runtime.contract import checks
    from edge_runtime.contract.rollout import MAX_ENTRY_BYTES

    entry = Rollout(2**31, "m" * 64, 2**31, 2**31, 10_000, "f" * 32, "rolled_back")
    assert len(checks.canonical(entry.to_dict())) <= MAX_ENTRY_BYTES
