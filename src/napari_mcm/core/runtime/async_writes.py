"""Large files that are written in the background: only who needs one waits for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_begun: dict[Path, _Write] = {}


class _Write:
    """One file being written."""

    def __init__(self, write: Callable[[], None], before: _Write | None) -> None:
        self.write, self.before = write, before
        self.ended = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        """Write, after what was begun before."""
        if self.before is not None:
            self.before.ended.wait()
            self.before = None
        try:
            self.write()
        except Exception as error:  # noqa: BLE001 - raised again by who settles
            # At a program's end there may be nobody left who asks.
            _log.error("%s", error)
            self.error = error
        finally:
            del self.write
            self.ended.set()


def begin(path: Path, write: Callable[[], None]) -> None:
    """Begin to write a file, in a thread of its own.

    The thread is no daemon: a program's end waits for it.

    Parameters
    ----------
    path : Path
        The file; what was begun of it before is finished first, and replaced.
    write : callable
        Writes it. What it holds must not change any more until the file is settled.
    """
    key = path.absolute()
    with _lock:
        one = _begun[key] = _Write(write, _begun.get(key))
    try:
        threading.Thread(target=one.run, name="write").start()
    except RuntimeError:
        # No thread is to be had, as when the program is ending: it is written here.
        one.run()


def is_under_way(path: Path) -> bool:
    """Tell whether a file is being written."""
    with _lock:
        write = _begun.get(path.absolute())
    return write is not None and not write.ended.is_set()


def wait_for_write(path: Path) -> None:
    """Wait until a file is written, if it is being written.

    Raises
    ------
    McmError, or what else went wrong
        If it could not be written; once.
    """
    error = _outcome(path.absolute())
    if error is not None:
        raise error


def has_pending_writes() -> bool:
    """Tell whether something is being written, or failed and nobody was told."""
    with _lock:
        return any(not w.ended.is_set() or w.error for w in _begun.values())


def wait_for_all_writes() -> list[Exception]:
    """Wait for all files; gives what went wrong."""
    with _lock:
        paths = [*_begun]
    return [error for path in paths if (error := _outcome(path)) is not None]


def _outcome(key: Path) -> Exception | None:
    """Wait for a file, and forget it; gives what went wrong."""
    with _lock:
        write = _begun.get(key)
    if write is None:
        return None
    write.ended.wait()
    with _lock:
        if _begun.get(key) is write:
            del _begun[key]
    return write.error
