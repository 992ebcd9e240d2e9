"""Devices: enrolled once, known by their token, telling how they are.

Every function takes an open transaction and commits nothing. What a device may do ends with its token: a revoked device
cannot upload, and cannot come back under the same installation.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from edge_runtime.errors import ContractError, InputError
from sync_server.access.audit import audit
from sync_server.access.models import AccessToken
from sync_server.access.tokens import Actor, issue_token, revoke_tokens_of
from sync_server.db import lock_for_transaction, utc_now
from sync_server.devices.models import Device, Enrolment
from sync_server.devices.requests import MAX_STATUS_BYTES, DeviceStatus, Enrolled, EnrolRequest
from sync_server.errors import RequestError


def enrol(session: Session, actor: Actor, request: EnrolRequest) -> Enrolled:
    """Let a device in, or give a known installation a fresh token.

    1. The bearer's token is an enrolment token that is neither revoked nor expired (the guard checked that).
    2. A known installation keeps its device id; with the token it came with before, that costs no use, so that an
       answer lost on the way can be asked for again. Anything else costs one use.
    3. The device's former token ends: one device, one live token.

    Args:
        session: The open transaction.
        actor: The bearer of the enrolment token.
        request: The checked body.

    Raises:
        RequestError: 401 when the token is bound to nothing, 403 when it is used up, was made for another kind of
            device, or the device is revoked, 409 when the installation belongs to another model or channel.
    """
    # Locks in one order, token before installation: two devices that come with one token count one after the other,
    # and two requests of one installation make one device, whatever tokens they bring.
    token = session.get(AccessToken, actor.token_id, with_for_update=True)
    enrolment = session.get(Enrolment, actor.token_id)
    if token is None or enrolment is None:
        raise RequestError(
            401, "token_unknown", "The enrolment token is bound to no model.", advice="Ask for a new enrolment line."
        )
    _check_kind(enrolment, request)
    lock_for_transaction(session, f"installation:{request.installation_id}")
    device = session.scalars(
        select(Device).where(Device.installation_id == request.installation_id).with_for_update()
    ).one_or_none()
    if device is None or device.enrolment_id != enrolment.token_id:
        _spend(token)
    created = device is None
    device = _new_device(session, enrolment, request) if device is None else _known_device(device, enrolment, request)
    session.flush()
    revoke_tokens_of(session, "dev", device.id)
    issued = issue_token(session, "dev", name=f"device {device.id}", subject=device.id)
    action = "device.enrol" if created else "device.enrol_again"
    audit(session, actor.label, action, device.id, {"enrolment": enrolment.token_id, "kind": request.kind})
    return Enrolled(device.id, issued.token, enrolment.model, enrolment.channel, created=created)


def revoke_device(session: Session, device_id: str, *, actor: str) -> None:
    """Shut a device out: its token ends, and its installation cannot enrol again. Its results stay.

    Raises:
        InputError: No such device.
    """
    device = _locked_device(session, device_id)
    device.revoked_at = device.revoked_at or utc_now()
    revoke_tokens_of(session, "dev", device_id)
    audit(session, actor, "device.revoke", device_id)


def forget_clone(session: Session, device_id: str, *, actor: str) -> None:
    """Take the mark of a clone off a device, once a person has seen to it that one home runs in one place.

    Raises:
        InputError: No such device.
    """
    device = _locked_device(session, device_id)
    audit(session, actor, "device.forget_clone", device_id, {"cloned_at": str(device.cloned_at)})
    device.cloned_at = None


def _locked_device(session: Session, device_id: str) -> Device:
    device = session.get(Device, device_id, with_for_update=True)
    if device is None:
        raise InputError(f"There is no device {device_id!r}.", advice="Its id is on its page of the dashboard.")
    return device


def bearer_device(session: Session, actor: Actor) -> Device:
    """Return the device behind a device token that the guard let in.

    Raises:
        RequestError: 401 when the token belongs to no device.
    """
    device = session.get(Device, actor.subject or "")
    if device is None:
        raise RequestError(
            401, "device_unknown", "The token belongs to no device of this server.", advice="Enrol the device again."
        )
    return device


def store_status(device: Device, body: Mapping[str, Any]) -> None:
    """Keep what a device says of itself: the parts that lists need in columns, the whole document beside them.

    Raises:
        ContractError: A field is missing, of another type or out of bounds, or the document is too large.
    """
    status = DeviceStatus.from_dict(body)
    device.status = _storable(body)
    device.status_at = device.last_seen_at = utc_now()
    device.cohort = status.cohort
    device.active_bundle = status.active_bundle
    device.active_release = status.active_release
    device.active_version = status.active_version
    device.outbox_records = status.outbox_records
    device.dead_letters = status.dead_letters
    device.stale = status.stale
    device.update_outcome = status.update_outcome
    device.update_reason = status.update_reason


def _check_kind(enrolment: Enrolment, request: EnrolRequest) -> None:
    """Refuse a browser with a line for devices, which would then count in rollouts, and the other way round."""
    if request.kind != enrolment.kind:
        made_for = "browsers" if enrolment.kind == "demo" else "edge devices"
        raise RequestError(
            403, "wrong_device_kind", f"The enrolment token was made for {made_for}.",
            advice="Ask the operator for a line for this kind of device.",
        )  # fmt: skip


def _spend(token: AccessToken) -> None:
    """Count one use of a locked enrolment token."""
    if token.uses_left is None:
        return
    if token.uses_left == 0:
        raise RequestError(
            403, "enrolment_used_up", "The enrolment token has let in all the devices it was made for.",
            advice="Ask the operator for a new enrolment line.",
        )  # fmt: skip
    token.uses_left -= 1


def _new_device(session: Session, enrolment: Enrolment, request: EnrolRequest) -> Device:
    now = utc_now()
    device = Device(
        id=secrets.token_hex(16),
        installation_id=request.installation_id,
        enrolment_id=enrolment.token_id,
        name=request.name,
        cohort=request.cohort,
        kind=request.kind,
        model=enrolment.model,
        channel=enrolment.channel,
        created_at=now,
        last_seen_at=now,
    )
    session.add(device)
    return device


def _known_device(device: Device, enrolment: Enrolment, request: EnrolRequest) -> Device:
    """Check step 2 for an installation that is known, and take over what it says of itself now."""
    if device.revoked_at is not None:
        raise RequestError(
            403, "device_revoked", f"Device {device.id} was revoked and cannot enrol again.",
            advice="Ask the operator; a device that may return starts with an empty home.",
        )  # fmt: skip
    if (device.model, device.channel) != (enrolment.model, enrolment.channel):
        raise RequestError(
            409, "enrolled_elsewhere",
            f"This installation is device {device.id} of model {device.model} on channel {device.channel}.",
            advice="Use an enrolment line for that model and channel, or an empty home.",
        )  # fmt: skip
    device.name, device.cohort = request.name, request.cohort
    device.enrolment_id = enrolment.token_id
    device.last_seen_at = utc_now()
    return device


def _storable(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document when jsonb can hold it: no NUL, no lone surrogate, no infinity (1e999), not too large."""
    try:
        document = json.dumps(body, ensure_ascii=False, allow_nan=False)
        if len(document.encode()) <= MAX_STATUS_BYTES and "\\u0000" not in document:
            return dict(body)
    except (ValueError, RecursionError):
        pass  # a lone surrogate, an infinity or absurd depth: the same answer as too large
    raise ContractError(
        f"The status holds values that cannot be stored, or more than {MAX_STATUS_BYTES} bytes.",
        advice="Update edge-runtime.",
    )
