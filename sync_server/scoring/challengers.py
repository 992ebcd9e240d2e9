"""What is done with a share of a channel's scoring requests: set, read, removed, each with its audit entry."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy.orm import Session

from sync_server.access.audit import audit
from sync_server.db import utc_now
from sync_server.errors import RequestError
from sync_server.scoring.listing import Listing
from sync_server.scoring.models import ChallengerSetting


class SetChallenger(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``PUT /api/channels/<channel>/challenger``.

    Attributes:
        release: The release that scores beside the channel's own; null keeps windows and scores nothing more.
        share: Requests in ten thousand.
    """

    release: Annotated[int, Meta(ge=1, le=2**53)] | None
    share: Annotated[int, Meta(ge=1, le=10_000)]


def find_challenger(session: Session, channel: str) -> dict[str, Any]:
    """Return a channel's setting as JSON-ready fields.

    Raises:
        RequestError: 404, there is none.
    """
    row = session.get(ChallengerSetting, channel)
    if row is None:
        raise RequestError(
            404, "no_challenger", f"Nothing scores beside the releases of channel {channel!r}.",
            advice="Set a release and a share with PUT.",
        )  # fmt: skip
    return _fields(row)


def set_challenger(
    session: Session, listing: Listing, channel: str, wanted: SetChallenger, *, actor: str
) -> dict[str, Any]:
    """Set what scores beside a channel's releases, from the next request on in every worker.

    Raises:
        RequestError: 404 no such channel; 409 the release is not listed for it, is below the floor or is the
            channel's own.
    """
    rollout = listing.rollout(channel)
    if wanted.release is not None:
        listing.choose_any(channel, wanted.release)
        if wanted.release == listing.release_of(channel):
            raise RequestError(
                409, "same_release", f"Channel {channel} scores with release {wanted.release} already.",
                advice="Name another release of " + rollout.model + ".",
            )  # fmt: skip
    row = session.get(ChallengerSetting, channel, with_for_update=True)
    before = None if row is None else _fields(row)
    if row is None:
        row = ChallengerSetting(channel=channel)
        session.add(row)
    row.release, row.share, row.set_at, row.set_by = wanted.release, wanted.share, utc_now(), actor
    after = {"release": wanted.release, "share": wanted.share}
    former = None if before is None else {"release": before["release"], "share": before["share"]}
    audit(session, actor, "challenger.set", f"channel:{channel}", {"before": former, "after": after})
    session.flush()
    return _fields(row)


def remove_challenger(session: Session, channel: str, *, actor: str) -> None:
    """Let nothing score beside a channel's releases any more; removing it again changes nothing."""
    row = session.get(ChallengerSetting, channel, with_for_update=True)
    if row is not None:
        detail = {"release": row.release, "share": row.share}
        session.delete(row)
        audit(session, actor, "challenger.removed", f"channel:{channel}", detail)


def _fields(row: ChallengerSetting) -> dict[str, Any]:
    return {
        "channel": row.channel,
        "release": row.release,
        "share": row.share,
        "set_at": row.set_at,
        "set_by": row.set_by,
    }
