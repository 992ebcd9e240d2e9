"""An enrolled device, opened: its home, who it is, its token, its slots, and the way to its server.

Example::

    with open_device(config) as device:
        report = synchronise(device, ...)
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from edge_runtime.bundle_store import BundleStore
from edge_runtime.config import Config
from edge_runtime.files import FileSystem
from edge_runtime.home import Home
from edge_runtime.http_transport import HttpTransport, TransportOptions
from edge_runtime.identity import Identity, load_identity, load_token
from edge_runtime.transport import Transport


@dataclass(frozen=True, slots=True)
class EnrolledDevice:
    """What sync, upload and status work with.

    Attributes:
        home: Where its files lie.
        identity: Who it is.
        token: Its device token; never printed.
        transport: Its server.
        store: Its bundles.
        files: Its disk.
        download_deadline_seconds: Longest time for one request for a bundle.
        refuse_below_goals: Whether a release that misses goals of its makers is refused.
    """

    home: Home
    identity: Identity
    token: str = field(repr=False)
    transport: Transport
    store: BundleStore
    files: FileSystem
    download_deadline_seconds: float = 900.0
    refuse_below_goals: bool = False


def now_ms() -> int:
    """Return the device's clock, UTC epoch milliseconds."""
    return time.time_ns() // 1_000_000


def transport_options(config: Config, *, insecure_http: bool) -> TransportOptions:
    """Return the transport's share of the configuration.

    Args:
        config: The configuration.
        insecure_http: Whether this device was enrolled with plain http allowed.
    """
    return TransportOptions(
        connect_timeout_seconds=config.connect_timeout_seconds,
        read_timeout_seconds=config.read_timeout_seconds,
        deadline_seconds=config.request_deadline_seconds,
        allow_insecure_http=insecure_http or config.allow_insecure_http,
        ca_file=config.ca_file,
    )


def device_with(
    home: Home, transport: Transport, *, download_deadline_seconds: float = 900.0, refuse_below_goals: bool = False
) -> EnrolledDevice:
    """Open an enrolled device over a transport that exists already.

    Raises:
        StorageError: The home is not enrolled, or a file of it is damaged.
    """
    files = FileSystem()
    identity, token = load_identity(home), load_token(home)
    store = BundleStore(home.path, files)
    return EnrolledDevice(home, identity, token, transport, store, files, download_deadline_seconds, refuse_below_goals)


@contextlib.contextmanager
def open_device(config: Config) -> Iterator[EnrolledDevice]:
    """Open the device of the configured home.

    Raises:
        StorageError: The home is not enrolled, or a file of it is damaged.
        TrustError: Its server may not be spoken to over plain http (reason ``insecure_http``).
    """
    home = Home(config.home)
    identity = load_identity(home)
    options = transport_options(config, insecure_http=identity.insecure_http)
    with HttpTransport(identity.server_url, options) as transport:
        yield device_with(
            home,
            transport,
            download_deadline_seconds=config.download_deadline_seconds,
            refuse_below_goals=config.refuse_below_goals,
        )
