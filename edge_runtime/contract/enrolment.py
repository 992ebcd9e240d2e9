"""The enrolment line: the only thing that bootstraps a device's trust.

``stella-enroll:1:<url>:<token>:<sha256 of root>:<targets version>``
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from edge_runtime.errors import ContractError

PREFIX = "stella-enroll"
FORMAT = 1
_LINE = re.compile(r"stella-enroll:(\d+):(.+):([A-Za-z0-9_-]{16,128}):([0-9a-f]{64}):(\d{1,15})")


@dataclass(frozen=True, slots=True)
class EnrolmentLine:
    """What an operator hands to a device.

    Attributes:
        url: The server, ``https://host[:port][/path]`` without a trailing slash.
        token: Enrolment token, secret.
        root_digest: SHA-256 of the root metadata to pin, hex.
        targets_version: Targets older than this are refused.
    """

    url: str
    token: str
    root_digest: str
    targets_version: int

    @classmethod
    def parse(cls, text: str) -> EnrolmentLine:
        """Read a line; the URL may hold colons, the parts after it may not.

        Raises:
            ContractError: Another form, another format number, or a URL without http(s) and host.
        """
        match = _LINE.fullmatch(text.strip())
        if match is None:
            raise ContractError(
                "This is not an enrolment line.",
                advice="Paste the whole line that `sync-server enrolment create` printed.",
            )
        number, url, token, digest, version = match.groups()
        if int(number) != FORMAT:
            raise ContractError(
                f"The enrolment line has format {number}; this device reads format {FORMAT}.",
                advice="Update edge-runtime.",
            )
        check_url(url)
        return cls(url.rstrip("/"), token, digest, int(version))

    def __str__(self) -> str:
        return f"{PREFIX}:{FORMAT}:{self.url}:{self.token}:{self.root_digest}:{self.targets_version}"


def check_url(url: str) -> str:
    """Return a server URL that has http or https, a host, and neither user, query nor fragment.

    Raises:
        ContractError: It has not.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or parts.username is not None or parts.query or parts.fragment or re.search(r"\s", url):
        raise ContractError(f"{url!r} is not the address of a server.", advice="Give it as https://host[:port].")
    return url
