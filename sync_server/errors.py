"""The server's own errors, as a branch of the one tree.

::

    StellaError
    ├── StorageError          database or disk did not do its part        503 over HTTP, exit 6
    ├── TrustError            metadata, signature refused                 422 over HTTP, exit 4
    ├── ContractError         a format is broken                          422 over HTTP, exit 3
    ├── InputError            options or values that cannot be used       422 over HTTP, exit 3
    └── RequestError          any other answer that is not a success      its own status, exit 5

Routes raise; :mod:`sync_server.http` turns every error into one problem+json answer. Nothing here imports Flask.

Example::

    raise RequestError(409, "rollout_open", f"Channel {name} is still rolling out release 7.",
                       advice="Grow its share to 10000 or roll it back first.")
"""

from __future__ import annotations

from edge_runtime.errors import StellaError


class RequestError(StellaError):
    """A request that gets an answer other than success.

    Args:
        status: The HTTP status, 400 to 599.
        code: What went wrong, for machines: lower case words joined by underscores.
        message: One sentence: what happened, to what.
        advice: One sentence: what to do next.
        retry_after_seconds: Sent as ``Retry-After`` when given.
        **fields: Machine-readable details; they travel in the answer under their own names.
    """

    exit_code = 5

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        advice: str = "",
        retry_after_seconds: int | None = None,
        **fields: object,
    ) -> None:
        super().__init__(message, advice=advice, **fields)
        self.status = status
        self.code = code
        self.retry_after_seconds = retry_after_seconds
