"""The owner of a write lock: which process it is, and whether it runs."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

State = Literal["gone", "running", "unknown"]


LONGEST_STALE = 3600.0
"""Largest value of `LockOwner.stale` that is accepted from a file, in seconds."""

_TOKEN = re.compile(r"[0-9a-f]{16,64}")

_MOST_BYTES = 4096


@dataclass(frozen=True)
class LockOwner:
    """A process, as it describes itself in its lock file.

    Attributes
    ----------
    token : str
        Unique to this lock.
    host : str
        Name of its machine, for people.
    pid : int
        Its process number there.
    place : str
        The boot of that machine and its process namespace: `pid` has a meaning only
        there. Empty where this is unknown.
    born : str
        When the process started, in its machine's own units: numbers are used again.
    since : str
        When it took the lock, for people.
    stale : float
        Seconds without a heartbeat after which it gives up the lock.
    """

    token: str
    host: str = "an unknown machine"
    pid: int = 0
    place: str = ""
    born: str = ""
    since: str = ""
    stale: float = 0.0

    @classmethod
    def this_process(cls, stale: float) -> LockOwner:
        """Describe the current process, for a new lock.

        Parameters
        ----------
        stale : float
            Seconds without a heartbeat after which it gives up the lock.

        Returns
        -------
        LockOwner
            With a new token.
        """
        pid, now = os.getpid(), datetime.now(UTC).isoformat(timespec="seconds")
        token, host, born = secrets.token_hex(8), socket.gethostname(), _status(pid)[2]
        return cls(token, host, pid, _place(), born, now, stale)

    @property
    def who(self) -> str:
        """Return a name for people.

        Returns
        -------
        str
            Process number, machine and time.
        """
        since = f" since {self.since}" if self.since else ""
        return f"process {self.pid or '?'} on {self.host}{since}"

    @property
    def state(self) -> State:
        """Return whether the process is running.

        Returns
        -------
        {"gone", "running", "unknown"}
            ``"unknown"`` for a process of another machine, and for a stopped one.
        """
        if not self.place or self.place != _place() or self.pid <= 0:
            return "unknown"
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return "gone"
        except OSError:  # another user's
            pass
        status, threads, born = _status(self.pid)
        if born != self.born and born:
            return "gone"
        # In a killed process the first thread is dead; others may still write.
        if status in ("Z", "X"):
            return "running" if threads > 1 else "gone"
        # A stopped process sends no heartbeat, and that alone decides.
        return "unknown" if status in ("", "T", "t") else "running"

    def dump(self) -> bytes:
        """Return the content of its lock file.

        Returns
        -------
        bytes
            A line of JSON.
        """
        return json.dumps(asdict(self)).encode() + b"\n"


@dataclass(frozen=True)
class LockState:
    """A lock file, as it was read.

    Attributes
    ----------
    owner : LockOwner
        The owner. Where the file is empty or damaged, its token is made of the file's
        time, which distinguishes it from its successor.
    renewed : float
        Time of the last heartbeat by the file system's clock, in seconds.
    """

    owner: LockOwner
    renewed: float


def read_lock_file(file: Path) -> LockState | None:
    """Read a lock file.

    Parameters
    ----------
    file : Path
        The lock file.

    Returns
    -------
    LockState or None
        None where there is no file.
    """
    try:
        # Opened before its time is read: otherwise a network file system answers from
        # its cache.
        with file.open("rb") as stream:
            about = os.fstat(stream.fileno())
            content = stream.read(_MOST_BYTES)
    except FileNotFoundError:
        return None
    return LockState(
        _parse(content) or LockOwner(f"{about.st_mtime_ns:016x}"), about.st_mtime
    )


def _parse(content: bytes) -> LockOwner | None:
    """Parse a lock file without trusting it: the token becomes part of a file name."""
    try:
        values: dict[str, Any] = json.loads(content)
        stale = min(max(float(values["stale"]), 0.0), LONGEST_STALE)
        if not _TOKEN.fullmatch(values["token"]):
            return None
        texts = {k: str(values[k]) for k in ("token", "host", "place", "born", "since")}
        return LockOwner(**texts, pid=int(values["pid"]), stale=stale)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None


@lru_cache(maxsize=1)
def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        # On other systems only heartbeats count. (On Windows, `os.kill(pid, 0)` would
        # end the process.)
        return ""


def _status(pid: int) -> tuple[str, int, str]:
    """Return a process's state letter, threads, and start; empty if unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        fields = text.rpartition(")")[2].split()
        return fields[0], int(fields[17]), fields[19]
    except (OSError, IndexError, ValueError):
        return "", 0, ""
