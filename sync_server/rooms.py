"""The rooms of the house: which modules hold tables, their DDL, and routes. A new room adds itself here."""

from __future__ import annotations

from importlib import import_module

MODELS = ("sync_server.access.models",)
# In the order in which the first migration makes them: later ones refer to earlier ones.
DDL = ("sync_server.access.ddl",)
BLUEPRINTS = (
    "sync_server.health:blueprint",
    "sync_server.access.routes:blueprint",
)


def load_models() -> None:
    """Import every room's tables, so that ``Base.metadata`` is complete."""
    for name in MODELS:
        import_module(name)
