"""Who this device is: the installation id it made for itself, and what enrolment pinned.

``installation.json`` is written once, before the first request, so that an enrolment that is cut off and tried again
is the same device to the server. ``device.json`` says where the device belongs and appears last: a home with it is
enrolled, a home without it is not. The token lies apart in a file that only this user can read.

Example::

    identity = load_identity(Home(path))
    token = load_token(Home(path))
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_runtime.errors import StorageError
from edge_runtime.files import FileSystem, translated, write_atomically
from edge_runtime.home import Home

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Identity:
    """What enrolment gave and pinned; the cohort is the only part a person edits later.

    Attributes:
        device_id: The server's name for this device.
        installation_id: 32 hex digits, made by this installation.
        server_url: Where metadata, bundles and results travel.
        model: The only model this device runs.
        channel: The line of releases it follows.
        cohort: Devices that share a model (hardware type, firmware); None for the default bundle.
        name: A name for people, or None.
        root_sha256: Digest of the pinned TUF root, 64 hex digits.
        targets_version: Older targets metadata than this version is refused.
        insecure_http: Whether tokens may travel over plain http to another machine.
    """

    device_id: str
    installation_id: str
    server_url: str
    model: str
    channel: str
    cohort: str | None
    name: str | None
    root_sha256: str
    targets_version: int
    insecure_http: bool

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Identity:
        """Read what :meth:`to_dict` wrote; unknown fields are left alone.

        Raises:
            KeyError: A field is missing.
            ValueError: A field has another type, or the format is newer.
        """
        if fields["format"] != FORMAT:
            raise ValueError(f"format {fields['format']!r} is not {FORMAT}")
        texts = ("device_id", "installation_id", "server_url", "model", "channel", "root_sha256")
        if not all(isinstance(fields[name], str) and fields[name] for name in texts):
            raise ValueError("an identifier is not a text")
        if not all(isinstance(fields.get(name), str | None) for name in ("cohort", "name")):
            raise ValueError("cohort or name is not a text")
        return cls(
            **{name: fields[name] for name in texts},
            cohort=fields.get("cohort"),
            name=fields.get("name"),
            targets_version=int(fields["targets_version"]),
            insecure_http=bool(fields["insecure_http"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the object that device.json holds."""
        return {"format": FORMAT, **asdict(self)}


def installation_id(home: Home, files: FileSystem) -> str:
    """Return this installation's id, making it (128 random bits, on disk before it is used) the first time.

    Raises:
        StorageError: The file is damaged or cannot be written.
    """
    if not home.installation.exists():
        home.create()
        made = {"installation_id": secrets.token_hex(16)}
        write_atomically(files, home.installation, json.dumps(made).encode())
    fields = _read_json(home.installation)
    found = fields.get("installation_id")
    if not isinstance(found, str) or len(found) != 32:
        raise _damaged(home.installation)
    return found


def is_enrolled(home: Home) -> bool:
    """Say whether the home belongs to an enrolled device."""
    return home.device.exists()


def load_identity(home: Home) -> Identity:
    """Read device.json.

    Raises:
        StorageError: The home is not enrolled (reason ``not_enrolled``) or the file is damaged.
    """
    if not is_enrolled(home):
        raise StorageError(
            f"The home {home.path} holds no enrolled device.",
            advice="Run `edge-runtime enroll LINE` with a line from `sync-server enrolment create`.",
            reason="not_enrolled",
            path=str(home.path),
        )
    fields = _read_json(home.device)
    try:
        return Identity.from_dict(fields)
    except (KeyError, ValueError, TypeError) as error:
        raise _damaged(home.device) from error


def save_identity(home: Home, identity: Identity, token: str, files: FileSystem) -> None:
    """Store the token, then the identity: device.json is what makes the home an enrolled one, so it comes last.

    Raises:
        StorageError: Disk full or not permitted; an earlier identity stays valid.
    """
    write_atomically(files, home.token, token.encode("ascii"), mode=0o600)
    text = json.dumps(identity.to_dict(), indent=2, ensure_ascii=False) + "\n"
    write_atomically(files, home.device, text.encode())


def load_token(home: Home) -> str:
    """Read the device token.

    Raises:
        StorageError: The token file is missing or not text.
    """
    with translated(home.token):
        try:
            return home.token.read_text("ascii").strip()
        except UnicodeDecodeError as error:
            raise _damaged(home.token) from error


def _read_json(path: Path) -> dict[str, Any]:
    with translated(path):
        try:
            fields = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise _damaged(path) from error
    if not isinstance(fields, dict):
        raise _damaged(path)
    return fields


def _damaged(path: Path) -> StorageError:
    return StorageError(
        f"{path} is damaged: it does not hold what this program wrote there.",
        advice="Restore it from a copy, or remove the file and enrol the device again.",
        reason="identity_damaged",
        path=str(path),
    )
