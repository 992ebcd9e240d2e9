"""What ``PUT /api/channels/<channel>`` takes, one type an action."""

from __future__ import annotations

import msgspec


class Start(msgspec.Struct, frozen=True, tag_field="action", tag="start", forbid_unknown_fields=True):
    """Begin to roll out a release."""

    model: str
    release: int
    share: int = 0
    cohorts: list[str] | None = None


class Share(msgspec.Struct, frozen=True, tag_field="action", tag="share", forbid_unknown_fields=True):
    """Let more devices in."""

    share: int


class Widen(msgspec.Struct, frozen=True, tag_field="action", tag="widen", forbid_unknown_fields=True):
    """Let more cohorts in: those that are in already and new ones, or all (null)."""

    cohorts: list[str] | None


class Pause(msgspec.Struct, frozen=True, tag_field="action", tag="pause", forbid_unknown_fields=True):
    """Let nobody else in."""


class Resume(msgspec.Struct, frozen=True, tag_field="action", tag="resume", forbid_unknown_fields=True):
    """Go on after a pause."""


class RollBack(msgspec.Struct, frozen=True, tag_field="action", tag="roll_back", forbid_unknown_fields=True):
    """Send everybody back to the previous release."""


Change = Start | Share | Widen | Pause | Resume | RollBack
