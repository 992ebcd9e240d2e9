"""First trust: from one line that a person carried here to a device that knows its server, its root and its channel.

Example::

    identity = enrol(home, line, transport, FileSystem(), Wishes(name="pump 7", cohort="FD001"))
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edge_runtime.contract.enrolment import EnrolmentLine
from edge_runtime.contract.names import MAX_COHORT_CHARACTERS, check_name
from edge_runtime.contract.routes import DEVICES, root_by_digest
from edge_runtime.errors import ContractError, InputError, TransportError, TrustError
from edge_runtime.files import FileSystem
from edge_runtime.home import Home
from edge_runtime.identity import Identity, installation_id, is_enrolled, load_identity, save_identity
from edge_runtime.transport import Request, Transport, bearer, call, call_json
from edge_runtime.trust import MAX_ROOT_BYTES, check_root, pin_root
from edge_runtime.versions import runtime_versions

MAX_NAME_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the person who enrols decides.

    Attributes:
        name: A name for people, or None.
        cohort: Devices that share a model (hardware type, firmware), or None for the default bundle.
        insecure_http: Plain http to another machine was allowed.
    """

    name: str | None = None
    cohort: str | None = None
    insecure_http: bool = False

    def __post_init__(self) -> None:
        """Refuse what the server would refuse, before anything is sent.

        Raises:
            InputError: A name or cohort that is empty, too long, or holds control characters.
        """
        limits = (("name", self.name, MAX_NAME_CHARACTERS), ("cohort", self.cohort, MAX_COHORT_CHARACTERS))
        for what, text, most in limits:
            if text is not None and not (0 < len(text) <= most and text.isprintable()):
                raise InputError(
                    f"The {what} {text[:40]!r} cannot be used.",
                    advice=f"Give 1 to {most} printable characters, or leave --{what} out.",
                )


def enrol(home: Home, line: EnrolmentLine, transport: Transport, files: FileSystem, wishes: Wishes) -> Identity:
    """Enrol this installation, or enrol it again with a new token.

    1. The home belongs to no other server. 2. The root that the line names is fetched and checked. 3. It is pinned.
    4. The server gives a device id and token for this installation's id, the same device when it is asked again.
    5. Token and identity are stored; with the last of them the home is enrolled.

    Args:
        home: The device's home; the caller holds its lock.
        line: The parsed enrolment line.
        transport: The server that the line names.
        files: The disk.
        wishes: Name, cohort, insecure http.

    Raises:
        TrustError: Another root than the line names (reason ``wrong_root``), a root that is none
            (``metadata_invalid``), or a home of another server (``already_enrolled``).
        TransportError: The server could not be reached, or refused the token.
        StorageError: Disk full or not permitted.
    """
    _check_home(home, line)  # 1
    installation = installation_id(home, files)
    request = Request("GET", root_by_digest(line.root_digest))
    try:
        root = call(transport, request, limit=MAX_ROOT_BYTES)
    except TransportError as error:
        raise _no_such_root(line, error) if error.status == 404 else error from error
    check_root(root, line.root_digest)  # 2
    pin_root(home, root, line.root_digest, files)  # 3
    answer = _register(transport, line, installation, wishes)  # 4
    identity = _identity(answer, line, installation, wishes)
    save_identity(home, identity, _token(answer), files)  # 5
    return identity


def _check_home(home: Home, line: EnrolmentLine) -> None:
    if is_enrolled(home) and (url := load_identity(home).server_url) != line.url:
        raise TrustError(
            f"The home {home.path} is enrolled with {url}; this line is for {line.url}.",
            reason="already_enrolled",
            advice="Use another folder (--home), or remove this one when its results have been uploaded.",
        )


def _no_such_root(line: EnrolmentLine, error: TransportError) -> TrustError:
    return TrustError(
        f"{line.url} does not have the root of trust that the enrolment line names.",
        reason="wrong_root",
        advice="Get a new line from the operator of this very server.",
        problem=str(error),
    )


def _register(transport: Transport, line: EnrolmentLine, installation: str, wishes: Wishes) -> dict[str, Any]:
    body = {
        "installation_id": installation,
        "name": wishes.name,
        "cohort": wishes.cohort,
        "kind": "edge",
        "runtime": asdict(runtime_versions()),
    }
    headers = {**bearer(line.token), "Content-Type": "application/json"}
    request = Request("POST", DEVICES, headers, json.dumps(body).encode())
    try:
        return call_json(transport, request, expected=(200, 201))
    except TransportError as error:
        if error.status != 401:
            raise
        raise TransportError(
            error.message,
            status=401,
            advice="The enrolment token was used up, has expired or was revoked: get a new line from the operator.",
        ) from error


def _identity(answer: Mapping[str, Any], line: EnrolmentLine, installation: str, wishes: Wishes) -> Identity:
    try:
        return Identity(
            device_id=_short(answer, "device_id"),
            installation_id=installation,
            server_url=line.url,
            model=check_name("model", answer.get("model")),
            channel=check_name("channel", answer.get("channel")),
            cohort=wishes.cohort,
            name=wishes.name,
            root_sha256=line.root_digest,
            targets_version=line.targets_version,
            insecure_http=wishes.insecure_http,
        )
    except ContractError as error:
        raise _not_understood(line.url) from error


def _token(answer: Mapping[str, Any]) -> str:
    token = answer.get("token")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not 16 <= len(token) <= 256:
        raise _not_understood("The server")
    return token


def _short(answer: Mapping[str, Any], field: str) -> str:
    value = answer.get(field)
    if not isinstance(value, str) or not 0 < len(value) <= 64 or not value.isprintable():
        raise ContractError(f"Field {field!r} is missing.")
    return value


def _not_understood(server: str) -> TransportError:
    return TransportError(
        f"{server} answered the enrolment with something this device does not understand.",
        advice="Check the server's address and that server and device are of the same version.",
    )
