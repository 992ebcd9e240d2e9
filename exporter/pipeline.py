"""``exporter build`` as a list: telemetry in, signed bundles out, published and rolled out when asked.

Whatever can be refused is refused before training: keys, repository, server, names. Each step returns a value and
knows nothing of the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from edge_runtime.contract.names import check_name
from edge_runtime.contract.rollout import Rollout
from edge_runtime.errors import InputError
from exporter.built import Build, Progress
from exporter.channels import start_rollout
from exporter.config import ModelSpec
from exporter.errors import GoalsMissedError
from exporter.files import check_folder, write_bytes
from exporter.keys import ReleaseKey
from exporter.packing import PackedBundle, pack_model
from exporter.provenance import Provenance
from exporter.publish import Published, ServerState, publish_release, server_state, update_repository
from exporter.release import ReleaseSummary, adopt_release, prepare_release, sign_release, summarise
from exporter.repository import Repository, load_repository
from exporter.server import Server

T = TypeVar("T")
BUNDLES = "bundles"


@dataclass(frozen=True, slots=True)
class ReleaseOptions:
    """What becomes of the models.

    Attributes:
        out: Folder for bundles and the release folder.
        key: The targets key that signs.
        now: When metadata begins to be valid.
        repository: Repository folder, or None to stop after packing.
        server: Where to publish, or None to stop after signing.
        channel: The channel of the rollout; None: the first that the release is made for.
        share: Ten-thousandths of the channel's devices that get it at once; None: no rollout.
        release_number: None: one more than the last.
        version: Label; None: the release number.
        created: Written into provenance.json when given.
        source: Revision of the settings and data, written into provenance.json when given.
        keep: Newest releases that stay listed although no channel runs them.
        allow_below_goals: Whether a model that misses its goals is packed, with them in its manifest.
    """

    out: Path
    key: ReleaseKey
    now: datetime
    repository: Path | None = None
    server: Server | None = None
    channel: str | None = None
    share: int | None = None
    release_number: int | None = None
    version: str | None = None
    created: datetime | None = None
    source: str | None = None
    keep: int = 2
    allow_below_goals: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a build made: models, bundles (in the same order) and how far the release went, with seconds by step."""

    spec: ModelSpec
    build: Build
    bundles: tuple[PackedBundle, ...]
    release: ReleaseSummary | None
    published: Published | None
    rollout: Rollout | None
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Desk:
    """What was looked up before training: the repository as it stands, the server's state, number and label."""

    repository: Repository | None
    state: ServerState | None
    release_number: int
    version: str


class _Stopwatch:
    """Seconds by step, and the progress of the steps that have no parts."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    def run(self, step: str, work: Callable[[], T]) -> T:
        if self._progress is not None:
            self._progress(step, 0.0)
        begun = time.perf_counter()
        result = work()
        self.seconds[step] = round(time.perf_counter() - begun, 3)
        if self._progress is not None:
            self._progress(step, 1.0)
        return result


def build_release(
    spec: ModelSpec,
    options: ReleaseOptions,
    *,
    train: Callable[[ModelSpec, Progress | None], Build],
    progress: Progress | None = None,
) -> Outcome:
    """Train, pack, sign, publish and roll out, as far as the options go.

    Args:
        spec: The settings.
        options: What becomes of the models.
        train: Makes the models; ``exporter.model_build.build_models`` but for tests.
        progress: Called with a step's name and the share of it that is done.

    Returns:
        What was made.

    Raises:
        GoalsMissedError: A model misses its goals; nothing was packed.
        StellaError: Any step refused; nothing was published unless the sentence says so.
    """
    watch = _Stopwatch(progress)
    desk = watch.run("look up", lambda: look_up(spec.name, spec.release.channels, options))
    build = watch.run("train", lambda: train(spec, progress))
    bundles = watch.run("pack", lambda: pack_build(spec.name, spec.to_dict(), build, options, desk))
    if desk.repository is None:
        return Outcome(spec, build, bundles, None, None, None, watch.seconds)
    release = watch.run("sign", lambda: prepare_and_sign(spec, bundles, options, desk))
    published = rollout = None
    if options.server is not None and release.complete:
        published = watch.run("publish", lambda: publish_and_adopt(options, release))
        rollout = watch.run("roll out", lambda: roll_out(spec, options, desk))
    warnings = tuple(desk.repository.warnings(options.now))
    return Outcome(spec, build, bundles, release, published, rollout, watch.seconds, warnings)


def _check_goals(build: Build) -> None:
    missed = [f"{model.cohort or 'default'}: {goal}" for model in build.models for goal in model.below_goals]
    if missed:
        raise GoalsMissedError(
            f"Nothing was packed, for goals are missed. {' '.join(missed)}",
            advice="Change the settings ('exporter compare' helps), or give --allow-below-goals.",
            missed=missed,
        )


def look_up(model: str, channels: tuple[str, ...], options: ReleaseOptions) -> Desk:
    """Find number, label and repository of the next release, and refuse now what would be refused later.

    Raises:
        InputError: Options that do not go together, or a number that is taken.
        TrustError: The repository does not verify.
        TransportError: The server does not answer.
        StorageError: The output folder cannot be written.
    """
    check_folder(options.out)
    if options.server is not None and options.repository is None:
        raise InputError("Publishing needs the repository folder.", advice="Give --repository.")
    if options.channel is not None and options.channel not in channels:
        raise InputError(
            f"The release is not made for channel {options.channel}.",
            advice=f"Add it to channels in model.toml ({', '.join(channels)}), or name one of these.",
        )
    repository = state = None
    if options.repository is not None:
        repository = load_repository(options.repository, strict=False)
    if options.server is not None and repository is not None:
        state = server_state(options.server)
        # Somebody else may have published since: then their numbers count.
        if state.targets_version or state.root_version > len(repository.roots):
            repository = update_repository(options.server, repository)
    following = 1 if repository is None else repository.next_release_number(model)
    number = options.release_number or following
    if repository is not None and number < following:
        raise InputError(
            f"Release number {number} of {model} is not above all earlier ones.",
            advice=f"Leave --release-number out, or give {following} or higher.",
        )
    return Desk(repository, state, number, check_name("version", options.version or str(number)))


def pack_build(
    name: str, settings: dict[str, Any], build: Build, options: ReleaseOptions, desk: Desk
) -> tuple[PackedBundle, ...]:
    """Pack every model of a build and write the bundles to ``OUT/bundles/MODEL/VERSION/``.

    Raises:
        GoalsMissedError: A model misses its goals, and that is not allowed.
        ContractError: A name breaks its rule.
        StorageError: The bundles cannot be written.
    """
    if not options.allow_below_goals:
        _check_goals(build)
    provenance = Provenance(
        data_digest=build.data_digest,
        readings=build.readings,
        devices=build.devices,
        settings=settings,
        created=options.created,
        source=options.source,
    )
    packed = tuple(
        pack_model(model, provenance, options.key, name=name, version=desk.version, release_number=desk.release_number)
        for model in build.models
    )
    for bundle in packed:
        write_bytes(options.out / BUNDLES / bundle.path, bundle.data)
    return packed


def prepare_and_sign(
    spec: ModelSpec, bundles: tuple[PackedBundle, ...], options: ReleaseOptions, desk: Desk
) -> ReleaseSummary:
    """Write the release folder ``OUT/release-NUMBER`` and sign it with the key at hand.

    Raises:
        InputError: The release does not fit the repository, or the folder is taken.
        TrustError: The key is none of the repository's.
        StorageError: The folder cannot be written.
    """
    if desk.repository is None:
        raise InputError("A release needs the repository folder.", advice="Give --repository.")
    folder = options.out / f"release-{desk.release_number}"
    prepare_release(
        desk.repository,
        [bundle.data for bundle in bundles],
        folder,
        channels=spec.release.channels,
        now=options.now,
        keep=options.keep,
        in_use=None if desk.state is None else desk.state.in_use,
    )
    sign_release(folder, [options.key])
    return summarise(folder, desk.repository.customs)


def publish_and_adopt(options: ReleaseOptions, release: ReleaseSummary) -> Published:
    """Send the release folder, then make the repository folder what the server holds.

    Raises:
        TransportError: The server did not take it.
        StorageError: It took it, but the repository folder cannot be written.
    """
    if options.server is None or options.repository is None:
        raise InputError("Publishing needs a server and the repository folder.", advice="Give --publish.")
    published = publish_release(options.server, release.folder)
    adopt_release(options.repository, release.folder)
    return published


def roll_out(spec: ModelSpec, options: ReleaseOptions, desk: Desk) -> Rollout | None:
    """Start the rollout when a share was asked for.

    Raises:
        TransportError: The server refused; the release itself stays published.
    """
    if options.share is None or options.server is None:
        return None
    channel = options.channel or spec.release.channels[0]
    return start_rollout(options.server, channel, spec.name, desk.release_number, options.share)
