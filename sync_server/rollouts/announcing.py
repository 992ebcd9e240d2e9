"""The one place where rollouts tell the outside world what happened."""

from __future__ import annotations

import logging

from sqlalchemy.orm import Session

from sync_server.rollouts.models import RolloutRun

log = logging.getLogger(__name__)


def announce(session: Session, event: str, run: RolloutRun, detail: dict[str, object]) -> None:
    """Tell of something that happened to a rollout, in the transaction in which it happened.

    Args:
        session: The open transaction.
        event: ``rollout.advanced``, ``rollout.finished``, ``rollout.stuck`` or ``rollout.tripped``.
        run: The rollout.
        detail: JSON-ready details.
    """
    session.flush()  # what it tells of is in the transaction before it is told
    log.info("%s: rollout %d of release %d on channel %s: %s", event, run.rollout_id, run.release, run.channel, detail)
