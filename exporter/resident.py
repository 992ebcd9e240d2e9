"""How much memory this process holds, by Linux's own books; other systems do not tell, and then it is None."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def resident_megabytes() -> float | None:
    """Return the memory that the process holds now, in megabytes."""
    return _field("VmRSS")


def peak_megabytes() -> float | None:
    """Return the most that it has held, in megabytes.

    getrusage would tell on more systems, but what it tells begins with the size of the process that started this one.
    """
    return _field("VmHWM")


def forget_peak() -> None:
    """Let the peak begin again at what is held now, where the system can (proc(5), clear_refs)."""
    try:
        _CLEAR.write_text("5", "ascii")
    except OSError:
        return


def _field(name: str) -> float | None:
    try:
        lines = _STATUS.read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:")), None)
