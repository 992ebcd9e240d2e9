"""What python-tuf refuses, in our words: one row for each of its exceptions, with the reason code that is reported."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tuf.api import exceptions

from edge_runtime.errors import TransportError, TrustError


@contextlib.contextmanager
def translated_tuf(server: str) -> Iterator[None]:
    """Turn python-tuf's exceptions into ours, one row each.

    Raises:
        TrustError: What the repository showed is refused.
        TransportError: It could not be fetched.
    """
    try:
        yield
    except (exceptions.RepositoryError, exceptions.DownloadError) as error:
        if isinstance(error, exceptions.DownloadError) and not isinstance(
            error, exceptions.DownloadLengthMismatchError
        ):
            status = getattr(error, "status_code", None)
            raise TransportError(
                f"{server} did not deliver its metadata: {error}",
                status=status,
                advice="Check the server's address, and that a release was published there.",
            ) from error
        reason, sentence, advice = next(row[1:] for row in _REFUSALS if isinstance(error, row[0]))
        raise TrustError(f"The metadata of {server} {sentence} ({error}).", reason=reason, advice=advice) from error


_KEEP = "Nothing was changed and scoring goes on; "
_REFUSALS: tuple[tuple[type[Exception], str, str, str], ...] = (
    (
        exceptions.ExpiredMetadataError,
        "metadata_expired",
        "has expired",
        _KEEP + "check this device's clock, and that the server runs and re-signs.",
    ),
    (
        exceptions.BadVersionNumberError,
        "metadata_rollback",
        "is older than what this device has seen",
        _KEEP + "the server was restored from an old copy, or somebody replays old metadata.",
    ),
    (
        exceptions.UnsignedMetadataError,
        "metadata_unsigned",
        "is not signed by the keys that root names",
        _KEEP + "tell the release engineers.",
    ),
    (
        exceptions.LengthOrHashMismatchError,
        "metadata_mismatch",
        "does not have the digest that signed metadata gives",
        _KEEP + "it is tried again.",
    ),
    (
        exceptions.DownloadLengthMismatchError,
        "metadata_too_large",
        "is longer than it may be",
        _KEEP + "check the server's address.",
    ),
    (
        exceptions.RepositoryError,
        "metadata_invalid",
        "cannot be read",
        _KEEP + "check the server's address, or tell the release engineers.",
    ),
)
