"""What the signed metadata says now: which release each channel rolls out, and which bundle that is for whom.

A worker reads targets.json (up to 5 MB) once a change, not once a request: each request asks Postgres for the digest of
timestamp.json, which changes with every publish and every change of a rollout, and keeps what it knows while that
stays. So a roll-back counts from the next request on, in every worker.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from edge_runtime.contract.release import TargetCustom, choose_target, custom_of, floors
from edge_runtime.contract.rollout import Rollout, decide, parse_rollouts
from edge_runtime.errors import ContractError, StorageError, TrustError
from sync_server.errors import RequestError
from sync_server.repository import metadata

# One row: the digest, and the challengers of all channels (48 at most), which no metadata tells of.
_NOW = text("""
    SELECT (SELECT digest FROM tuf_metadata WHERE role = 'timestamp' ORDER BY version DESC LIMIT 1) AS digest,
           (SELECT jsonb_object_agg(channel, jsonb_build_array(release, share)) FROM challengers) AS challengers
""")


@dataclass(frozen=True, slots=True)
class Choice:
    """A bundle that scores.

    Attributes:
        channel: The channel that it was chosen for.
        path: Its target path.
        digest: SHA-256 of the archive, hex.
        custom: What targets.json says of it.
    """

    channel: str
    path: str
    digest: str
    custom: TargetCustom


@dataclass(frozen=True, slots=True)
class Challenger:
    """What is done with a share of a channel's requests.

    Attributes:
        release: The release that scores beside the channel's own, None to keep windows only.
        share: Requests in ten thousand.
    """

    release: int | None
    share: int


@dataclass(frozen=True, slots=True)
class Listing:
    """The repository at one moment.

    Attributes:
        digest: SHA-256 of the timestamp that it stands in, hex.
        rollouts: By channel.
        customs: By target path.
        digests: SHA-256 of the bundle by target path, hex.
        floors: Lowest release number by model.
    """

    digest: str
    rollouts: Mapping[str, Rollout]
    customs: Mapping[str, TargetCustom]
    digests: Mapping[str, str]
    floors: Mapping[str, int]

    def rollout(self, channel: str) -> Rollout:
        """Return a channel's rollout.

        Raises:
            RequestError: 404, there is none.
        """
        try:
            return self.rollouts[channel]
        except KeyError:
            raise RequestError(
                404, "no_rollout", f"Channel {channel!r} has no rollout, so nothing scores for it.",
                advice=f"Channels are: {', '.join(sorted(self.rollouts)) or 'none yet'}.",
            ) from None  # fmt: skip

    def channel_of(self, model: str) -> str:
        """Return the one channel that carries a model.

        Raises:
            RequestError: 404 there is none, 422 there are several.
        """
        found = sorted(channel for channel, rollout in self.rollouts.items() if rollout.model == model)
        if not found:
            raise RequestError(404, "model_unknown", f"No channel carries the model {model!r}.", advice="Check it.")
        if len(found) > 1:
            raise RequestError(
                422, "channel_needed", f"Several channels carry the model {model}.",
                advice=f"Name one of them: {', '.join(found)}.",
            )  # fmt: skip
        return found[0]

    def release_of(self, channel: str) -> int | None:
        """Return the release that a channel stands for as a whole: its newest, or where it was rolled back to."""
        rollout = self.rollout(channel)
        return rollout.previous if rollout.state == "rolled_back" else rollout.release

    def release_for(self, channel: str, device_id: str, cohort: str | None, active: int | None) -> int | None:
        """Return the release that a device decides to run, as the device itself would."""
        return decide(self.rollout(channel), device_id, cohort, active)

    def choose(self, channel: str, release: int | None, cohort: str | None, *, model: str | None = None) -> Choice:
        """Return the bundle of a release for a cohort: its own, else the default one.

        Args:
            channel: The channel.
            release: The release number, None when the rollout gives none.
            cohort: The cohort, None for the default bundle.
            model: The model that a device was enrolled for, which it would refuse to exchange; None: the channel's.

        Raises:
            RequestError: 404 no such channel, 409 with a device's own reason when nothing may run.
        """
        model = model or self.rollout(channel).model
        if release is None:
            raise RequestError(
                409, "no_release", f"The rollout of channel {channel} has no release here: it says to keep what is"
                " active, and nothing is.", advice="Ask again when the rollout has grown, or name a release.",
            )  # fmt: skip
        try:
            path = choose_target(
                self.customs, model=model, channel=channel, cohort=cohort, release=release,
                floor=self.floors.get(model, 0),
            )  # fmt: skip
        except TrustError as error:
            raise RequestError(409, error.reason, error.message, advice=error.advice) from error
        return Choice(channel, path, self.digests[path], self.customs[path])

    def choose_any(self, channel: str, release: int) -> Choice:
        """Return some bundle of a release that the channel may run: the default one, else a cohort's.

        Raises:
            RequestError: As ``choose``.
        """
        model = self.rollout(channel).model
        cohorts = {custom.cohort for custom in self._bundles(model, release)}
        return self.choose(channel, release, None if None in cohorts else min(filter(None, cohorts), default=None))

    def _bundles(self, model: str, release: int | None) -> Iterator[TargetCustom]:
        return (c for c in self.customs.values() if (c.model, c.release_number) == (model, release))


class Listings:
    """The newest listing, read again when the signed timestamp is another one. Safe to use from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: Listing | None = None

    def now(self, session: Session) -> tuple[Listing, dict[str, Challenger]]:
        """Return what holds now: the listing, and challengers by channel.

        Raises:
            RequestError: 409, nothing was published yet.
            StorageError: What is stored is damaged.
        """
        row = session.execute(_NOW).one()
        listing = self._newest
        if listing is None or listing.digest != row.digest:
            with self._lock:  # one thread reads, the others wait for what it finds
                listing = self._newest
                if listing is None or listing.digest != row.digest:
                    listing = self._newest = _read(session, row.digest)
        return listing, {name: Challenger(*pair) for name, pair in (row.challengers or {}).items()}


def _read(session: Session, digest: str | None) -> Listing:
    timestamp = metadata.current_timestamp(session)
    targets = metadata.current_targets(session)
    try:
        return Listing(
            digest or "",
            parse_rollouts(timestamp.unrecognized_fields),
            {path: custom_of(path, target.unrecognized_fields) for path, target in targets.targets.items()},
            {path: target.hashes["sha256"] for path, target in targets.targets.items()},
            floors(targets.unrecognized_fields),
        )
    except (ContractError, KeyError) as error:
        raise StorageError("The stored metadata is damaged.", advice="Restore the database.") from error


def needed(listing: Listing) -> list[Choice]:
    """Return the bundles that the channels may ask for now, those of the present releases before former ones."""
    found: dict[str, Choice] = {}
    for present in (True, False):
        for channel, rollout in sorted(listing.rollouts.items()):
            release = listing.release_of(channel) if present else rollout.previous
            for path, custom in sorted(listing.customs.items()):
                if (custom.model, custom.release_number) == (rollout.model, release) and channel in custom.channels:
                    digest = listing.digests[path]
                    found.setdefault(digest, Choice(channel, path, digest, custom))
    return list(found.values())
