"""Releases as targets.json lists them: what release keys bind to each bundle, and which one a device may run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_runtime.contract import checks
from edge_runtime.contract.names import MAX_COHORT_CHARACTERS, check_name
from edge_runtime.errors import ContractError, TrustError

CUSTOM_FIELD = "custom"
FLOOR_FIELD = "minimum_release"
MAX_CHANNELS_OF_A_RELEASE = 16


@dataclass(frozen=True, slots=True)
class TargetCustom:
    """What a target's ``custom`` field says; the online key can change none of it.

    Attributes:
        model: The model's name.
        version: A label; ``release_number`` orders.
        cohort: The cohort the bundle was trained for, or None for the default bundle.
        release_number: Ascending whole number, the same for all bundles of a release.
        channels: Channels that may run it.
        size_unpacked: Bytes of all files together.
        signer: Public key of ``model.sig``, base64 of DER SubjectPublicKeyInfo.
    """

    model: str
    version: str
    cohort: str | None
    release_number: int
    channels: tuple[str, ...]
    size_unpacked: int
    signer: str

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> TargetCustom:
        """Read the field.

        Raises:
            ContractError: Something is missing, of another type or out of bounds.
        """
        cohort = checks.get(value, "cohort")
        channels = checks.array(checks.get(value, "channels"), "channels", most=MAX_CHANNELS_OF_A_RELEASE)
        return cls(
            model=check_name("model", checks.get(value, "model")),
            version=check_name("version", checks.get(value, "version")),
            cohort=None if cohort is None else checks.text(cohort, "cohort", most=MAX_COHORT_CHARACTERS),
            release_number=checks.integer(checks.get(value, "release_number"), "release_number", least=1),
            channels=tuple(check_name("channel", channel) for channel in channels),
            size_unpacked=checks.integer(checks.get(value, "size_unpacked"), "size_unpacked", least=1),
            signer=checks.text(checks.get(value, "signer"), "signer", most=512),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the field as it is signed."""
        return {
            "model": self.model,
            "version": self.version,
            "cohort": self.cohort,
            "release_number": self.release_number,
            "channels": list(self.channels),
            "size_unpacked": self.size_unpacked,
            "signer": self.signer,
        }


def custom_of(path: str, unrecognized: Mapping[str, Any]) -> TargetCustom:
    """Read the custom field of one target.

    Args:
        path: The target's path, for the error.
        unrecognized: ``TargetFile.unrecognized_fields``.

    Raises:
        ContractError: The field is missing or breaks its format.
    """
    try:
        return TargetCustom.from_dict(checks.table(checks.get(unrecognized, CUSTOM_FIELD), CUSTOM_FIELD))
    except ContractError as error:
        raise ContractError(f"Target {path}: {error.message}", path=path) from error


def floors(unrecognized: Mapping[str, Any]) -> dict[str, int]:
    """Read the floor of every model from targets.json's fields that TUF itself does not know.

    Raises:
        ContractError: The field is there and breaks its format.
    """
    value = checks.table(unrecognized.get(FLOOR_FIELD, {}), FLOOR_FIELD)
    return {check_name("model", model): checks.integer(number, FLOOR_FIELD) for model, number in value.items()}


def floor_of(unrecognized: Mapping[str, Any], model: str) -> int:
    """Return the release number below which no device may run a model; 0 when none is set.

    Raises:
        ContractError: The field is there and breaks its format.
    """
    return floors(unrecognized).get(model, 0)


def choose_target(
    customs: Mapping[str, TargetCustom],
    *,
    model: str,
    channel: str,
    cohort: str | None,
    release: int,
    floor: int,
) -> str:
    """Return the path of the bundle that a device should run for a release: its cohort's, else the default.

    Args:
        customs: The verified custom field of every target, by path.
        model: The model that the device was enrolled for.
        channel: Its channel.
        cohort: Its cohort, or None.
        release: The release number that the rollout chose.
        floor: The lowest release number that may run.

    Raises:
        TrustError: With reason ``below_floor``, ``wrong_model`` (the number is listed for other models only),
            ``release_missing`` or ``wrong_channel``.
    """
    if release < floor:
        raise TrustError(
            f"Release {release} of {model} is below the floor {floor} that the release keys set.",
            reason="below_floor",
            advice="Publish a newer release, or start a rollout of one that is allowed.",
        )
    same_number = {path: custom for path, custom in customs.items() if custom.release_number == release}
    listed = {path: custom for path, custom in same_number.items() if custom.model == model}
    fitting = {custom.cohort: path for path, custom in listed.items() if custom.cohort in (cohort, None)}
    if not fitting:
        raise TrustError(
            f"Release {release} of {model} is not listed in the repository's targets.",
            reason="wrong_model" if same_number and not listed else "release_missing",
            advice="Publish the release, or roll the channel back.",
        )
    path = fitting[cohort] if cohort in fitting else fitting[None]
    if channel not in listed[path].channels:
        raise TrustError(
            f"Release {release} of {model} was not made for channel {channel}.",
            reason="wrong_channel",
            advice="Release keys decide the channels of a release; publish it for this one.",
        )
    return path
