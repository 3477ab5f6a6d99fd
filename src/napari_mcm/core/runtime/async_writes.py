"""Large files written in the background; only code that needs a file waits for it."""

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
        """Write, after earlier writes of the same file."""
        if self.before is not None:
            self.before.ended.wait()
            self.before = None
        try:
            self.write()
        except Exception as error:  # noqa: BLE001 - raised by wait_for_write
            # At a program's end nothing may wait for the file any more.
            _log.error("%s", error)
            self.error = error
        finally:
            del self.write
            self.ended.set()


def begin(path: Path, write: Callable[[], None]) -> None:
    """Begin to write a file, in a thread of its own.

    The thread is not a daemon: the program's end waits for it.

    Parameters
    ----------
    path : Path
        The file. An earlier write of it finishes first, and is replaced.
    write : callable
        Writes the file. The data that it holds must not change until the write
        ends.
    """
    key = path.absolute()
    with _lock:
        one = _begun[key] = _Write(write, _begun.get(key))
    try:
        threading.Thread(target=one.run, name="write").start()
    except RuntimeError:
        # No thread can be started while the program is ending: write here.
        one.run()


def is_under_way(path: Path) -> bool:
    """Return whether a file is being written.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    bool
    """
    with _lock:
        write = _begun.get(path.absolute())
    return write is not None and not write.ended.is_set()


def wait_for_write(path: Path) -> None:
    """Wait until a background write of a file has ended, if there is one.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    McmError
        If it could not be written. An error is raised once; it may be any exception
        that the writing function raises.
    """
    error = _outcome(path.absolute())
    if error is not None:
        raise error


def has_pending_writes() -> bool:
    """Return whether any file is being written, or failed without a report of its error.

    Returns
    -------
    bool
    """
    with _lock:
        return any(not w.ended.is_set() or w.error for w in _begun.values())


def wait_for_all_writes() -> list[Exception]:
    """Wait for all background writes and return their errors.

    Returns
    -------
    list of Exception
        Empty if all succeeded.
    """
    with _lock:
        paths = [*_begun]
    return [error for path in paths if (error := _outcome(path)) is not None]


def _outcome(key: Path) -> Exception | None:
    """Wait for a file, remove its record, and return its error."""
    with _lock:
        write = _begun.get(key)
    if write is None:
        return None
    write.ended.wait()
    with _lock:
        if _begun.get(key) is write:
            del _begun[key]
    return write.error
