"""Rollouts: which share of a channel's devices gets which release, decided by each device for itself.

The field ``rollouts`` of timestamp.json is signed with it. The same devices stay in as the share grows, since a
device's bucket depends on nothing but the rollout's salt and the device's id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from edge_runtime.contract import checks
from edge_runtime.contract.names import MAX_COHORT_CHARACTERS, check_name
from edge_runtime.errors import ContractError

FIELD = "rollouts"
BUCKETS = 10_000
# python-tuf refuses a timestamp over 16,384 bytes; 48 entries of 256 bytes leave room for the rest of it.
MAX_CHANNELS = 48
MAX_ENTRY_BYTES = 256

State = Literal["running", "paused", "rolled_back"]
STATES: tuple[State, ...] = ("running", "paused", "rolled_back")


@dataclass(frozen=True, slots=True)
class Rollout:
    """The state of one channel.

    Attributes:
        id: Number of the rollout on this server, ascending.
        model: The model it concerns.
        release: Release number for devices that are in.
        previous: Release number for the others; None: they keep what they have.
        share: 0 to 10,000: devices whose bucket is below it are in.
        salt: 32 hex digits.
        state: ``running``, ``paused`` or ``rolled_back``.
        cohorts: The cohorts it is limited to; None: all.
    """

    id: int
    model: str
    release: int
    previous: int | None
    share: int
    salt: str
    state: State
    cohorts: tuple[str, ...] | None = None

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Rollout:
        """Read one entry.

        Raises:
            ContractError: A field is missing, of another type or out of bounds.
        """
        state = checks.get(value, "state")
        if state not in STATES:
            raise ContractError("Field 'state' must be 'running', 'paused' or 'rolled_back'.")
        previous = checks.get(value, "previous")
        cohorts = value.get("cohorts")
        return cls(
            id=checks.integer(checks.get(value, "id"), "id", least=1),
            model=check_name("model", checks.get(value, "model")),
            release=checks.integer(checks.get(value, "release"), "release", least=1),
            previous=None if previous is None else checks.integer(previous, "previous", least=1),
            share=checks.integer(checks.get(value, "share"), "share", most=BUCKETS),
            salt=checks.hex32(checks.get(value, "salt"), "salt"),
            state=cast("State", state),
            cohorts=None
            if cohorts is None
            else tuple(
                checks.text(cohort, "cohorts", most=MAX_COHORT_CHARACTERS)
                for cohort in checks.array(cohorts, "cohorts", most=64)
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as it is signed; ``cohorts`` is absent when all are meant."""
        value: dict[str, Any] = {
            "id": self.id,
            "model": self.model,
            "release": self.release,
            "previous": self.previous,
            "share": self.share,
            "salt": self.salt,
            "state": self.state,
        }
        if self.cohorts is not None:
            value["cohorts"] = list(self.cohorts)
        return value


def bucket(salt: str, device_id: str) -> int:
    """Return a device's bucket: uint32_be(sha256(utf8(salt) + 0x00 + utf8(device_id))[0:4]) mod 10000."""
    digest = hashlib.sha256(salt.encode() + b"\x00" + device_id.encode()).digest()
    return int.from_bytes(digest[:4], "big") % BUCKETS


def is_in(rollout: Rollout, device_id: str, cohort: str | None) -> bool:
    """Say whether a device is in the rollout's share and its cohort is listed."""
    if rollout.cohorts is not None and cohort not in rollout.cohorts:
        return False
    return bucket(rollout.salt, device_id) < rollout.share


def decide(rollout: Rollout | None, device_id: str, cohort: str | None, active_release: int | None) -> int | None:
    """Return the release number that a device should run.

    Args:
        rollout: The entry of the device's channel, or None when there is none.
        device_id: The device's id.
        cohort: What its ``device.json`` says now.
        active_release: What it runs now, or None.

    Returns:
        A release number, or None: keep what you have.
    """
    if rollout is None:
        return None
    if not is_in(rollout, device_id, cohort) or rollout.state == "rolled_back":
        return rollout.previous
    if rollout.state == "running":
        return rollout.release
    return active_release if active_release is not None else rollout.previous


def parse_rollouts(unrecognized: Mapping[str, Any]) -> dict[str, Rollout]:
    """Read the rollouts by channel from timestamp.json's fields that TUF itself does not know.

    Args:
        unrecognized: ``Timestamp.unrecognized_fields`` of verified metadata.

    Raises:
        ContractError: The field is there and breaks its format.
    """
    entries = checks.table(unrecognized.get(FIELD, {}), FIELD)
    if len(entries) > MAX_CHANNELS:
        raise ContractError(f"Field {FIELD!r} names {len(entries)} channels; at most {MAX_CHANNELS} are allowed.")
    return {
        check_name("channel", channel): Rollout.from_dict(checks.table(entry, FIELD))
        for channel, entry in entries.items()
    }
