"""The one place where rollouts tell the outside world what happened."""

from __future__ import annotations

import logging

from sqlalchemy.orm import Session

from sync_server.rollouts.models import RolloutRun
from sync_server.webhooks.service import enqueue

log = logging.getLogger(__name__)


def announce(session: Session, event: str, run: RolloutRun, detail: dict[str, object]) -> None:
    """Tell of something that happened to a rollout, in the transaction in which it happened.

    Args:
        session: The open transaction.
        event: ``rollout.advanced``, ``rollout.finished``, ``rollout.stuck`` or ``rollout.tripped``.
        run: The rollout.
        detail: JSON-ready details.
    """
    about = {"rollout": run.rollout_id, "model": run.model, "release": run.release, **detail}
    enqueue(session, event, f"channel:{run.channel}", about)
    log.info("%s on channel %s: %s", event, run.channel, about)
