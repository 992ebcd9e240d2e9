"""What a change of a rollout is refused for, whatever it is: states, shares, cohorts, notes, the size of it all."""

from __future__ import annotations

from edge_runtime.contract.checks import canonical
from edge_runtime.contract.names import MAX_COHORT_CHARACTERS
from edge_runtime.contract.rollout import BUCKETS, MAX_ENTRY_BYTES, Rollout
from sync_server.errors import RequestError


def check_note(note: str) -> None:
    """Check that a note is text that can be stored and shown on a line.

    Raises:
        RequestError: 422 ``bad_note``.
    """
    if not note.isprintable():
        raise RequestError(422, "bad_note", "The note holds characters that are no text.", advice="Write one line.")


def check_alive(channel: str, rollout: Rollout) -> None:
    """Check that a rollout was not rolled back.

    Raises:
        RequestError: 409 ``rolled_back``.
    """
    if rollout.state == "rolled_back":
        raise RequestError(
            409, "rolled_back", f"The rollout of release {rollout.release} on channel {channel} was rolled back.",
            advice="Start a new one.",
        )  # fmt: skip


def check_running(channel: str, rollout: Rollout) -> None:
    """Check that a rollout is running.

    Raises:
        RequestError: 409 ``rolled_back`` or ``paused``.
    """
    check_alive(channel, rollout)
    if rollout.state != "running":
        raise RequestError(409, "paused", f"The rollout on channel {channel} is paused.", advice="Resume it first.")


def check_share(share: int) -> None:
    """Check that a share is in 0 to 10,000.

    Raises:
        RequestError: 422 ``bad_share``.
    """
    if not 0 <= share <= BUCKETS:
        raise RequestError(422, "bad_share", f"A share of {share} does not exist.", advice="Use 0 to 10000.")


def check_size(rollout: Rollout) -> None:
    """Check that what is signed of a rollout keeps to its share of the timestamp's size.

    Raises:
        RequestError: 409 ``rollout_too_large``.
    """
    size = len(canonical(rollout.to_dict()))
    if size > MAX_ENTRY_BYTES:
        raise RequestError(
            409, "rollout_too_large", f"The rollout takes {size} bytes of the timestamp, not {MAX_ENTRY_BYTES}.",
            advice="Name fewer cohorts.",
        )  # fmt: skip


def checked_cohorts(cohorts: list[str] | None) -> tuple[str, ...] | None:
    """Return the cohorts in a fixed order; an empty list is refused, since it would mean nobody.

    Raises:
        RequestError: 422 ``bad_cohorts``.
    """
    if cohorts is None:
        return None
    fitting = [c for c in cohorts if 1 <= len(c) <= MAX_COHORT_CHARACTERS and c.isprintable()]
    if not cohorts or len(fitting) != len(cohorts) or len(set(cohorts)) != len(cohorts):
        raise RequestError(
            422, "bad_cohorts", "The cohorts are no list of different names.",
            advice=f"Give names of 1 to {MAX_COHORT_CHARACTERS} printable characters, or none for all devices.",
        )  # fmt: skip
    return tuple(sorted(cohorts))


def no_channel(channel: str) -> RequestError:
    """Return the 404 for a channel that has no rollout yet."""
    return RequestError(
        404,
        "no_rollout",
        f"Channel {channel[:64]} has no rollout yet.",
        advice="Start one with: exporter rollout CHANNEL --model NAME --release NUMBER --staged",
    )
