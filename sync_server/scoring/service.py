"""One scoring request from its body to its answer.

Example::

    choice = choose(listing, session, actor, asked)
    model = worker.models.get(choice)
    cut = windows_of(model, asked)
    body = answer(choice, model, cut, *score(model, asked, cut))
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from edge_runtime.errors import ScoringError
from sync_server.access.tokens import Actor
from sync_server.devices.models import Device
from sync_server.devices.service import bearer_device
from sync_server.errors import RequestError
from sync_server.scoring.listing import Challenger, Choice, Listing
from sync_server.scoring.requests import ScoreRequest

if TYPE_CHECKING:
    from sync_server.scoring.cutting import Cut
    from sync_server.scoring.inference import Judged
    from sync_server.scoring.loading import LoadedModel
    from sync_server.scoring.recording import Job

# More than most windows span, so that a device which sends what one verdict needs pays for one.
READINGS_A_WINDOW = 100


def choose(listing: Listing, session: Session, actor: Actor, asked: ScoreRequest) -> Choice:
    """Return the bundle that scores a request: the one that a device in its place would run.

    A device gets what the rollout of its own channel gives it. An operator gets a channel's newest release, a named
    release, or what the rollout gives a named device.

    Raises:
        RequestError: 401, 403, 404, 409 or 422 with what is wrong.
    """
    if actor.kind == "dev":
        return _for_device(listing, bearer_device(session, actor), asked)
    if asked.channel is None and asked.model is None:
        raise RequestError(
            422, "channel_needed", "The request names neither a channel nor a model.", advice="Name the channel."
        )
    channel = asked.channel or listing.channel_of(asked.model or "")
    model = listing.rollout(channel).model
    if asked.model not in (None, model):
        raise RequestError(
            409, "other_model", f"Channel {channel} carries the model {model}, not {asked.model}.",
            advice="Leave the model out, or name another channel.",
        )  # fmt: skip
    if asked.release is not None:
        return listing.choose(channel, asked.release, asked.cohort)
    if asked.device_id is None:
        return listing.choose(channel, listing.release_of(channel), asked.cohort)
    device = session.get(Device, asked.device_id)
    if device is None:
        raise RequestError(404, "device_not_found", "There is no such device.", advice="Check the id.")
    return _decided(listing, channel, device, asked.cohort)


def _for_device(listing: Listing, device: Device, asked: ScoreRequest) -> Choice:
    own = (asked.channel in (None, device.channel), asked.model in (None, device.model))
    if not all(own) or asked.device_id not in (None, device.id):
        raise RequestError(
            403, "not_yours",
            f"Device {device.id} is of model {device.model} on channel {device.channel} and may use no other.",
            advice="Leave channel, model and device_id out.",
        )  # fmt: skip
    if asked.release is not None:
        raise RequestError(
            403, "not_yours", "A device cannot choose its release; the channel's rollout does.",
            advice="Leave the release out.",
        )  # fmt: skip
    return _decided(listing, device.channel, device, asked.cohort)


def _decided(listing: Listing, channel: str, device: Device, cohort: str | None) -> Choice:
    cohort = device.cohort if cohort is None else cohort
    release = listing.release_for(channel, device.id, cohort, device.active_release)
    return listing.choose(channel, release, cohort, model=device.model)


def cost_of(asked: ScoreRequest) -> int:
    """Return what a request costs a device, in windows: reading and cutting a hundred readings counts as one."""
    readings = 0 if asked.readings is None else len(asked.readings.observed_at_ms)
    return max(1, len(asked.windows or ()), min(asked.last, readings), math.ceil(readings / READINGS_A_WINDOW))


def windows_of(model: LoadedModel, asked: ScoreRequest) -> Cut:
    """Return the windows that a request asks to be scored.

    Raises:
        RequestError: 422 for windows or readings that cannot be used.
    """
    from sync_server.scoring.cutting import cut

    return cut(asked, model.manifest)


def score(model: LoadedModel, asked: ScoreRequest, windows: Cut) -> tuple[Judged, dict[int, list[list[Any]]]]:
    """Score a request's windows with one model.

    Returns:
        The verdicts, and the contributions of anomalous windows by number.

    Raises:
        RequestError: 503, the model fails.
    """
    from sync_server.scoring.inference import contributions, judge

    try:
        judged = judge(model, windows)
        return judged, contributions(model, windows, judged) if asked.explain else {}
    except ScoringError as error:
        raise RequestError(
            503, "model_failed", f"Release {model.manifest.release_number} failed on these windows: {error.message}",
            advice="Send one window at a time to find the one that it fails on.",
        ) from error  # fmt: skip


def answer(choice: Choice, model: LoadedModel, cut: Cut, judged: Judged, parts: dict[int, Any]) -> dict[str, Any]:
    """Return the JSON body: which bundle scored, and an outcome for each window, in the request's order."""
    manifest, threshold = model.manifest, model.manifest.threshold
    places = {row: place for place, row in enumerate(judged.rows)}
    return {
        "bundle": {
            "digest": model.digest,
            "model": manifest.model,
            "version": manifest.version,
            "release_number": manifest.release_number,
            "cohort": manifest.cohort,
        },
        "channel": choice.channel,
        "threshold": {"anomaly_score": threshold.anomaly_score, "raw_score": threshold.raw_score},
        "ignored_signals": list(cut.ignored),
        "windows": [
            _outcome(judged, places.get(row), at_ms, parts.get(row)) for row, at_ms in enumerate(cut.observed_at_ms)
        ],
    }


def _outcome(judged: Judged, place: int | None, at_ms: int | None, parts: Any) -> dict[str, Any]:
    if place is None:
        return {"observed_at_ms": at_ms, "outcome": "warming_up"}
    verdicts = judged.verdicts
    return {
        "observed_at_ms": at_ms,
        "outcome": "scored",
        # str() gives the shortest digits that read back as the same float32, as devices write them.
        "anomaly_score": float(str(verdicts.anomaly_score[place])),
        "raw_score": float(str(verdicts.raw_score[place])),
        "is_anomaly": bool(verdicts.is_anomaly[place]),
        "contributions": parts,
    }


def setting_of(choice: Choice, asked: ScoreRequest, challengers: dict[str, Challenger]) -> Challenger | None:
    """Return what else is done with a request, None when a release was named: that is a person trying things."""
    return None if asked.release is not None else challengers.get(choice.channel)


def challenging(listing: Listing, choice: Choice, setting: Challenger | None) -> Choice | None:
    """Return the bundle that scores beside the chosen one, None when there is no other."""
    if setting is None or setting.release is None:
        return None
    try:
        other = listing.choose(choice.channel, setting.release, choice.custom.cohort)
    except RequestError:
        return None  # withdrawn since it was set: the windows are kept all the same
    return None if other.digest == choice.digest else other


def job_of(
    asked: ScoreRequest,
    choice: Choice,
    challenger: Choice | None,
    model: LoadedModel,
    cut: Cut,
    judged: Judged,
    actor: Actor,
) -> Job:
    """Return what the challenger's thread needs of a request that was answered."""
    from sync_server.scoring.recording import Job

    device_id = asked.device_id or (actor.subject if actor.kind == "dev" else None)
    return Job(asked, choice.channel, device_id, choice.custom.cohort, model, cut, judged, challenger)
