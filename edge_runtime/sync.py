"""Sync: refresh trust, decide, fetch, verify, try out, activate. Whatever fails, the active bundle stays.

Example::

    report = synchronise(device, outbox, progress=None)
    if report.error is not None:
        print(report.error)
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from edge_runtime.bundle_store import BundleStore, Pointer, SlotEntry
from edge_runtime.contract.archive import DEFAULT_LIMITS
from edge_runtime.contract.bundle import GOLDEN_NAME, MODEL_NAME, Bundle, check_custom, check_signature, open_bundle
from edge_runtime.contract.manifest import Manifest
from edge_runtime.contract.release import choose_target
from edge_runtime.contract.result import AnyRecord
from edge_runtime.contract.rollout import Rollout, decide
from edge_runtime.device import EnrolledDevice, now_ms
from edge_runtime.download import Progress, download
from edge_runtime.errors import ContractError, ScoringError, StellaError, StorageError, TrustError
from edge_runtime.files import translated
from edge_runtime.trust import Target, View, refresh
from edge_runtime.update_outcome import UpdateOutcome, load_outcome, outcome_of, save_outcome
from edge_runtime.versions import check_runtime, runtime_versions

log = logging.getLogger(__name__)

# What a disk must hold beyond the bundle itself: file system blocks, the pointer, edge.db's next transactions.
SPARE_BYTES = 4 << 20


class EventSink(Protocol):
    """Where records for the server are put: the outbox."""

    def append(self, records: Iterable[AnyRecord]) -> None:
        """Store records, to be numbered there.

        Raises:
            StorageError: They could not be stored.
        """


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did.

    Attributes:
        outcome: How it ended.
        error: What ended it, or None.
        downloaded_bytes: Size of the bundle that was fetched, 0 when none was.
    """

    outcome: UpdateOutcome
    error: StellaError | None
    downloaded_bytes: int


@dataclass(slots=True)
class _Run:
    """What a sync has learnt so far, for the report of one that fails."""

    release: int | None = None
    downloaded: int = 0


def synchronise(device: EnrolledDevice, sink: EventSink, *, progress: Progress | None = None) -> SyncReport:
    """Bring the device to the release that its channel gives it.

    1. Refresh trust. 2. Decide by the contract. 3. Fetch what is not here. 4. Verify size, digest, archive, manifest,
    signature. 5. Run the golden windows on this machine. 6. Flip the pointer. 7. Remember and report how it ended.

    Args:
        device: The opened device; the caller holds the home's lock.
        sink: Where the report for the server goes.
        progress: Told (bytes here, bytes in all) while a bundle arrives.

    Returns:
        How it ended; trust, network, disk and model errors are in it.

    Raises:
        StorageError: Not even the outcome could be stored.
    """
    run = _Run()
    try:
        outcome = _update(device, run, progress)
        report = SyncReport(outcome, None, run.downloaded)
    except StellaError as error:
        report = SyncReport(outcome_of(error, run.release, now_ms()), error, run.downloaded)
    _remember(device, sink, report.outcome)
    return report


def _update(device: EnrolledDevice, run: _Run, progress: Progress | None) -> UpdateOutcome:
    view = refresh(device.home, device.identity, device.transport, device.files)  # 1
    pointer = _pointer(device)
    if pointer is not None:
        device.store.prune()  # what a kill left would take room until another release is activated
    wanted = _wanted(device, view, pointer)  # 2
    run.release = wanted
    if wanted is None:
        device.files.remove(device.home.staging)  # a release that was begun and is no longer offered
        return _unchanged(pointer)
    target = _chosen(device, view, wanted)
    if pointer is not None and pointer.active.digest == target.sha256 and _is_whole(device.store, pointer.active):
        device.files.remove(device.home.staging)
        return _unchanged(pointer)
    kept = _kept_slot(device.store, pointer, target)
    if kept is not None:
        # Going back needs no network: the previous bundle was verified when it came, and is still listed.
        _check_goals(device, device.store.open(kept).manifest)
        device.store.activate(kept)
    else:
        device.store.install(_fetch(device, target, run, progress))  # 3 to 6
    device.files.remove(device.home.staging)
    return UpdateOutcome("activated", None, wanted, now_ms(), f"Release {wanted} ({target.path}) is active.")


def _pointer(device: EnrolledDevice) -> Pointer | None:
    """Return what is active, or None when that cannot be known or is of a model this device was enrolled for before."""
    try:
        pointer = device.store.pointer()
    except StorageError as error:
        if error.fields.get("reason") != "slot_damaged":
            raise
        log.warning("%s", error)
        return None
    return pointer if pointer is not None and pointer.active.model == device.identity.model else None


def _wanted(device: EnrolledDevice, view: View, pointer: Pointer | None) -> int | None:
    identity = device.identity
    rollout = view.rollouts.get(identity.channel)
    _check_model(device, rollout)
    active = pointer.active.release_number if pointer is not None else None
    wanted = decide(rollout, identity.device_id, identity.cohort, active)
    if wanted is not None or pointer is None or active is None:
        return wanted
    # To keep what it has, a device needs it whole, and not below a floor that has risen since.
    keeps = active >= view.floor(identity.model) and _is_whole(device.store, pointer.active)
    return None if keeps else active


def _check_model(device: EnrolledDevice, rollout: Rollout | None) -> None:
    if rollout is not None and rollout.model != device.identity.model:
        raise TrustError(
            f"Channel {device.identity.channel} rolls out {rollout.model}; this device runs {device.identity.model}.",
            reason="wrong_model",
            advice="Correct the channel on the server, or enrol the device for the other model.",
        )


def _chosen(device: EnrolledDevice, view: View, release: int) -> Target:
    identity = device.identity
    path = choose_target(
        view.customs,
        model=identity.model,
        channel=identity.channel,
        cohort=identity.cohort,
        release=release,
        floor=view.floor(identity.model),
    )
    return view.targets[path]


def _kept_slot(store: BundleStore, pointer: Pointer | None, target: Target) -> SlotEntry | None:
    if pointer is None:
        return None
    for entry in (pointer.active, pointer.previous):
        if entry is not None and entry.digest == target.sha256 and _is_whole(store, entry):
            return entry
    return None


def _is_whole(store: BundleStore, entry: SlotEntry) -> bool:
    try:
        store.open(entry)
    except StorageError as error:
        log.warning("%s", error)
        return False
    return True


def _fetch(device: EnrolledDevice, target: Target, run: _Run, progress: Progress | None) -> Bundle:
    _check_room(device, target)
    data = download(
        device.transport,
        target,
        device.home.staging,
        device.files,
        deadline_seconds=device.download_deadline_seconds,
        progress=progress,
    )
    run.downloaded = len(data)
    bundle = _opened(data, target)
    check_custom(bundle, target.custom)
    check_signature(bundle, target.custom.signer)
    _check_goals(device, bundle.manifest)
    check_runtime(str(bundle.manifest.runtime.get("onnxruntime", ">=0")), runtime_versions().onnxruntime)
    self_test(bundle)
    return bundle


def _check_goals(device: EnrolledDevice, manifest: Manifest) -> None:
    """Refuse a model that its makers packed although it misses their goals, where this device's owner wants that."""
    if not device.refuse_below_goals or not manifest.below_goals:
        return
    raise TrustError(
        f"Release {manifest.release_number} misses goals of its makers: {' '.join(manifest.below_goals)}",
        reason="below_goals",
        advice="The active bundle stays; publish a better model, or set refuse_below_goals = false on this device.",
    )


def _opened(data: bytes, target: Target) -> Bundle:
    try:
        return open_bundle(data)
    except ContractError as error:
        raise ContractError(
            f"The bundle {target.path} cannot be used: {error.message}",
            advice=error.advice or "The active bundle stays; the release engineers must pack and publish it again.",
            **error.fields,
        ) from error


def self_test(bundle: Bundle) -> None:
    """Load a bundle's model and run its golden windows on this machine.

    Raises:
        ScoringError: It cannot be loaded, or gives other scores or verdicts than it should.
    """
    from edge_runtime.scoring import Scorer, check_golden  # onnxruntime: 0.2 s that most syncs need not pay

    try:
        check_golden(Scorer(bundle.files[MODEL_NAME]), bundle.golden, bundle.files[GOLDEN_NAME])
    except ScoringError as error:
        # One code for "does not work on this machine"; the sentence says in which way.
        raise ScoringError(error.message, reason="golden_failed", advice=error.advice, cause=error.reason) from error


def _check_room(device: EnrolledDevice, target: Target) -> None:
    limits = DEFAULT_LIMITS
    if target.length > limits.bundle_bytes or target.custom.size_unpacked > limits.unpacked_bytes:
        raise TrustError(
            f"The bundle {target.path} has {target.length:,} bytes, {target.custom.size_unpacked:,} unpacked; a device "
            f"takes at most {limits.bundle_bytes:,} and {limits.unpacked_bytes:,}.",
            reason="bad_bundle",
            advice="The active bundle stays; publish a smaller one.",
        )
    needed = target.length + target.custom.size_unpacked + SPARE_BYTES
    with translated(device.home.path):
        free = shutil.disk_usage(device.home.path).free
    if free < needed:
        raise StorageError(
            f"The disk of {device.home.path} has {free:,} bytes free; release {target.custom.release_number} "
            f"needs {needed:,}.",
            advice="Free some space and run `edge-runtime sync` again; the active bundle stays.",
            reason="disk_full",
        )


def _unchanged(pointer: Pointer | None) -> UpdateOutcome:
    if pointer is None:
        return UpdateOutcome("unchanged", None, None, now_ms(), "The channel has no release for this device yet.")
    release = pointer.active.release_number
    return UpdateOutcome("unchanged", None, release, now_ms(), f"Release {release} stays active.")


def _remember(device: EnrolledDevice, sink: EventSink, outcome: UpdateOutcome) -> None:
    last = load_outcome(device.home)
    active = _active_digest(device)
    announced = last.announced if last is not None else None
    if outcome.outcome == "unchanged" and active is not None and active != announced:
        # Killed between the flip and its record: told now, twice rather than never.
        outcome = replace(outcome, outcome="activated")
    quiet = outcome.outcome == "unchanged" and (last is None or last.outcome in ("unchanged", "activated"))
    if quiet or (outcome.outcome != "activated" and outcome.same_news(last)):
        return
    # A server out of reach is every day's weather: it shows in the status, and fills no outbox.
    weather = outcome.reason == "download_failed" and outcome.release is None
    if outcome.outcome != "unchanged" and not weather:
        sink.append([outcome.to_event(active)])
    announced = active if outcome.outcome == "activated" else announced
    save_outcome(device.home, replace(outcome, announced=announced), device.files)


def _active_digest(device: EnrolledDevice) -> str | None:
    try:
        pointer = device.store.pointer()
    except StorageError:
        return None
    return pointer.active.digest if pointer is not None else None
