"""What a release engineer has: keys, a repository folder, and bundles to publish."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from simulators.tiny_build import tiny_model, tiny_provenance

from exporter.keys import ReleaseKey, create_key
from exporter.packing import pack_model
from exporter.release import ReleaseSummary, prepare_release, sign_release
from exporter.release_rules import InUse
from exporter.repository import Repository, create_repository, load_repository

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


class ReleaseDesk:
    """Keys in files, a repository with threshold 1, and releases of model ``fleet``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = create_key(folder / "root.key", "root", None)
        self.targets = create_key(folder / "targets.key", "targets", None)
        # The server's key has no role of ours; the file serves as one made elsewhere.
        self.online = create_key(folder / "online.key", "targets", None)
        self.repository_folder = folder / "repository"
        create_repository(
            self.repository_folder,
            root_keys=[self.root.public],
            targets_keys=[self.targets.public],
            online_key=self.online.public,
            signers=[self.root],
            now=NOW,
        )

    @property
    def repository(self) -> Repository:
        return load_repository(self.repository_folder)

    def bundles(self, number: int, *cohorts: str, key: ReleaseKey | None = None) -> list[bytes]:
        return [
            pack_model(
                tiny_model(cohort),
                tiny_provenance(),
                key or self.targets,
                name="fleet",
                version=f"1.{number}",
                release_number=number,
            ).data
            for cohort in (None, *cohorts)
        ]

    def prepare(
        self, number: int, *cohorts: str, in_use: InUse | None = None, keep: int = 2, signed: bool = True
    ) -> tuple[Path, ReleaseSummary]:
        folder = self.folder / f"release-{number}"
        summary = prepare_release(
            self.repository,
            self.bundles(number, *cohorts),
            folder,
            channels=["stable"],
            now=NOW,
            in_use=in_use,
            keep=keep,
        )
        if signed:
            sign_release(folder, [self.targets])
        return folder, summary
