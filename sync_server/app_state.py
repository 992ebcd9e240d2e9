"""What the current app holds; apart from :mod:`sync_server.app`, so that rooms can import it."""

from __future__ import annotations

from typing import cast

from flask import current_app

from sync_server.blobs import Blobs
from sync_server.config import ServerConfig


def get_config() -> ServerConfig:
    """The current app's settings; needs an app context."""
    return cast("ServerConfig", current_app.extensions["config"])


def get_blobs() -> Blobs:
    """The current app's blob store; needs an app context."""
    return cast("Blobs", current_app.extensions["blobs"])
