"""What ``PUT /api/channels/<channel>`` takes, one type an action. Each may say why, for the audit trail."""

from __future__ import annotations

from typing import Annotated

import msgspec

from sync_server.apidoc.answers import PRINTABLE
from sync_server.rollouts.plan import Plan

MAX_NOTE_CHARACTERS = 500
Note = Annotated[str, msgspec.Meta(max_length=MAX_NOTE_CHARACTERS, extra_json_schema={"pattern": PRINTABLE})]


class Start(msgspec.Struct, frozen=True, tag_field="action", tag="start", forbid_unknown_fields=True):
    """Begin to roll out a release; with a plan, its first stage says to whom."""

    model: str
    release: int
    share: int = 0
    cohorts: list[str] | None = None
    plan: Plan | None = None
    note: Note = ""


class Share(msgspec.Struct, frozen=True, tag_field="action", tag="share", forbid_unknown_fields=True):
    """Let more devices in."""

    share: int
    note: Note = ""


class Widen(msgspec.Struct, frozen=True, tag_field="action", tag="widen", forbid_unknown_fields=True):
    """Let more cohorts in: those that are in already and new ones, or all (null)."""

    cohorts: list[str] | None
    note: Note = ""


class Pause(msgspec.Struct, frozen=True, tag_field="action", tag="pause", forbid_unknown_fields=True):
    """Let nobody else in."""

    note: Note = ""


class Resume(msgspec.Struct, frozen=True, tag_field="action", tag="resume", forbid_unknown_fields=True):
    """Go on after a pause."""

    note: Note = ""


class Advance(msgspec.Struct, frozen=True, tag_field="action", tag="advance", forbid_unknown_fields=True):
    """Go to the plan's next stage without waiting; ``from_stage`` (from 0) makes that safe to ask for twice."""

    from_stage: int
    note: Note = ""


class RollBack(msgspec.Struct, frozen=True, tag_field="action", tag="roll_back", forbid_unknown_fields=True):
    """Send everybody back to the previous release."""

    note: Note = ""


Change = Start | Share | Widen | Pause | Resume | Advance | RollBack
