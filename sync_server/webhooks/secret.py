"""Secrets of webhooks and the signature, as https://www.standardwebhooks.com describes it.

The server must know a secret to sign with it, so a hash will not do. Secrets are therefore stored nowhere: each is
HMAC-SHA256 of the hook's random salt, which is in the database, under a key that is in ``DATA_DIR/keys/webhooks.key``
(0600). Whoever has a copy of the database alone can sign nothing.

A receiver recomputes ``v1,`` + base64(HMAC-SHA256(secret, id + "." + timestamp + "." + body)), where the secret is
what follows ``whsec_`` in base64, and refuses timestamps that are minutes away. Ready-made libraries do it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from pathlib import Path

from edge_runtime.errors import StorageError
from sync_server.private_files import check_private, create_once

_KEY_BYTES = 32


def load_or_create_key(path: Path) -> bytes:
    """Return the key that secrets derive from, made on first use; processes that start together agree on one.

    Raises:
        StorageError: The file cannot be read or written, is open to others, or holds no key.
    """
    try:
        if not path.exists():
            create_once(path, secrets.token_hex(_KEY_BYTES).encode() + b"\n")
        check_private(path, "The webhooks key")
        key = bytes.fromhex(path.read_text("ascii"))
    except (OSError, ValueError) as error:
        raise StorageError(
            f"The webhooks key {path} cannot be used: {error}.", advice="Restore it from the backup of this server."
        ) from error
    if len(key) != _KEY_BYTES:
        raise StorageError(f"The webhooks key {path} is cut short.", advice="Restore it from the backup.")
    return key


def secret_of(key: bytes, salt: bytes) -> bytes:
    """Return the 32 bytes that sign what goes to the hook with this salt."""
    return hmac.new(key, b"stella-webhook\0" + salt, hashlib.sha256).digest()


def secret_text(secret: bytes) -> str:
    """Return a secret as people pass it on: ``whsec_`` and base64."""
    return f"whsec_{base64.b64encode(secret).decode()}"


def signed_headers(secret: bytes, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the three headers that carry the identity, the time of sending (Unix seconds) and the signature."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": event_id, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,{signature}"}
