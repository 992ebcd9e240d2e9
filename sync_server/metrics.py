"""``/metrics`` for Prometheus: what all workers of this server counted, and a few figures from the database.

Rooms define their counters and histograms at module level in a ``metrics`` module of their own::

    BATCHES = Counter("ingest_batches", "Batches by outcome.", ["outcome"])

Gauges need ``multiprocess_mode="livesum"`` or another live mode. Figures that are the database's own come from
:mod:`sync_server.gauges`. A scrape needs a token of kind ``view`` or ``ops``: behind a proxy every request comes from
loopback, so an address proves nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from flask import Blueprint, Response, current_app
from flask.sansio.blueprints import BlueprintSetupState
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import REGISTRY

from sync_server.access.guard import require_token
from sync_server.gauges import Collector
from sync_server.metrics_folder import ENVIRONMENT, reading

blueprint = Blueprint("metrics", __name__)


@blueprint.record
def _one_collector(state: BlueprintSetupState) -> None:
    state.app.extensions["gauges"] = Collector(state.app.extensions["database"])


@blueprint.get("/metrics")
@require_token("ops", "view")
def metrics() -> Response:
    """Return the metrics of all workers in Prometheus' text format."""
    database = CollectorRegistry()
    database.register(current_app.extensions["gauges"])
    answer = Response(_processes() + generate_latest(database), content_type=CONTENT_TYPE_LATEST)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _processes() -> bytes:
    """What the workers counted; of this process alone when there are no others."""
    folder = os.environ.get(ENVIRONMENT)
    if folder is None:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    with reading(Path(folder)):
        return generate_latest(registry)
