"""The body of an upload, read without trusting it: bounded as sent and as unpacked, one gzip member, nothing after it.

A gzip bomb costs at most one chunk more than the limit, because unpacking stops as soon as the limit is passed.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Protocol

from edge_runtime.contract.batch import MAX_BATCH_BYTES, MAX_BATCH_GZIP_BYTES
from sync_server.errors import RequestError

_CHUNK = 65_536
_GZIP = 31  # zlib: 15 window bits + 16 for a gzip header and checksum


class Readable(Protocol):
    """Where the body comes from."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, empty at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Body:
    """A body that was read.

    Attributes:
        content: Unpacked.
        sent_bytes: Its size as sent.
    """

    content: bytes
    sent_bytes: int


def read_body(stream: Readable, encoding: str) -> Body:
    """Read and unpack a body.

    Args:
        stream: The request's body as sent.
        encoding: The ``Content-Encoding`` header: ``gzip``, ``identity`` or empty.

    Returns:
        At most 8 MiB, unpacked.

    Raises:
        RequestError: 413 for more than 1 MiB as sent or 8 MiB unpacked, 415 for another encoding, 400 for gzip that is
            broken, cut short or followed by something.
    """
    if encoding.strip().lower() == "gzip":
        return _gunzip(stream)
    if encoding.strip().lower() in ("", "identity"):
        body = bytearray()
        while chunk := stream.read(_CHUNK):
            body += chunk
            _check_sent(len(body))
        return Body(bytes(body), len(body))
    raise RequestError(
        415, "encoding_unknown", f"The upload is encoded as {encoding[:40]!r}.", advice="Send it as gzip or as it is."
    )


def _gunzip(stream: Readable) -> Body:
    unpacker = zlib.decompressobj(_GZIP)
    body = bytearray()
    sent = 0
    while chunk := stream.read(_CHUNK):
        sent += len(chunk)
        _check_sent(sent)
        try:
            # One byte of room beyond the limit tells "too large" from "exactly full".
            body += unpacker.decompress(chunk, MAX_BATCH_BYTES + 1 - len(body))
        except zlib.error as error:
            raise _broken(str(error)) from error
        if len(body) > MAX_BATCH_BYTES:
            raise RequestError(
                413, "batch_too_large", f"The upload unpacks to more than {MAX_BATCH_BYTES} bytes.",
                advice="Send fewer records at once.",
            )  # fmt: skip
        if unpacker.unused_data:
            raise _broken("there is something after its end")
    if not unpacker.eof:
        raise _broken("it is cut short")
    return Body(bytes(body), sent)


def _check_sent(size: int) -> None:
    if size > MAX_BATCH_GZIP_BYTES:
        raise RequestError(
            413, "body_too_large", f"The upload is larger than {MAX_BATCH_GZIP_BYTES} bytes.",
            advice="Send fewer records at once.",
        )  # fmt: skip


def _broken(how: str) -> RequestError:
    return RequestError(
        400, "gzip_broken", f"The upload is not whole gzip: {how}.", advice="Send the same records again."
    )
