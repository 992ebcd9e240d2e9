"""Every error that Stella Edge raises on purpose, in one tree.

::

    StellaError
    ├── ContractError    bytes or values that break a format of the contract   exit 3
    ├── InputError       telemetry, options or files that cannot be used       exit 3
    ├── TrustError       a signature, metadata or enrolment that is refused    exit 4
    ├── TransportError   the network or the server did not do its part         exit 5
    ├── StorageError     disk or database did not do its part                  exit 6
    └── ScoringError     a model that cannot be loaded, trusted or run         exit 7

Each error carries one sentence for a person, advice on what to do next, and fields for machines. Command lines
catch ``StellaError`` once, print both sentences and leave with its ``exit_code``. The exporter and the server
extend this tree in their own ``errors`` modules; nothing here knows of them.
"""

from __future__ import annotations

# Exit code of a command that Ctrl-C or SIGTERM ended.
INTERRUPTED = 130


class StellaError(Exception):
    """What happened, to what, and what to do about it.

    Args:
        message: One sentence: what happened, to which file, device or bundle.
        advice: One sentence: what to do next. Empty when the message says it all.
        **fields: Machine-readable details, such as ``path``, ``expected`` and ``got``.
    """

    exit_code = 1
    code = "error"

    def __init__(self, message: str, *, advice: str = "", **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.fields = fields

    def __str__(self) -> str:
        return f"{self.message} {self.advice}".strip()

    def to_dict(self) -> dict[str, object]:
        """Return the error as one JSON-ready object, as ``--json`` prints it."""
        return {"error": self.code, "message": self.message, "advice": self.advice, **self.fields}


class ContractError(StellaError):
    """Bytes or values that break a format of the contract."""

    exit_code = 3
    code = "contract"


class InputError(StellaError):
    """Telemetry, options or files that a person gave and that cannot be used."""

    exit_code = 3
    code = "input"


class TrustError(StellaError):
    """A signature, metadata, release or enrolment that is refused.

    Args:
        message: One sentence: what was refused.
        reason: The reason code that is reported to the server and listed in the docs, such as ``bad_signature``.
        advice: One sentence: what to do next.
        **fields: Machine-readable details.
    """

    exit_code = 4
    code = "trust"

    def __init__(self, message: str, *, reason: str, advice: str = "", **fields: object) -> None:
        super().__init__(message, advice=advice, reason=reason, **fields)
        self.reason = reason


class TransportError(StellaError):
    """The network or the server did not do its part.

    Args:
        message: One sentence: which request failed and how.
        status: The HTTP status, or None when no answer came.
        retry_after_seconds: What the server asked for, or None.
        advice: One sentence: what to do next.
        **fields: Machine-readable details.
    """

    exit_code = 5
    code = "transport"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after_seconds: float | None = None,
        advice: str = "",
        **fields: object,
    ) -> None:
        super().__init__(message, advice=advice, status=status, **fields)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class StorageError(StellaError):
    """Disk or database did not do its part: full, read-only, damaged, away."""

    exit_code = 6
    code = "storage"


class ScoringError(StellaError):
    """A model that cannot be loaded, fails its golden windows, or cannot score what it was given.

    Args:
        message: One sentence: which model, and what went wrong.
        reason: The reason code that is reported to the server, such as ``golden_failed``.
        advice: One sentence: what to do next.
        **fields: Machine-readable details.
    """

    exit_code = 7
    code = "scoring"

    def __init__(self, message: str, *, reason: str, advice: str = "", **fields: object) -> None:
        super().__init__(message, advice=advice, reason=reason, **fields)
        self.reason = reason
