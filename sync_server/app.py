"""The WSGI application: one factory, no global state.

Example::

    app = create_app(load_config(data_dir=Path("var")), Database(url))
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

from flask import Blueprint, Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from edge_runtime.errors import InputError
from sync_server import http, rooms
from sync_server.blobs import Blobs
from sync_server.config import ServerConfig
from sync_server.db import Database


def create_app(config: ServerConfig, database: Database | None = None) -> Flask:
    """Build the application.

    ``app.extensions`` holds ``config`` (:class:`ServerConfig`), ``database`` (:class:`Database`) and ``blobs``
    (:class:`Blobs`); nothing of it is shared between processes.

    Args:
        config: The settings.
        database: The database to use; None opens ``config.database_url``.

    Raises:
        InputError: No database is given, or a setting makes no sense.
    """
    if database is None:
        if not config.database_url:
            raise InputError("No database is given.", advice="Set DATABASE_URL, or start with sync-server run.")
        database = Database(
            config.database_url, pool_size=config.threads, statement_timeout_ms=config.statement_timeout_ms
        )
    app = Flask("sync_server", static_folder=None, template_folder=None)
    app.config.update(
        MAX_CONTENT_LENGTH=config.max_body_bytes,
        MAX_FORM_MEMORY_SIZE=64 * 1024,  # fields of forms; files of a publish are not counted
        MAX_FORM_PARTS=32,
        TRAP_HTTP_EXCEPTIONS=False,
    )
    app.extensions["config"] = config
    app.extensions["database"] = database
    app.extensions["blobs"] = Blobs.from_config(config)
    rooms.load_models()
    http.install(app)
    for place in rooms.BLUEPRINTS:
        module, _, attribute = place.partition(":")
        app.register_blueprint(cast("Blueprint", getattr(import_module(module), attribute)))
    if config.trusted_proxies:
        hops = config.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    return app
