"""What the simulated devices know of the repository: the files as they were last served, read by the contract's rules.

Devices verify signatures; that costs the device and not the server, so nothing is verified here. What a device would
ask for next, and which release it would run, is decided by the same functions as on a device.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_runtime.contract.release import TargetCustom, choose_target, custom_of, floor_of
from edge_runtime.contract.rollout import Rollout, decide, parse_rollouts
from edge_runtime.errors import ContractError, TrustError


@dataclass(frozen=True, slots=True)
class Timestamp:
    """One timestamp.json.

    Attributes:
        etag: As it was served.
        snapshot: Version of the snapshot that it names.
        rollouts: By channel.
    """

    etag: str
    snapshot: int
    rollouts: Mapping[str, Rollout]

    @classmethod
    def parse(cls, body: bytes, etag: str) -> Timestamp:
        """Read the file."""
        signed = json.loads(body)["signed"]
        return cls(etag, int(signed["meta"]["snapshot.json"]["version"]), parse_rollouts(signed))


@dataclass(frozen=True, slots=True)
class Bundle:
    """One listed bundle: its digest, version, release number and address below ``/repository/targets/``."""

    digest: str
    version: str
    release: int
    url_path: str


@dataclass(slots=True)
class Targets:
    """One targets.json.

    Attributes:
        customs: What the release keys bind to each path.
        digests: SHA-256 by path.
        fields: What the file says beside TUF's own fields.
    """

    customs: dict[str, TargetCustom] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, body: bytes) -> Targets:
        """Read the file; targets without our custom field are left out."""
        signed = json.loads(body)["signed"]
        made = cls(fields=signed)
        for path, file in signed["targets"].items():
            with contextlib.suppress(ContractError):
                made.customs[path] = custom_of(path, file)
                made.digests[path] = file["hashes"]["sha256"]
        return made

    def choose(
        self, timestamp: Timestamp, *, model: str, channel: str, device_id: str, cohort: str, active: int
    ) -> Bundle | None:
        """Return the bundle that a device should run now, or None when it keeps what it has.

        Args:
            timestamp: The newest one.
            model: What the device was enrolled for.
            channel: Its channel.
            device_id: Its id.
            cohort: Its cohort.
            active: The release that it runs, 0 before the first.
        """
        wanted = decide(timestamp.rollouts.get(channel), device_id, cohort, active or None)
        if wanted is None or wanted == active:
            return None
        try:
            path = choose_target(
                self.customs, model=model, channel=channel, cohort=cohort, release=wanted,
                floor=floor_of(self.fields, model),
            )  # fmt: skip
        except TrustError:
            return None
        folder, _, name = path.rpartition("/")
        digest, custom = self.digests[path], self.customs[path]
        return Bundle(digest, custom.version, custom.release_number, f"{folder}/{digest}.{name}")
