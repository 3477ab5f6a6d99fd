"""One writer a feature file, among all processes and machines that share a folder.

A lease is a small file beside the feature file, ``.<name>.lease``. It is made whole, by a
hard link (or created exclusively where there are none), and its time is renewed every few
seconds. Nobody removes or replaces a lease without holding the *claim* on it: a lease of
its own, on a name that holds the token of the lease in question. So of many takers of a
dead lease one wins, whenever each of them looked, and a taker that dies in between leaves
a dead claim, which is taken over in the same way.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from napari_mcm.core.errors import FeatureError, OutputError

STALE_S = 60.0
"""Seconds without a sign of life after which a lease is dead."""


_BEATS = 12  # signs of life in that time

_POLL_S = 0.5

_DEEPEST = 8

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class WriteLockHeldError(FeatureError):
    """Another process is writing the feature file."""

    @classmethod
    def by(cls, who: str, path: Path) -> WriteLockHeldError:
        """Say who is writing which file."""
        hint = "Wait for it, or end it and run the same again"
        return cls(f"is being written by {who}", path, hint)


def write_lock_path(path: Path) -> Path:
    """Name the lease file of a feature file."""
    return path.with_name(f".{path.name}.lease")


class WriteLock:
    """The right to write one feature file; see :meth:`take`.

    Attributes
    ----------
    path : Path
        The feature file.
    """

    def __init__(self, path: Path, stale: float) -> None:
        self.path, self._file = path, write_lock_path(path)
        self._stale = stale
        self._me = LockOwner.this_process(stale)
        self._heard = time.time()
        self._lost = False
        self._ended, self._lock = threading.Event(), threading.RLock()
        self._keeper = threading.Thread(target=self._keep, name="lease", daemon=True)

    @classmethod
    def take(
        cls, path: str | Path, patience: float = 0.0, stale: float = STALE_S
    ) -> WriteLock:
        """Take the lease of a feature file.

        Parameters
        ----------
        path : str or Path
            The feature file; it need not exist.
        patience : float
            Seconds to wait for another's lease; a job that must not stand still gives
            none and asks again.
        stale : float
            Seconds without a sign of life after which a lease is dead; it counts for
            this one, and for another's that does not ask for more. One whose process is
            known to be gone is taken over at once, one whose process runs on this
            machine never.

        Returns
        -------
        Lease
            For ``with``, which gives it back.

        Raises
        ------
        WriteLockHeldError
            If another holds it, saying who.
        OutputError
            If the folder cannot be written to.
        """
        write_lock = cls(Path(path), stale)
        until = time.monotonic() + patience
        while not write_lock._try():
            left = until - time.monotonic()
            if left <= 0:
                raise write_lock._held()
            time.sleep(min(_POLL_S, left))
        write_lock._keeper.start()
        return write_lock

    def check(self) -> None:
        """See that the lease is still held; to be called before anything is written.

        Raises
        ------
        FeatureError
            If it was taken over: this process gave no sign of life for too long.
        """
        try:
            self._renew(only_if_late=True)
            found = look(self._file)
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        # Late still: another is just taking it over.
        if self._lost or self._late or found is None or found.holder != self._me:
            self._lost = True
            other = f" by {found.holder.who}" if found else ""
            raise FeatureError(
                f"was taken over{other}, as this process gave no sign of life",
                self.path,
                "Leave it to the other, or run the same again later",
            )

    def release(self) -> None:
        """Give the lease back; nothing happens where it is lost or given back."""
        if self._ended.is_set() or os.getpid() != self._me.pid:
            return
        self._ended.set()
        # A lease that cannot be removed is dead as soon as this process is.
        with self._lock, suppress(OSError), self._claim(self._me) as claimed:
            if claimed:
                self._remove(self._file, self._me)
        self._keeper.join(1)

    def __enter__(self) -> WriteLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _try(self) -> bool:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return self._acquire(self._file, self._me)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def _acquire(self, file: Path, me: LockOwner, depth: int = 0) -> bool:
        """Put our name into a lease file: where there is none, or a dead one's."""
        found = look(file)
        if found is None:
            return self._create(file, me)
        if not self._is_dead(found) or depth == _DEEPEST:
            return False
        with self._claim(found.holder, depth + 1) as claimed:
            again = look(file) if claimed else None
            # Meanwhile others may have replaced it, or its holder awoken.
            if (
                again is None
                or again.holder != found.holder
                or not self._is_dead(again)
            ):
                return False
            self._write(me).replace(file)
            self._tidy()
            return True

    @contextmanager
    def _claim(self, holder: LockOwner, depth: int = 0) -> Iterator[bool]:
        """Hold the sole right to replace or remove what a holder has put its name into.

        It has a token of its own, so that a dead claim can be claimed like a lease.
        """
        claim = self._beside(holder.token)
        me = LockOwner.this_process(self._stale)
        claimed = self._acquire(claim, me, depth)
        try:
            yield claimed
        finally:
            if claimed:
                self._remove(claim, me)

    def _create(self, file: Path, me: LockOwner) -> bool:
        """Make a lease file, whole at once; False where there is one."""
        part = self._write(me)
        try:
            os.link(part, file)
        except FileExistsError:
            # A network file system may have done it, lost its answer, and tried again.
            return part.stat().st_nlink > 1
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _create_plainly(file, me)
        finally:
            part.unlink(missing_ok=True)
        return True

    def _write(self, me: LockOwner) -> Path:
        part = self._beside(f"part-{secrets.token_hex(8)}")
        try:
            part.write_bytes(me.dump())
        except OSError:
            with suppress(OSError):
                part.unlink()
            raise
        return part

    def _remove(self, file: Path, me: LockOwner) -> None:
        found = look(file)
        if found is not None and found.holder == me:
            file.unlink(missing_ok=True)

    def _beside(self, ending: str) -> Path:
        return self._file.with_name(f"{self._file.name}.{ending}")

    def _is_dead(self, found: LockState) -> bool:
        state = found.holder.state
        if state != "unknown":
            return state == "gone"
        return self._now() - found.heard > max(self._stale, found.holder.stale)

    def _now(self) -> float:
        """Ask the file system what time it is: clocks of two machines may differ."""
        probe = self._write(self._me)
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()

    def _tidy(self) -> None:
        """Remove what those who were killed have left; only then is there anything."""
        now = self._now()
        for left in self._file.parent.glob(f"{glob.escape(self._file.name)}.*"):
            with suppress(OSError):
                if now - left.stat().st_mtime > max(self._stale, STALE_S):
                    left.unlink()

    def _keep(self) -> None:
        """Give a sign of life, until the lease is given back or lost."""
        while not self._ended.wait(self._stale / _BEATS) and not self._lost:
            with suppress(OSError):  # the server may be away for a while
                self._renew()

    def _renew(self, only_if_late: bool = False) -> None:
        with self._lock:
            late = self._late
            if self._lost or self._ended.is_set() or (only_if_late and not late):
                return
            # After a long silence another may be about to take over.
            with self._claim(self._me) if late else nullcontext(True) as claimed:
                found = look(self._file) if claimed else None
                self._lost = claimed and (found is None or found.holder != self._me)
                if claimed and not self._lost:
                    os.utime(self._file)
                    self._heard = time.time()

    @property
    def _late(self) -> bool:
        return abs(time.time() - self._heard) > self._stale / 2

    def _held(self) -> WriteLockHeldError:
        with suppress(OSError):
            found = look(self._file)
            if found is not None:
                return WriteLockHeldError.by(found.holder.who, self.path)
        return WriteLockHeldError.by("another process", self.path)


def held_by(path: Path) -> str | None:
    """Say who is writing a feature file now, None where nobody does who lives.

    Taking the lease is what counts; this spares the work of getting ready in vain.
    """
    write_lock = WriteLock(path, STALE_S)
    with suppress(OSError):
        found = look(write_lock._file)
        if found is not None and not write_lock._is_dead(found):
            return found.holder.who
    return None


def _create_plainly(file: Path, me: LockOwner) -> bool:
    """Make a lease file where there are no hard links; for a moment it is empty."""
    try:
        with file.open("xb") as stream:
            stream.write(me.dump())
    except FileExistsError:
        return False
    return True


@contextmanager
def hold(paths: Sequence[Path]) -> Iterator[list[WriteLock]]:
    """Take the leases of several feature files, all or none.

    Parameters
    ----------
    paths : sequence of Path
        Feature files, each once.

    Yields
    ------
    list of Lease
        In the order of `paths`.

    Raises
    ------
    WriteLockHeldError
        If another holds one of them.
    """
    with ExitStack() as stack:
        # All in one order: of two processes that want the same, one gets all.
        taken = {
            path: stack.enter_context(WriteLock.take(path)) for path in sorted(paths)
        }
        yield [taken[path] for path in paths]


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot be written ({error.strerror or error})",
        path,
        "Check the folder's permissions and free space, or choose another --out",
    )


State = Literal["gone", "running", "unknown"]


LONGEST_STALE = 3600.0

_TOKEN = re.compile(r"[0-9a-f]{16,64}")

_MOST_BYTES = 4096


@dataclass(frozen=True)
class LockOwner:
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
    def this_process(cls, stale: float) -> LockOwner:
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
class LockState:
    """A lease file, as it was read.

    Attributes
    ----------
    holder : LockOwner
        Whose it is. Where the file is empty or damaged, its token is made up of the
        file's time, so that it can be told from its successor.
    heard : float
        The last sign of life, by the file system's clock.
    """

    holder: LockOwner
    heard: float


def look(file: Path) -> LockState | None:
    """Read a lease file, None where there is none."""
    try:
        # Opened before it is asked for its time: a network file system answers from
        # memory otherwise.
        with file.open("rb") as stream:
            about = os.fstat(stream.fileno())
            content = stream.read(_MOST_BYTES)
    except FileNotFoundError:
        return None
    return LockState(
        _parse(content) or LockOwner(f"{about.st_mtime_ns:016x}"), about.st_mtime
    )


def _parse(content: bytes) -> LockOwner | None:
    """Take nothing on trust: the token becomes part of a file's name."""
    try:
        said: dict[str, Any] = json.loads(content)
        stale = min(max(float(said["stale"]), 0.0), LONGEST_STALE)
        if not _TOKEN.fullmatch(said["token"]):
            return None
        words = {k: str(said[k]) for k in ("token", "host", "place", "born", "since")}
        return LockOwner(**words, pid=int(said["pid"]), stale=stale)
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
