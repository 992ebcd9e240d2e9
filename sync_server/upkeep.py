"""What has to happen by itself: metadata signed again, partitions made and dropped, rollouts moved, log-ins swept,
incidents resolved.

Every worker runs one such thread; Postgres advisory locks see to it that one of them does the work. A failure is
logged and tried again at the next turn.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from cryptography.hazmat.primitives.asymmetric import ec
from flask import Flask
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from edge_runtime.errors import StellaError
from sync_server.access.sessions import sweep
from sync_server.anomalies.recovery import resolve_recovered
from sync_server.app_state import get_config, get_online_key
from sync_server.db import Database, get_database, try_lock_for_transaction, utc_now
from sync_server.ingest.partitions import ensure_partitions
from sync_server.ingest.retention import drop_old_results
from sync_server.ingest.rollups import fold_shards
from sync_server.repository.signing import sign_again_if_due
from sync_server.rollouts.controller import tend

log = logging.getLogger(__name__)

TURN_SECONDS = 60.0


def run_once(
    database: Database,
    read_key: Callable[[], ec.EllipticCurvePrivateKey],
    *,
    results_days: int = 0,
    rollup_days: int = 0,
) -> None:
    """Do what is due. Each part is a transaction of its own, and one that fails is logged and holds up no other.

    Args:
        database: The database.
        read_key: Returns the online key; what it raises is a failure of signing.
        results_days: Days to keep results, 0 for ever.
        rollup_days: Days to keep the hourly roll-up, 0 for ever.
    """
    _try("signing", lambda: _sign(database, read_key))
    _try("partitions", lambda: database.run(lambda session: _alone(session, ensure_partitions)))
    _try("rollouts", lambda: tend(database, read_key, now=utc_now()))
    _try("folding", lambda: database.run(lambda session: _alone(session, lambda s: fold_shards(s, now=utc_now()))))
    keep = partial(drop_old_results, results_days=results_days, rollup_days=rollup_days)
    _try("retention", lambda: database.run(lambda session: _alone(session, lambda s: keep(s, now=utc_now()))))
    _try("sweeping", lambda: database.run(lambda session: _alone(session, lambda s: sweep(s, now=utc_now()))))
    _try("recovery", lambda: database.run(lambda s: _alone(s, lambda s: resolve_recovered(s, now=utc_now()))))


def _try(what: str, part: Callable[[], None]) -> None:
    try:
        part()
    except (StellaError, SQLAlchemyError) as error:
        log.error("upkeep (%s) failed and will be tried again: %s", what, str(error).splitlines()[0])


def _sign(database: Database, read_key: Callable[[], ec.EllipticCurvePrivateKey]) -> None:
    with database.session() as session:
        signed = sign_again_if_due(session, read_key(), utc_now())
    if signed:
        log.info("signed again: %s", ", ".join(signed))


def _alone(session: Session, work: Callable[[Session], object]) -> None:
    """Do the work unless another process is at it."""
    if try_lock_for_transaction(session, "upkeep"):
        work(session)


def start_upkeep(app: Flask) -> threading.Event:
    """Start the thread for a worker's app, and return the event that ends it."""
    stop = threading.Event()

    def loop() -> None:
        with app.app_context():
            database, config = get_database(), get_config()
            while True:
                run_once(database, get_online_key, results_days=config.results_days, rollup_days=config.rollup_days)
                if stop.wait(TURN_SECONDS):
                    return

    threading.Thread(target=loop, name="upkeep", daemon=True).start()
    return stop
