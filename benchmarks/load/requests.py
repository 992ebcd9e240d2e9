"""The requests of a device, byte for byte as ``edge_runtime`` sends them; a test compares the two."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edge_runtime import __version__
from edge_runtime.contract.batch import encode_batch
from edge_runtime.contract.result import AnyRecord
from edge_runtime.contract.routes import DEVICE_STATUS, METADATA, RESULTS, TARGETS
from edge_runtime.upload import GZIP_LEVEL
from edge_runtime.versions import runtime_versions

JSON, GZIP = "Content-Type: application/json", "Content-Encoding: gzip"
_RUNTIME = asdict(runtime_versions())


class Requests:
    """Builds requests for one server.

    Args:
        host: Host and port, as in the URL.
    """

    def __init__(self, host: str) -> None:
        self._host = f"Host: {host}\r\n".encode()
        self._agent = f"User-Agent: edge-runtime/{__version__}\r\nAccept-Encoding: identity\r\n".encode()

    def root(self, version: int) -> bytes:
        """Ask for a root, mostly one that does not exist yet."""
        return self._get(f"{METADATA}{version}.root.json")

    def timestamp(self, etag: str = "") -> bytes:
        """Ask for timestamp.json; with an ETag as browsers do, without one as python-tuf does."""
        return self._get(f"{METADATA}timestamp.json", f"If-None-Match: {etag}\r\n" if etag else "")

    def metadata(self, version: int, role: str) -> bytes:
        """Ask for snapshot or targets of a version."""
        return self._get(f"{METADATA}{version}.{role}.json")

    def target(self, url_path: str) -> bytes:
        """Ask for a whole bundle."""
        return self._get(TARGETS + url_path)

    def results(self, token: str, stream: str, sent_at_ms: int, records: Sequence[AnyRecord]) -> bytes:
        """Upload a batch."""
        body = gzip.compress(encode_batch(stream, sent_at_ms, records), GZIP_LEVEL, mtime=0)
        return self._post(RESULTS, token, (JSON, GZIP), body)

    def status(self, token: str, fields: dict[str, Any]) -> bytes:
        """Tell how the device is."""
        return self._post(DEVICE_STATUS, token, (JSON,), json.dumps(fields, ensure_ascii=False).encode())

    def _get(self, path: str, more: str = "") -> bytes:
        return f"GET {path} HTTP/1.1\r\n".encode() + self._host + self._agent + more.encode() + b"\r\n"

    def _post(self, path: str, token: str, headers: Sequence[str], body: bytes) -> bytes:
        own = "".join(f"{line}\r\n" for line in (f"Authorization: Bearer {token}", *headers))
        length = f"Content-Length: {len(body)}\r\n".encode()
        return f"POST {path} HTTP/1.1\r\n".encode() + self._host + length + self._agent + own.encode() + b"\r\n" + body


def status_fields(
    *, bundle: str | None, release: int, version: str, cohort: str, records: int, at_ms: int, readings: int
) -> dict[str, Any]:
    """Return what a device says of itself, with the fields of ``edge_runtime.device_status``."""
    active = {"bundle": bundle, "release": release, "version": version} if bundle else None
    update = {"outcome": "activated", "reason": None, "release": release, "at_ms": at_ms} if bundle else None
    return {
        "active": active,
        "previous": None,
        "outbox": {"records": records, "dead_letters": 0, "oldest_ms": None},
        "counters": {"accepted": readings, "scored": readings, "acknowledged": readings // 60},
        "last_update": update,
        "stale": False,
        "cohort": cohort,
        "runtime": _RUNTIME,
        "insecure_http": False,
    }
