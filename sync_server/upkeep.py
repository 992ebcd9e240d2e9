"""What has to happen by itself: signing again, partitions, retention, rollouts moved, incidents resolved, sweeping.

Every worker runs one such thread; Postgres advisory locks see to it that one of them does the work. A failure, of
whatever kind, is counted, logged and tried again at the next turn: the thread must outlive every fault but the process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial

from cryptography.hazmat.primitives.asymmetric import ec
from flask import Flask
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from edge_runtime.errors import StellaError
from sync_server.access.sessions import sweep
from sync_server.advice.store import sweep as sweep_advice
from sync_server.anomalies.recovery import resolve_recovered
from sync_server.app_state import get_config, get_online_key
from sync_server.config import ServerConfig
from sync_server.db import Database, get_database, try_lock_for_transaction, utc_now
from sync_server.ingest.partitions import ensure_partitions
from sync_server.ingest.retention import drop_old_results
from sync_server.ingest.rollups import fold_shards
from sync_server.repository.signing import sign_again_if_due
from sync_server.rollouts.controller import tend
from sync_server.scoring import keeping
from sync_server.upkeep_metrics import FAILURES, LAST_DONE

log = logging.getLogger(__name__)

TURN_SECONDS = 60.0


def run_once(database: Database, read_key: Callable[[], ec.EllipticCurvePrivateKey], config: ServerConfig) -> None:
    """Do what is due. Each part is a transaction of its own, and one that fails is logged and holds up no other.

    The metrics learn what failed, and when each part last did not.

    Args:
        database: The database.
        read_key: Returns the online key; what it raises is a failure of signing.
        config: How long things are kept.
    """
    now = utc_now()
    _try("signing", lambda: _sign(database, read_key))
    _try("rollouts", lambda: tend(database, read_key, now=now))
    for what, work in _parts(config, now).items():
        _try(what, partial(database.run, partial(_alone, work)))


def _parts(config: ServerConfig, now: datetime) -> dict[str, Callable[[Session], object]]:
    """What one process at a time does, by what a log calls it."""
    return {
        "partitions": ensure_partitions,
        "folding": partial(fold_shards, now=now),
        "retention": partial(
            drop_old_results, results_days=config.results_days, rollup_days=config.rollup_days, now=now
        ),
        "log-ins": partial(sweep, now=now),
        "recovery": partial(resolve_recovered, now=now),
        "advice": partial(sweep_advice, now=now),
        "scored windows": partial(
            keeping.sweep, now=now, days=config.scoring_keep_days, most=config.scoring_keep_windows
        ),
    }


def _try(what: str, part: Callable[[], None]) -> None:
    try:
        part()
        LAST_DONE.labels(what).set(time.time())
    except (StellaError, SQLAlchemyError) as error:
        FAILURES.labels(what).inc()
        log.error("upkeep (%s) failed and will be tried again: %s", what, str(error).splitlines()[0])
    # A fault in one part must not end the thread, and with it signing and everything else, for good.
    except Exception:
        FAILURES.labels(what).inc()
        log.exception("upkeep (%s) met a fault and will be tried again", what)


def _sign(database: Database, read_key: Callable[[], ec.EllipticCurvePrivateKey]) -> None:
    with database.session() as session:
        signed = sign_again_if_due(session, read_key(), utc_now())
    if signed:
        log.info("signed again: %s", ", ".join(signed))


def _alone(work: Callable[[Session], object], session: Session) -> None:
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
                run_once(database, get_online_key, config)
                if stop.wait(TURN_SECONDS):
                    return

    threading.Thread(target=loop, name="upkeep", daemon=True).start()
    return stop
