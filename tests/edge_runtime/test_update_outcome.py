"""Outcomes: one reason code for every error, remembered whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.contract.result import Event
from edge_runtime.errors import (
    ContractError,
    InputError,
    ScoringError,
    StellaError,
    StorageError,
    TransportError,
    TrustError,
)
from edge_runtime.files import FileSystem
from edge_runtime.home import Home
from edge_runtime.update_outcome import UpdateOutcome, load_outcome, outcome_of, save_outcome
from edge_runtime.versions import check_runtime, runtime_versions


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (TrustError("x", reason="below_floor"), "refused", "below_floor"),
        (ScoringError("x", reason="golden_failed"), "refused", "golden_failed"),
        (ContractError("x"), "refused", "bad_bundle"),
        (ContractError("x", newer_format=True), "refused", "newer_format"),
        (TransportError("x", status=500), "failed", "download_failed"),
        (StorageError("x", reason="disk_full"), "failed", "disk_full"),
        (StorageError("x"), "failed", "storage_failed"),
        (InputError("x"), "failed", "input"),
    ],
)
def test_every_error_has_a_reason(error: StellaError, outcome: str, reason: str) -> None:
    got = outcome_of(error, 7, 1_700_000_000_000)
    assert (got.outcome, got.reason, got.release) == (outcome, reason, 7)
    event = got.to_event(None)
    assert Event.from_dict({**event.to_dict(), "sequence": 1}).detail["reason"] == reason


def test_a_long_sentence_still_fits_a_record() -> None:
    event = outcome_of(TrustError("x" * 5000, reason="bad_bundle"), None, 0).to_event("0" * 64)
    Event.from_dict({**event.to_dict(), "sequence": 1})


def test_an_outcome_is_remembered(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert load_outcome(home) is None
    outcome = UpdateOutcome("refused", "bad_digest", 3, 1_700_000_000_000, "Grün ist die Hoffnung.")
    save_outcome(home, outcome, FileSystem())
    assert load_outcome(home) == outcome


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"outcome": "won", "reason": null}', "[" * 100_000])
def test_a_damaged_memory_is_no_memory(tmp_path: Path, text: str) -> None:
    home = Home(tmp_path)
    home.last_update.write_text(text)
    assert load_outcome(home) is None


@pytest.mark.parametrize(
    ("bound", "installed", "fits"),
    [
        (">=1.20", "1.20.0", True),
        (">=1.20", "1.32.0", True),
        (">=1.20.0", "1.20", True),
        (">=1.20", "1.20.0rc1", True),
        (">=1.20", "1.19.9", False),
        (">=2", "1.99", False),
        (">=1.20", "", False),
        ("~=1.20", "1.20", False),
        ("", "1.20", False),
    ],
)
def test_a_version_bound_is_checked(bound: str, installed: str, fits: bool) -> None:
    if fits:
        check_runtime(bound, installed)
        return
    with pytest.raises(TrustError) as caught:
        check_runtime(bound, installed)
    assert caught.value.reason == "newer_runtime"


def test_the_device_knows_its_versions() -> None:
    versions = runtime_versions()
    assert versions.onnxruntime
    assert versions.edge_runtime
