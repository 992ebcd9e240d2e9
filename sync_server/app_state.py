"""What the current app holds; apart from :mod:`sync_server.app`, so that rooms can import it."""

from __future__ import annotations

from typing import cast

from cryptography.hazmat.primitives.asymmetric import ec
from flask import current_app

from sync_server.blobs import Blobs
from sync_server.config import ServerConfig
from sync_server.repository.online_key import load_or_create


def get_config() -> ServerConfig:
    """The current app's settings; needs an app context."""
    return cast("ServerConfig", current_app.extensions["config"])


def get_blobs() -> Blobs:
    """The current app's blob store; needs an app context."""
    return cast("Blobs", current_app.extensions["blobs"])


def get_online_key() -> ec.EllipticCurvePrivateKey:
    """The key for snapshot and timestamp, read (or made) on first use in this process.

    Raises:
        StorageError: The file cannot be used.
    """
    key = current_app.extensions.get("online_key")
    if key is None:
        key = load_or_create(get_config().online_key_path)
        current_app.extensions["online_key"] = key
    return cast("ec.EllipticCurvePrivateKey", key)
