"""The rooms of the house: which modules hold tables, their DDL, and routes. A new room adds itself here."""

from __future__ import annotations

from importlib import import_module

MODELS = (
    "sync_server.access.models",
    "sync_server.repository.models",
    "sync_server.rollouts.models",
    "sync_server.devices.models",
    "sync_server.ingest.models",
    "sync_server.webhooks.models",
    "sync_server.scoring.models",
    "sync_server.advice.models",
    "sync_server.anomalies.models",
)
# In the order in which the first migration makes them: later ones refer to earlier ones.
DDL = (
    "sync_server.access.ddl",
    "sync_server.repository.ddl",
    "sync_server.rollouts.ddl",
    "sync_server.devices.ddl",
    "sync_server.ingest.ddl",
)
BLUEPRINTS = (
    "sync_server.web_assets.hosts:blueprint",
    "sync_server.health:blueprint",
    "sync_server.metrics:blueprint",
    "sync_server.apidoc.routes:blueprint",
    "sync_server.access.routes:blueprint",
    "sync_server.access.trail:blueprint",
    "sync_server.repository.routes:blueprint",
    "sync_server.rollouts.routes:blueprint",
    "sync_server.devices.routes:blueprint",
    "sync_server.ingest.routes:blueprint",
    "sync_server.anomalies.routes:blueprint",
    "sync_server.webhooks.routes:blueprint",
    "sync_server.scoring.routes:blueprint",
    "sync_server.scoring.challenger_routes:blueprint",
    "sync_server.advice.routes:blueprint",
    "sync_server.dashboard.routes:blueprint",
    "sync_server.dashboard.pages:blueprint",
    "sync_server.dashboard.add_browser:blueprint",
    "sync_server.dashboard.rollout_pages:blueprint",
    "sync_server.dashboard.audit_pages:blueprint",
    "sync_server.web_assets.routes:blueprint",
)


def load_models() -> None:
    """Import every room's tables, so that ``Base.metadata`` is complete."""
    for name in MODELS:
        import_module(name)
