"""Who holds a lease, and whether that process still lives."""

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
_TOKEN = re.compile(r"[0-9a-f]{16,64}")
_MOST_BYTES = 4096


@dataclass(frozen=True)
class Holder:
    """A process, as it names itself in its lease file.

    Attributes
    ----------
    token : str
        Of this one lease; no other has the same.
    host : str
        Name of its machine, for people.
    pid : int
        Its number there.
    place : str
        This start of that machine, and the set of process numbers it belongs to: only
        there does `pid` mean anything. Empty where that cannot be told.
    born : str
        When the process began, in its machine's own count: numbers are used again.
    since : str
        When it took the lease, for people.
    stale : float
        Seconds without a sign of life after which it gives the lease up.
    """

    token: str
    host: str = "an unknown machine"
    pid: int = 0
    place: str = ""
    born: str = ""
    since: str = ""
    stale: float = 0.0

    @classmethod
    def this_process(cls, stale: float) -> Holder:
        """Describe the process that asks, for a new lease."""
        pid, now = os.getpid(), datetime.now(UTC).isoformat(timespec="seconds")
        token, host, born = secrets.token_hex(8), socket.gethostname(), _status(pid)[2]
        return cls(token, host, pid, _place(), born, now, stale)

    @property
    def who(self) -> str:
        """Name it in a line for people."""
        since = f" since {self.since}" if self.since else ""
        return f"process {self.pid or '?'} on {self.host}{since}"

    @property
    def state(self) -> State:
        """Whether the process lives; unknown for one of another machine."""
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
        # Killed, its first thread is dead while others may still finish a write.
        if status in ("Z", "X"):
            return "running" if threads > 1 else "gone"
        # One that is stopped gives no sign of life: it is judged by that alone.
        return "unknown" if status in ("", "T", "t") else "running"

    def dump(self) -> bytes:
        """Give the content of its lease file."""
        return json.dumps(asdict(self)).encode() + b"\n"


@dataclass(frozen=True)
class Seen:
    """A lease file, as it was read.

    Attributes
    ----------
    holder : Holder
        Whose it is. Where the file is empty or damaged, its token is made up of the
        file's time, so that it can be told from its successor.
    heard : float
        The last sign of life, by the file system's clock.
    """

    holder: Holder
    heard: float


def look(file: Path) -> Seen | None:
    """Read a lease file, None where there is none."""
    try:
        # Opened before it is asked for its time: a network file system answers from
        # memory otherwise.
        with file.open("rb") as stream:
            about = os.fstat(stream.fileno())
            content = stream.read(_MOST_BYTES)
    except FileNotFoundError:
        return None
    return Seen(_parse(content) or Holder(f"{about.st_mtime_ns:016x}"), about.st_mtime)


def _parse(content: bytes) -> Holder | None:
    """Take nothing on trust: the token becomes part of a file's name."""
    try:
        said: dict[str, Any] = json.loads(content)
        stale = min(max(float(said["stale"]), 0.0), LONGEST_STALE)
        if not _TOKEN.fullmatch(said["token"]):
            return None
        words = {k: str(said[k]) for k in ("token", "host", "place", "born", "since")}
        return Holder(**words, pid=int(said["pid"]), stale=stale)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None


@lru_cache(maxsize=1)
def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        # Elsewhere a process is known by its signs of life alone. (On Windows, asking
        # for one by its number would end it.)
        return ""


def _status(pid: int) -> tuple[str, int, str]:
    """Give a process' state letter, its threads, and when it began; empty if unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        fields = text.rpartition(")")[2].split()
        return fields[0], int(fields[17]), fields[19]
    except (OSError, IndexError, ValueError):
        return "", 0, ""
