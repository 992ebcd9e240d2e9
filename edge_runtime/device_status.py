"""What a device says of itself: to its server after each round, and to the person who asks ``status``.

Example::

    report_status(device, database)
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from edge_runtime.bundle_store import BundleStore, SlotEntry
from edge_runtime.contract.routes import DEVICE_STATUS
from edge_runtime.device import EnrolledDevice, now_ms
from edge_runtime.edge_db import EdgeDatabase
from edge_runtime.errors import StorageError
from edge_runtime.freshness import expires_ms, is_stale
from edge_runtime.home import Home
from edge_runtime.identity import Identity
from edge_runtime.outbox import Outbox
from edge_runtime.scoring_status import scoring_status
from edge_runtime.transport import Request, Transport, bearer, call
from edge_runtime.update_outcome import load_outcome
from edge_runtime.versions import runtime_versions

# Enough to see a pattern in what the server refuses.
SHOWN_REFUSALS = 5


def status_fields(home: Home, identity: Identity, database: EdgeDatabase | None) -> dict[str, Any]:
    """Return what the server is told, as JSON-ready fields.

    Args:
        home: The device's home.
        identity: Who it is.
        database: Its ``edge.db``, or None when it has none yet.

    Raises:
        StorageError: The database cannot be read.
    """
    pointer = _pointer(home)
    last = load_outcome(home)
    return {
        "active": None if pointer is None else _slot(pointer[0]),
        "previous": None if pointer is None or pointer[1] is None else _slot(pointer[1]),
        "outbox": _outbox(database),
        "counters": {} if database is None else database.counters(),
        "last_update": None if last is None else last.to_status(),
        "stale": is_stale(home.trust, now_ms()),
        "cohort": identity.cohort,
        "runtime": asdict(runtime_versions()),
        "insecure_http": identity.insecure_http,
    }


def shown_fields(home: Home, identity: Identity, database: EdgeDatabase | None) -> dict[str, Any]:
    """Return what a person is shown: the same, and who the device is, and whether its bundle is whole.

    Raises:
        StorageError: The database cannot be read.
    """
    damage = ""
    try:
        BundleStore(home.path).active()
    except StorageError as error:
        damage = str(error)
    last = load_outcome(home)
    return {
        "device_id": identity.device_id,
        "name": identity.name,
        "server": identity.server_url,
        "model": identity.model,
        "channel": identity.channel,
        "home": str(home.path),
        **status_fields(home, identity, database),
        "scoring": None if database is None else scoring_status(database),
        "refused": []
        if database is None
        else [asdict(letter) for letter in Outbox(database).dead_letters(SHOWN_REFUSALS)],
        "metadata_expires_ms": expires_ms(home.trust),
        "last_update_message": last.message if last is not None else None,
        "damage": damage or None,
    }


def report_status(device: EnrolledDevice, database: EdgeDatabase) -> None:
    """Tell the server how the device is.

    Raises:
        TransportError: It could not be told; nothing depends on it.
        StorageError: The database cannot be read.
    """
    fields = status_fields(device.home, device.identity, database)
    send_status(device.transport, device.token, fields)


def send_status(transport: Transport, token: str, fields: dict[str, Any]) -> None:
    """Post status fields.

    Raises:
        TransportError: No answer, or another one than 204.
    """
    headers = {**bearer(token), "Content-Type": "application/json"}
    request = Request("POST", DEVICE_STATUS, headers, json.dumps(fields, ensure_ascii=False).encode())
    call(transport, request, limit=1024, expected=(204,))


def _pointer(home: Home) -> tuple[SlotEntry, SlotEntry | None] | None:
    try:
        pointer = BundleStore(home.path).pointer()
    except StorageError:
        return None  # the damage has a place of its own in what is shown
    return None if pointer is None else (pointer.active, pointer.previous)


def _slot(entry: SlotEntry) -> dict[str, Any]:
    return {"bundle": entry.digest, "release": entry.release_number, "version": entry.version}


def _outbox(database: EdgeDatabase | None) -> dict[str, Any]:
    if database is None:
        return {"records": 0, "dead_letters": 0, "oldest_ms": None}
    state = Outbox(database).state()
    return {"records": state.records, "dead_letters": state.dead_letters, "oldest_ms": state.oldest_ms}
