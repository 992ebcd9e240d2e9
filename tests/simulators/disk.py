"""A disk that records every step, can stop before any of them, and forgets what was not synced when power is lost."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.files import FileSystem


class Crash(BaseException):
    """The process or the power ended here."""


@dataclass
class _File:
    now: bytes = b""
    durable: bytes = b""


@dataclass
class _Folder:
    now: dict[str, _File | _Folder] = field(default_factory=dict)
    durable: dict[str, _File | _Folder] = field(default_factory=dict)


@dataclass
class RecordingDisk(FileSystem):
    """Works on the real folder ``root`` and keeps a model of what a power loss would leave of it."""

    root: Path
    steps: list[tuple[str, str]] = field(default_factory=list)
    crash_before: int | None = None

    def __post_init__(self) -> None:
        self._model = _Folder()

    def make_folder(self, path: Path) -> None:
        self._step("make_folder", path)
        super().make_folder(path)
        folder = self._model
        for name in self._parts(path):
            child = folder.now.setdefault(name, _Folder())
            assert isinstance(child, _Folder)
            folder = child

    def write(self, path: Path, data: bytes, mode: int = 0o644) -> None:
        self._step("write", path)
        super().write(path, data, mode)
        file = self._parent(path).now.setdefault(path.name, _File())
        assert isinstance(file, _File)
        file.now = data

    def sync_file(self, path: Path) -> None:
        self._step("sync_file", path)
        super().sync_file(path)
        file = self._parent(path).now[path.name]
        assert isinstance(file, _File)
        file.durable = file.now

    def sync_folder(self, path: Path) -> None:
        self._step("sync_folder", path)
        super().sync_folder(path)
        folder = self._folder(path)
        folder.durable = dict(folder.now)

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename", target)
        super().rename(source, target)
        self._parent(target).now[target.name] = self._parent(source).now.pop(source.name)

    def remove(self, path: Path) -> None:
        self._step("remove", path)
        super().remove(path)
        self._parent(path).now.pop(path.name, None)

    def settle(self) -> None:
        """Let everything reach the disk, as it would after a minute."""
        self.steps.clear()
        _settle(self._model)

    def after_power_loss(self, target: Path, seed: int) -> Path:
        """Lay out what may be left: what was synced, and of the rest whatever the disk happened to get to."""
        _restore(self._model, target, random.Random(seed))
        return target

    def _step(self, name: str, path: Path) -> None:
        if self.crash_before is not None and len(self.steps) >= self.crash_before:
            raise Crash
        self.steps.append((name, str(path.relative_to(self.root))))

    def _parts(self, path: Path) -> tuple[str, ...]:
        return path.relative_to(self.root).parts

    def _folder(self, path: Path) -> _Folder:
        folder = self._model
        for name in self._parts(path):
            child = folder.now[name]
            assert isinstance(child, _Folder)
            folder = child
        return folder

    def _parent(self, path: Path) -> _Folder:
        return self._folder(path.parent)


def _settle(folder: _Folder) -> None:
    folder.durable = dict(folder.now)
    for child in folder.now.values():
        if isinstance(child, _Folder):
            _settle(child)
        else:
            child.durable = child.now


def _restore(folder: _Folder, target: Path, draw: random.Random) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in sorted(folder.now.keys() | folder.durable.keys()):
        now, durable = folder.now.get(name), folder.durable.get(name)
        child = now if now is durable or draw.random() < 0.5 else durable
        if isinstance(child, _Folder):
            _restore(child, target / name, draw)
        elif child is not None:
            # A file whose bytes were not synced may hold the old ones, the new ones, or zeros.
            choices = [child.durable, child.now, bytes(len(child.now))]
            (target / name).write_bytes(child.now if child.now == child.durable else draw.choice(choices))
