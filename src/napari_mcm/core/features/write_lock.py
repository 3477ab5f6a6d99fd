"""A lock that admits one writer per feature file, across processes and machines.

The lock is a lease: a small file beside the feature file, ``.<name>.lease``, whose time
the owner renews every few seconds. It appears with all its content, by a hard link (or by
exclusive creation where there are none). No process removes or replaces a lock file
without holding the *claim* on it: a second lock file, whose name contains the token of the
first. So of many processes that try to take over a dead lock one succeeds, whenever each
of them read it. A process that dies in between leaves a dead claim, which is taken over in
the same way.

For locks that expire, see Gray and Cheriton, "Leases: an efficient fault-tolerant
mechanism for distributed file cache consistency", SOSP 1989.
"""

from __future__ import annotations

import errno
import glob
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType

from napari_mcm.core.errors import FeatureError, OutputError
from napari_mcm.core.features.lock_owner import LockOwner, LockState, read_lock_file

STALE_S = 60.0
"""Seconds without a heartbeat after which a lock is dead."""


_BEATS = 12  # heartbeats in that time

_POLL_S = 0.5

_DEEPEST = 8

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class WriteLockHeldError(FeatureError):
    """Another process is writing the feature file."""

    @classmethod
    def by(cls, who: str, path: Path) -> WriteLockHeldError:
        """Return the error that names the writer and the file.

        Parameters
        ----------
        who : str
            The owner, as :attr:`LockOwner.who` names it.
        path : Path
            The feature file.

        Returns
        -------
        WriteLockHeldError
            To be raised by the caller.
        """
        hint = "Wait for it, or stop it and run the same again"
        return cls(f"is being written by {who}", path, hint)


def write_lock_path(path: Path) -> Path:
    """Return the path of a feature file's lock file.

    Parameters
    ----------
    path : Path
        The feature file.

    Returns
    -------
    Path
        ``.<name>.lease`` in the same folder; it need not exist.
    """
    return path.with_name(f".{path.name}.lease")


class WriteLock:
    """The exclusive right to write one feature file; :meth:`take` acquires it.

    Parameters
    ----------
    path : Path
        The feature file; it need not exist.
    stale : float
        Seconds without a heartbeat after which the lock is dead.

    Attributes
    ----------
    path : Path
        The feature file.
    """

    def __init__(self, path: Path, stale: float) -> None:
        self.path, self._file = path, write_lock_path(path)
        self._stale = stale
        self._me = LockOwner.this_process(stale)
        self._renewed = time.time()
        self._lost = False
        self._ended, self._lock = threading.Event(), threading.RLock()
        self._keeper = threading.Thread(target=self._keep, name="lease", daemon=True)

    @classmethod
    def take(
        cls, path: str | Path, patience: float = 0.0, stale: float = STALE_S
    ) -> WriteLock:
        """Acquire the lock of a feature file.

        Parameters
        ----------
        path : str or Path
            The feature file; it need not exist.
        patience : float, optional
            Seconds to wait for another owner. A job that must stay responsive gives 0
            and tries again later.
        stale : float, optional
            Seconds without a heartbeat after which a lock is dead, both this one and
            another owner's, unless that one states a longer time. A lock whose process
            has ended on this machine is taken over at once; one whose process runs on
            this machine never is.

        Returns
        -------
        WriteLock
            A context manager that releases the lock.

        Raises
        ------
        WriteLockHeldError
            If another process holds it; the message names the process.
        OutputError
            If the folder cannot be written to.
        """
        write_lock = cls(Path(path), stale)
        until = time.monotonic() + patience
        while not write_lock._try():
            remaining = until - time.monotonic()
            if remaining <= 0:
                held = write_lock._held()
                raise held
            time.sleep(min(_POLL_S, remaining))
        write_lock._keeper.start()
        return write_lock

    def check(self) -> None:
        """Check that the lock is still held, before every write.

        Raises
        ------
        FeatureError
            If another process took it over, as this one sent no heartbeat for too long.
        OutputError
            If the folder cannot be written to.
        """
        with _writing(self.path):
            self._renew(only_if_late=True)
            current = read_lock_file(self._file)
        # Still late after the renewal: another process is taking it over now.
        if self._lost or self._late or current is None or current.owner != self._me:
            self._lost = True
            other = f" by {current.owner.who}" if current else ""
            raise FeatureError(
                f"was taken over{other}, as this process sent no heartbeat",
                self.path,
                "Leave it to that process, or run the same again later",
            )

    def release(self) -> None:
        """Release the lock; this does nothing where it is lost or released."""
        if self._ended.is_set() or os.getpid() != self._me.pid:
            return
        self._ended.set()
        # A lock file that cannot be removed is dead as soon as this process ends.
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
        with _writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return self._acquire(self._file, self._me)

    def _acquire(self, file: Path, me: LockOwner, depth: int = 0) -> bool:
        """Write our name into a lock file, where there is none or a dead one."""
        lock = read_lock_file(file)
        if lock is None:
            return self._create(file, me)
        if not self._is_dead(lock) or depth == _DEEPEST:
            return False
        with self._claim(lock.owner, depth + 1) as claimed:
            again = read_lock_file(file) if claimed else None
            # Meanwhile others may have replaced it, or its owner resumed.
            if again is None or again.owner != lock.owner or not self._is_dead(again):
                return False
            self._write(me).replace(file)
            self._tidy()
            return True

    @contextmanager
    def _claim(self, owner: LockOwner, depth: int = 0) -> Iterator[bool]:
        """Hold the sole right to replace or remove the lock file of an owner.

        A claim has a token of its own, so that a dead claim can be claimed in turn.
        """
        claim = self._beside(owner.token)
        me = LockOwner.this_process(self._stale)
        claimed = self._acquire(claim, me, depth)
        try:
            yield claimed
        finally:
            if claimed:
                self._remove(claim, me)

    def _create(self, file: Path, me: LockOwner) -> bool:
        """Create a lock file with its content in one step; False where there is one.

        Raises
        ------
        OSError
            If the folder cannot be written to.
        """
        part = self._write(me)
        try:
            os.link(part, file)
        except FileExistsError:
            # A network file system may have linked, lost the answer, and tried again.
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
        current = read_lock_file(file)
        if current is not None and current.owner == me:
            file.unlink(missing_ok=True)

    def _beside(self, ending: str) -> Path:
        return self._file.with_name(f"{self._file.name}.{ending}")

    def _is_dead(self, lock: LockState) -> bool:
        state = lock.owner.state
        if state != "unknown":
            return state == "gone"
        return self._now() - lock.renewed > max(self._stale, lock.owner.stale)

    def _now(self) -> float:
        """Return the file system's time, as the clocks of two machines may differ."""
        probe = self._write(self._me)
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()

    def _tidy(self) -> None:
        """Remove the files of killed processes, after a lock was taken over."""
        now = self._now()
        for left in self._file.parent.glob(f"{glob.escape(self._file.name)}.*"):
            with suppress(OSError):
                if now - left.stat().st_mtime > max(self._stale, STALE_S):
                    left.unlink()

    def _keep(self) -> None:
        """Send heartbeats until the lock is released or lost."""
        while not self._ended.wait(self._stale / _BEATS) and not self._lost:
            with suppress(OSError):  # a file server may be unreachable for a while
                self._renew()

    def _renew(self, only_if_late: bool = False) -> None:
        with self._lock:
            late = self._late
            if self._lost or self._ended.is_set() or (only_if_late and not late):
                return
            # After a long pause another process may be about to take over.
            with self._claim(self._me) if late else nullcontext(True) as claimed:
                current = read_lock_file(self._file) if claimed else None
                self._lost = claimed and (current is None or current.owner != self._me)
                if claimed and not self._lost:
                    os.utime(self._file)
                    self._renewed = time.time()

    @property
    def _late(self) -> bool:
        return abs(time.time() - self._renewed) > self._stale / 2

    def _held(self) -> WriteLockHeldError:
        with suppress(OSError):
            current = read_lock_file(self._file)
            if current is not None:
                return WriteLockHeldError.by(current.owner.who, self.path)
        return WriteLockHeldError.by("another process", self.path)


def held_by(path: Path) -> str | None:
    """Return the process that writes a feature file now.

    Only :meth:`WriteLock.take` decides; this check avoids preparing a slide in vain.

    Parameters
    ----------
    path : Path
        The feature file; it need not exist.

    Returns
    -------
    str or None
        Its name for people; None where the lock is free or dead.
    """
    write_lock = WriteLock(path, STALE_S)
    with suppress(OSError):
        current = read_lock_file(write_lock._file)
        if current is not None and not write_lock._is_dead(current):
            return current.owner.who
    return None


def _create_plainly(file: Path, me: LockOwner) -> bool:
    """Create a lock file where there are no hard links; for a moment it is empty."""
    try:
        with file.open("xb") as stream:
            stream.write(me.dump())
    except FileExistsError:
        return False
    return True


@contextmanager
def hold(paths: Sequence[Path]) -> Iterator[list[WriteLock]]:
    """Hold the locks of several feature files, all or none.

    Parameters
    ----------
    paths : sequence of Path
        Feature files, each once.

    Yields
    ------
    list of WriteLock
        In the order of `paths`.

    Raises
    ------
    WriteLockHeldError
        If another process holds one of them.
    """
    with ExitStack() as stack:
        # Always in the same order: of two processes with the same files, one gets all.
        taken = {
            path: stack.enter_context(WriteLock.take(path)) for path in sorted(paths)
        }
        yield [taken[path] for path in paths]


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Report errors of the disk in one line that says what to do next.

    Raises
    ------
    OutputError
        In place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot be written ({error.strerror or error})",
            path,
            "Check the folder's permissions and free space, or choose another --out",
        ) from error
