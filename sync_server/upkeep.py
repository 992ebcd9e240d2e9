"""What has to happen by itself: metadata signed again in time, partitions made ahead, old log-ins swept.

Every worker runs one such thread; Postgres advisory locks see to it that one of them does the work. A failure is
logged and tried again at the next turn.
"""

from __future__ import annotations

import logging
import threading

from cryptography.hazmat.primitives.asymmetric import ec
from flask import Flask
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from edge_runtime.errors import StellaError
from sync_server.access.sessions import sweep
from sync_server.app_state import get_online_key
from sync_server.db import Database, get_database, try_lock_for_transaction, utc_now
from sync_server.ingest.partitions import ensure_partitions
from sync_server.repository.signing import sign_again_if_due

log = logging.getLogger(__name__)

TURN_SECONDS = 60.0


def run_once(database: Database, key: ec.EllipticCurvePrivateKey) -> None:
    """Do what is due. Each part is a transaction of its own, so that one that fails holds up no other.

    Raises:
        StellaError: A part cannot be done, such as signing with a key that root does not name.
        SQLAlchemyError: The database is away.
    """
    with database.session() as session:
        signed = sign_again_if_due(session, key, utc_now())
    if signed:
        log.info("signed again: %s", ", ".join(signed))
    database.run(_tidy)


def _tidy(session: Session) -> None:
    if try_lock_for_transaction(session, "upkeep"):
        ensure_partitions(session)
        sweep(session, now=utc_now())


def start_upkeep(app: Flask) -> threading.Event:
    """Start the thread for a worker's app, and return the event that ends it."""
    stop = threading.Event()

    def loop() -> None:
        with app.app_context():
            database = get_database()
            while True:
                try:
                    run_once(database, get_online_key())
                except (StellaError, SQLAlchemyError) as error:
                    log.error("upkeep failed and will be tried again: %s", str(error).splitlines()[0])
                if stop.wait(TURN_SECONDS):
                    return

    threading.Thread(target=loop, name="upkeep", daemon=True).start()
    return stop
