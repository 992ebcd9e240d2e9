"""How a sync ended: one reason code for every way, remembered on disk and reported once.

Example::

    save_outcome(home, outcome, FileSystem())
    last = load_outcome(home)
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from edge_runtime.contract.result import DetailValue, Event
from edge_runtime.errors import ContractError, ScoringError, StellaError, StorageError, TransportError, TrustError
from edge_runtime.files import FileSystem, write_atomically
from edge_runtime.home import Home

Outcome = Literal["activated", "unchanged", "refused", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("activated", "unchanged", "refused", "failed")
MAX_MESSAGE_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class UpdateOutcome:
    """The end of one sync.

    Attributes:
        outcome: ``activated``, ``unchanged``, ``refused`` (what the server offers may not run here) or ``failed``
            (network or disk; it may work next time).
        reason: Reason code of a refusal or failure, else None.
        release: The release number it was about, or None when it did not come so far.
        at_ms: When, by the device's clock.
        message: One sentence for a person.
        announced: Digest of the bundle whose activation was recorded last, or None.
    """

    outcome: Outcome
    reason: str | None
    release: int | None
    at_ms: int
    message: str
    announced: str | None = field(default=None, compare=False)

    def same_news(self, other: UpdateOutcome | None) -> bool:
        """Say whether another outcome tells nothing new: a device that stays offline reports it once."""
        mine = (self.outcome, self.reason, self.release)
        return other is not None and mine == (other.outcome, other.reason, other.release)

    def to_status(self) -> dict[str, Any]:
        """Return what the device status carries."""
        return {"outcome": self.outcome, "reason": self.reason, "release": self.release, "at_ms": self.at_ms}

    def to_event(self, active_digest: str | None) -> Event:
        """Return the record for the outbox; its sequence is given when it is stored."""
        detail: dict[str, DetailValue] = {"message": self.message}
        if self.reason is not None:
            detail["reason"] = self.reason
        if self.release is not None:
            detail["release"] = self.release
        return Event(0, active_digest, self.at_ms, f"update_{self.outcome}", detail)


def outcome_of(error: StellaError, release: int | None, at_ms: int) -> UpdateOutcome:
    """Turn the error that ended a sync into its outcome.

    Args:
        error: What was raised.
        release: The release it was about, or None.
        at_ms: The device's clock.
    """
    reason = reason_of(error)
    refused = isinstance(error, TrustError | ScoringError | ContractError)
    message = error.message[:MAX_MESSAGE_CHARACTERS]
    return UpdateOutcome("refused" if refused else "failed", reason, release, at_ms, message)


def reason_of(error: StellaError) -> str:
    """Return the reason code of an error, as the documentation lists them."""
    if isinstance(error, TrustError | ScoringError):
        return error.reason
    if isinstance(error, ContractError):
        return "newer_format" if error.fields.get("newer_format") else "bad_bundle"
    if isinstance(error, TransportError):
        return "download_failed"
    if isinstance(error, StorageError):
        return str(error.fields.get("reason", "storage_failed"))
    return error.code


def save_outcome(home: Home, outcome: UpdateOutcome, files: FileSystem) -> None:
    """Remember an outcome.

    Raises:
        StorageError: Disk full or not permitted.
    """
    write_atomically(files, home.last_update, json.dumps(asdict(outcome), ensure_ascii=False).encode())


def load_outcome(home: Home) -> UpdateOutcome | None:
    """Return the outcome remembered last; None when there is none, or the file cannot be read."""
    try:
        fields = json.loads(home.last_update.read_bytes())
        outcome = UpdateOutcome(**fields)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return outcome if outcome.outcome in OUTCOMES else None
