"""Which programs a device runs, and whether a bundle can run on them. Nothing heavy is imported to find out."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from importlib import metadata

from edge_runtime import __version__
from edge_runtime.errors import TrustError

_BOUND = re.compile(r"\s*>=\s*(\d+(?:\.\d+)*)\s*")


@dataclass(frozen=True, slots=True)
class RuntimeVersions:
    """What a device reports of itself.

    Attributes:
        edge_runtime: Version of this package.
        onnxruntime: Version of ONNX Runtime, or an empty text when it is not installed.
        python: Version of Python.
        platform: Operating system and processor.
    """

    edge_runtime: str
    onnxruntime: str
    python: str
    platform: str


def runtime_versions() -> RuntimeVersions:
    """Return the versions of this process."""
    try:
        onnxruntime = metadata.version("onnxruntime")
    except metadata.PackageNotFoundError:
        onnxruntime = ""
    return RuntimeVersions(
        __version__, onnxruntime, platform.python_version(), f"{platform.system()} {platform.machine()}"
    )


def check_runtime(bound: str, installed: str) -> None:
    """Check a version bound of a manifest, such as ``>=1.20``.

    Args:
        bound: The bound; another form than ``>=`` and numbers is not understood and refused.
        installed: The installed version.

    Raises:
        TrustError: The installed version is older, or the bound is not understood (reason ``newer_runtime``).
    """
    match = _BOUND.fullmatch(bound)
    numbers = re.match(r"\d+(?:\.\d+)*", installed)
    if match and numbers and _parts(numbers[0]) >= _parts(match[1]):
        return
    raise TrustError(
        f"The bundle needs onnxruntime {bound}; {installed or 'none'} is installed.",
        reason="newer_runtime",
        advice="Update edge-runtime on this device; the active bundle stays until then.",
    )


def _parts(version: str) -> tuple[int, ...]:
    numbers = [int(part) for part in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
