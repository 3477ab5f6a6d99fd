"""Short work in a thread, whose result comes back to the thread of the windows.

For what must not wait for a job and is not worth a progress bar: a mask is saved, a
grid is laid anew. Long work is a job, see :mod:`napari_mcm.viewer.app.jobs`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_mcm.core.errors import McmError

_log = logging.getLogger(__name__)

_Task = tuple[Callable[[], Any], Callable[[Any], None], Callable[[str], None]]


class Background(QObject):
    """One thread, in which pieces of work are done in order.

    Python waits for the thread when it ends: what was handed in is done.
    """

    _ended = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="napari-mcm: files")
        self._newest: dict[str, int] = {}
        self._followed: dict[str, _Task | None] = {}
        self._ended.connect(self._deliver)

    def submit(
        self,
        key: str,
        work: Callable[[], Any],
        then: Callable[[Any], None],
        failed: Callable[[str], None],
    ) -> None:
        """Do a piece of work, unless newer work of the same key is handed in first.

        Parameters
        ----------
        key : str
            What the work is; only the newest of a key matters.
        work : callable
            Called in the thread.
        then : callable
            Called in this thread with what `work` returned, if still the newest.
        failed : callable
            Called in this thread with one line, when `work` failed.
        """
        number = self._newest[key] = self._newest.get(key, 0) + 1

        def run() -> None:
            if self._newest[key] != number:
                return
            ended = (key, number, *_outcome(work, then, failed))
            # The viewer may be closed by now, and this object with it.
            with suppress(RuntimeError):
                self._ended.emit(ended)

        self._pool.submit(run)

    def follow(
        self,
        key: str,
        work: Callable[[], Any],
        then: Callable[[Any], None],
        failed: Callable[[str], None],
    ) -> None:
        """Run the newest of many tasks, one at a time, as for a moving cursor.

        While a task runs, later ones replace each other. When it is done, its result is
        reported and the newest task starts, so results lag behind by one task at most
        and are never out of order.

        Parameters
        ----------
        key, work, then, failed
            As for :meth:`submit`, which drops a task that has begun instead.
        """
        if key in self._followed:
            self._followed[key] = (work, then, failed)
            return
        self._followed[key] = None

        def arrived(result: Any) -> None:
            # The next task runs while this result is drawn.
            self._follow_next(key)
            then(result)

        def could_not(problem: str) -> None:
            failed(problem)
            self._follow_next(key)

        self.submit(key, work, arrived, could_not)

    def _follow_next(self, key: str) -> None:
        waiting = self._followed.pop(key, None)
        if waiting is not None:
            self.follow(key, *waiting)

    def drop(self, key: str) -> None:
        """Drop the work of a key: it is not done, or its result is not reported."""
        self._followed.pop(key, None)
        self._newest[key] = self._newest.get(key, 0) + 1

    def wait(self) -> None:
        """Wait until all that was handed in is done, told or not."""
        self._pool.submit(lambda: None).result()

    def _deliver(self, ended: tuple[str, int, Callable[[Any], None], Any]) -> None:
        key, number, tell, outcome = ended
        if self._newest[key] == number:
            tell(outcome)


def _outcome(
    work: Callable[[], Any],
    then: Callable[[Any], None],
    failed: Callable[[str], None],
) -> tuple[Callable[[Any], None], Any]:
    """Do the work; give who is to hear of it, and what."""
    try:
        return then, work()
    except McmError as error:
        return failed, str(error)
    except Exception as error:  # noqa: BLE001 - the border of the thread: all are shown
        _log.exception("Work in the background failed")
        return failed, f"{type(error).__name__}: {error}"
