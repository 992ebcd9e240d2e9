"""The outbox: results not yet acknowledged by the server."""

from edge_runtime.outbox.store import DeadLetter, Lease, Outbox, OutboxState, Settled
from edge_runtime.outbox.writing import DEFAULT_LIMITS, OutboxLimits, append_records

__all__ = [
    "DEFAULT_LIMITS",
    "DeadLetter",
    "Lease",
    "Outbox",
    "OutboxLimits",
    "OutboxState",
    "Settled",
    "append_records",
]
