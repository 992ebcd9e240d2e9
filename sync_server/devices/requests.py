"""What devices send about themselves, checked, and what they are answered. No database, no Flask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from edge_runtime.contract import checks
from edge_runtime.contract.names import MAX_COHORT_CHARACTERS, check_name
from edge_runtime.errors import ContractError

MAX_NAME_CHARACTERS = 128
MAX_STATUS_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class EnrolRequest:
    """The body of ``POST /api/devices``.

    Attributes:
        installation_id: 32 hex digits, made by the device; a retry brings the same.
        name: What people call the device, or None.
        cohort: Its cohort, or None.
        kind: ``edge`` or ``demo`` (a browser).
    """

    installation_id: str
    name: str | None
    cohort: str | None
    kind: str

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read the body; fields that a newer device adds are ignored.

        Raises:
            ContractError: A field is missing, of another type or out of bounds.
        """
        kind = value.get("kind", "edge")
        if kind not in ("edge", "demo"):
            raise ContractError("Field 'kind' must be 'edge' or 'demo'.")
        return cls(
            installation_id=checks.hex32(checks.get(value, "installation_id"), "installation_id"),
            name=_optional_text(value, "name", MAX_NAME_CHARACTERS),
            cohort=_optional_text(value, "cohort", MAX_COHORT_CHARACTERS),
            kind=kind,
        )


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """The parts of ``POST /api/device-status`` that lists and figures need; the whole body is kept beside them.

    Attributes:
        cohort: What the device's own file says now, or None.
        active_bundle: SHA-256 of the bundle it runs, or None before the first.
        active_release: Its release number, or None.
        active_version: Its version, or None.
        outbox_records: Records that wait on the device.
        dead_letters: Records that the server refused.
        stale: Its metadata has expired.
        update_outcome: How the last update ended, or None.
        update_reason: Why it was refused, or None.
    """

    cohort: str | None
    active_bundle: str | None
    active_release: int | None
    active_version: str | None
    outbox_records: int
    dead_letters: int
    stale: bool
    update_outcome: str | None
    update_reason: str | None

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read the body; fields that a newer device adds are kept in the stored document only.

        Raises:
            ContractError: A field is missing, of another type or out of bounds.
        """
        active = _optional_table(value, "active")
        outbox = checks.table(checks.get(value, "outbox"), "outbox")
        update = _optional_table(value, "last_update") or {}
        return cls(
            cohort=_optional_text(value, "cohort", MAX_COHORT_CHARACTERS),
            active_bundle=checks.hex64(checks.get(active, "bundle"), "bundle") if active is not None else None,
            active_release=checks.integer(checks.get(active, "release"), "release") if active is not None else None,
            active_version=check_name("version", checks.get(active, "version")) if active is not None else None,
            outbox_records=checks.integer(checks.get(outbox, "records"), "records"),
            dead_letters=checks.integer(checks.get(outbox, "dead_letters"), "dead_letters"),
            stale=checks.flag(value.get("stale", False), "stale"),
            update_outcome=_optional_text(update, "outcome", 64),
            update_reason=_optional_text(update, "reason", 128),
        )


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The answer to ``POST /api/devices``.

    Attributes:
        device_id: 32 hex digits.
        token: The device token, shown this once.
        model: What the device runs.
        channel: What it follows.
        created: False when this installation was enrolled before.
    """

    device_id: str
    token: str
    model: str
    channel: str
    created: bool

    def to_dict(self) -> dict[str, str]:
        """Return the JSON body."""
        return {"device_id": self.device_id, "token": self.token, "model": self.model, "channel": self.channel}


def _optional_table(value: Mapping[str, Any], field: str) -> Mapping[str, Any] | None:
    content = value.get(field)
    return None if content is None else checks.table(content, field)


def _optional_text(value: Mapping[str, Any], field: str, most: int) -> str | None:
    content = value.get(field)
    return None if content is None or content == "" else checks.text(content, field, most=most)
