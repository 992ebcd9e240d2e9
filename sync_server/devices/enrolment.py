"""Enrolment tokens: the counted, expiring, revocable secrets that let a device in.

A token is bound to a model and a channel, shown once inside its ``stella-enroll`` line, and stored as SHA-256. Nothing
here prints: the command line does.
"""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import quote

from sqlalchemy import select
from sqlalchemy.orm import Session

from edge_runtime.contract.enrolment import EnrolmentLine, check_url
from edge_runtime.contract.names import check_name
from edge_runtime.errors import InputError
from sync_server.access.audit import audit
from sync_server.access.models import AccessToken
from sync_server.access.tokens import issue_token, revoke_token
from sync_server.db import utc_now
from sync_server.devices.models import Enrolment

MAX_USES = 1_000_000
MAX_DAYS = 3_650
_LISTED = 200


def create_enrolment(
    session: Session,
    *,
    model: str,
    channel: str,
    uses: int,
    expires_days: int,
    url: str,
    root_digest: str,
    targets_version: int,
    actor: str,
    kind: str = "edge",
) -> EnrolmentLine:
    """Make an enrolment token and the line that carries it.

    Args:
        session: The open transaction.
        model: What the devices run.
        channel: The channel they follow.
        uses: How many devices the token lets in.
        expires_days: Days until it lets nobody in any more.
        url: The server as devices reach it.
        root_digest: SHA-256 of the current root metadata, hex: the device pins it.
        targets_version: Current version of the targets metadata; the device refuses older ones.
        actor: Who made it, for the audit trail.
        kind: What it lets in: ``edge`` devices, or ``demo`` ones (browsers).

    Returns:
        The line; ``str(line)`` is what an operator hands over. Its token is shown nowhere else.

    Raises:
        ContractError: A name or the URL breaks its rule.
        InputError: Uses or days are out of bounds.
    """
    check_name("model", model)
    check_name("channel", channel)
    check_url(url)
    if not 1 <= uses <= MAX_USES or not 1 <= expires_days <= MAX_DAYS:
        raise InputError(
            f"An enrolment token for {uses} devices and {expires_days} days cannot be made.",
            advice=f"Use 1 to {MAX_USES} uses and 1 to {MAX_DAYS} days.",
        )
    expires_at = utc_now() + timedelta(days=expires_days)
    issued = issue_token(session, "enr", name=f"{model[:48]} on {channel[:48]}", expires_at=expires_at, uses_left=uses)
    session.add(
        Enrolment(token_id=issued.id, model=model, channel=channel, uses_allowed=uses, created_by=actor, kind=kind)
    )
    detail: dict[str, object] = {
        "model": model, "channel": channel, "uses": uses, "expires_days": expires_days, "kind": kind
    }  # fmt: skip
    audit(session, actor, "enrolment.create", str(issued.id), detail)
    return EnrolmentLine(url.rstrip("/"), issued.token, root_digest, targets_version)


def browser_link(line: EnrolmentLine) -> str:
    """Return the address that enrols the browser which opens it.

    The line is the fragment, which browsers send to no server, so that its token is in no log.
    """
    return f"{line.url}/device/#enrol={quote(str(line), safe=':/')}"


def revoke_enrolment(session: Session, token_id: int, *, actor: str) -> None:
    """Take an enrolment token back; devices that it let in stay.

    Raises:
        InputError: No such enrolment token.
    """
    if session.get(Enrolment, token_id) is None:
        raise InputError(f"There is no enrolment token {token_id}.", advice="enrolment list shows the numbers.")
    revoke_token(session, token_id)
    audit(session, actor, "enrolment.revoke", str(token_id))


def list_enrolments(session: Session) -> list[dict[str, object]]:
    """Return the latest 200 enrolment tokens, newest first; the secrets themselves are stored nowhere."""
    rows = session.execute(
        select(Enrolment, AccessToken)
        .join(AccessToken, AccessToken.id == Enrolment.token_id)
        .order_by(Enrolment.token_id.desc())
        .limit(_LISTED)
    )
    return [
        {
            "id": token.id,
            "model": enrolment.model,
            "channel": enrolment.channel,
            "kind": enrolment.kind,
            "uses_allowed": enrolment.uses_allowed,
            "uses_left": token.uses_left,
            "expires_at": token.expires_at,
            "revoked": token.revoked_at is not None,
        }
        for enrolment, token in rows
    ]
