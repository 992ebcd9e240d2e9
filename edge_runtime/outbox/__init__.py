"""The outbox: results not yet acknowledged by the server."""

from edge_runtime.outbox.store import (
    DEFAULT_LIMITS,
    Lease,
    Outbox,
    OutboxLimits,
    OutboxState,
    Settled,
    append_records,
)

__all__ = ["DEFAULT_LIMITS", "Lease", "Outbox", "OutboxLimits", "OutboxState", "Settled", "append_records"]
