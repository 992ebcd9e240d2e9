"""Which addresses a webhook may have: the server must not become a way into the network that it stands in.

Public addresses are called over https only. Private ones only when the hook was made with ``--allow-private``, which
the command line can give and the API cannot; plain http is for those alone. Link-local ones, where clouds keep the
credentials of machines, never. Names are resolved once a call and the connection goes to what was checked, so that an
answer that changes in between helps nobody.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from edge_runtime.errors import InputError, TransportError

MOST_CHARACTERS = 2_000
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last four bytes are an IPv4 address

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Target:
    """A webhook's URL, taken apart.

    Attributes:
        scheme: ``http`` or ``https``.
        host: Name or address, without brackets.
        port: TCP port.
        path: Path and query, at least ``/``.
    """

    scheme: str
    host: str
    port: int
    path: str


def parse_url(url: str, *, allow_private: bool) -> Target:
    """Take a URL apart.

    Raises:
        InputError: It is no web address in ASCII, carries a user or a fragment, is http without ``allow_private``, or
            names an address that may not be called.
    """
    try:
        if not url.isascii() or not url.isprintable() or " " in url or len(url) > MOST_CHARACTERS:
            raise ValueError
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError) as error:
        raise InputError("The webhook's URL is no web address.", advice="Write it as https://host/path.") from error
    if not parts.hostname or "@" in parts.netloc or parts.fragment:
        raise InputError(
            "The webhook's URL has no host, or carries a user or a fragment.", advice="Write it as https://host/path."
        )
    if parts.scheme == "http" and not allow_private:
        raise InputError(
            "The webhook's URL is not https.", advice="Use https; http is for private addresses with --allow-private."
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    target = Target(parts.scheme, parts.hostname, port, path)
    literal = _literal(target.host)
    if literal is not None and (reason := _refusal(literal, target, allow_private=allow_private)):
        raise InputError(reason, advice="Use an address that this server may call.")
    return target


def resolve(target: Target, *, allow_private: bool) -> list[str]:
    """Return the addresses of a target, all of which may be called.

    Raises:
        TransportError: The name is not known, or one of its addresses may not be called.
    """
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise TransportError(f"The host {target.host} is not known.", advice="Check the webhook's URL.") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for text in addresses:
        if reason := _refusal(ipaddress.ip_address(text), target, allow_private=allow_private):
            raise TransportError(reason, advice="Use an address that this server may call.")
    return addresses


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _embedded(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _refusal(address: Address, target: Target, *, allow_private: bool) -> str:
    """Return the sentence why an address may not be called, empty when it may."""
    meant = _embedded(address)
    if meant.is_link_local or meant.is_multicast or meant.is_unspecified:
        return f"{target.host} is {address}, an address that webhooks never call."
    public = meant.is_global
    if not public and not allow_private:
        return f"{target.host} is {address}, a private address, which this webhook may not call."
    if public and target.scheme == "http":
        return f"{target.host} is {address}, a public address, which needs https."
    return ""
