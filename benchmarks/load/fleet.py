"""Who the simulated devices are: ids, tokens and streams made from one secret, so that a million need no memory.

Example::

    fleet = Fleet(secret, devices=1_000_000)
    fleet.device_id(7), fleet.token(7), fleet.stream(7)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from edge_runtime.contract.enrolment import EnrolmentLine

MOST_DEVICES = 1_000_000
COHORTS = 20


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet of simulated devices; device ``k`` is the same in every process that knows the secret.

    Attributes:
        secret: 32 bytes; whoever has it has every token.
        devices: How many.
    """

    secret: bytes
    devices: int

    def device_id(self, device: int) -> str:
        """32 hex digits, as the server would have drawn them."""
        return self._derived("id", device).hex()[:32]

    def installation_id(self, device: int) -> str:
        """32 hex digits, as the device would have drawn them."""
        return self._derived("installation", device).hex()[:32]

    def token(self, device: int) -> str:
        """The device token, in the form of ``sync_server.access.tokens``."""
        text = base64.urlsafe_b64encode(self._derived("token", device)).decode().rstrip("=")
        return f"st_dev_{text}"

    def stream(self, device: int) -> str:
        """The id of the device's stream, 32 hex digits."""
        return self._derived("stream", device).hex()[:32]

    def cohort(self, device: int) -> str:
        """One of 20 cohorts."""
        return f"hardware-{device % COHORTS:02d}"

    def draw(self, what: str, device: int) -> float:
        """Return a number in [0, 1) that is always the same for a device and a purpose."""
        return int.from_bytes(self._derived(what, device)[:6], "big") / 2**48

    def _derived(self, what: str, device: int) -> bytes:
        return hmac.digest(self.secret, f"{what}:{device}".encode(), "sha256")


def new_secret() -> bytes:
    """Return 32 random bytes."""
    return secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What enrolling a fleet brought.

    Attributes:
        line: The enrolment line that the devices carry, as an operator would have handed it to them.
        enrolment_id: Its number; ``devices.enrolment_id`` of the whole fleet.
    """

    line: EnrolmentLine
    enrolment_id: int


def enrol_in_bulk(database_url: str, fleet: Fleet, *, url: str, model: str, channel: str) -> Enrolled:
    """Enrol a fleet straight into the server's database: what ``POST /api/devices`` would leave, in one transaction.

    The enrolment token is made by the server's own code and used up; device tokens are stored as their SHA-256.

    Args:
        database_url: The app role's address.
        fleet: The devices.
        url: The server, as devices reach it.
        model: What they run.
        channel: What they follow.

    Raises:
        RequestError: Nothing was published yet.
        psycopg.Error: The database refuses.
    """
    from sync_server.access.tokens import digest_of
    from sync_server.db import Database, utc_now
    from sync_server.devices.enrolment import create_enrolment
    from sync_server.repository.metadata import enrolment_facts

    database = Database(database_url, pool_size=1, statement_timeout_ms=0)
    try:
        with database.session() as session:
            root, version = enrolment_facts(session)
            line = create_enrolment(
                session, model=model, channel=channel, uses=fleet.devices, expires_days=1, url=url, root_digest=root,
                targets_version=version, actor="load generator",
            )  # fmt: skip
            session.flush()
            connection: Any = session.connection().connection.driver_connection
            found = connection.execute("SELECT id FROM access_tokens WHERE digest = %s", (digest_of(line.token),))
            enrolment = int(found.fetchone()[0])
            connection.execute("UPDATE access_tokens SET uses_left = 0 WHERE id = %s", (enrolment,))
            now = utc_now()
            with connection.cursor() as cursor:
                with cursor.copy(_TOKENS) as copy:
                    for row in _token_rows(fleet):
                        copy.write_row(("dev", *row, now))
                with cursor.copy(_DEVICES) as copy:
                    for row in _device_rows(fleet):
                        # Seen an hour ago, as a device is that polls hourly.
                        copy.write_row((*row, enrolment, "edge", model, channel, now, now - timedelta(hours=1)))
        return Enrolled(line, enrolment)
    finally:
        database.dispose()


_TOKENS = "COPY access_tokens (kind, digest, name, subject, created_at) FROM STDIN"
_DEVICES = (
    "COPY devices (id, installation_id, cohort, enrolment_id, kind, model, channel, created_at, last_seen_at)"
    " FROM STDIN"
)


def _token_rows(fleet: Fleet) -> Iterator[tuple[bytes, str, str]]:
    for device in range(fleet.devices):
        name = fleet.device_id(device)
        yield hashlib.sha256(fleet.token(device).encode()).digest(), f"device {name}", name


def _device_rows(fleet: Fleet) -> Iterator[tuple[str, str, str]]:
    for device in range(fleet.devices):
        yield fleet.device_id(device), fleet.installation_id(device), fleet.cohort(device)
