"""A worker thread for short tasks, whose results return to the GUI thread.

It serves tasks that must not wait for a running job and need no progress bar, such as
saving a mask or laying a grid. Long tasks are jobs: :mod:`napari_mcm.viewer.app.jobs`.
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


class BackgroundWorker(QObject):
    """A worker thread that runs tasks in the order in which they are submitted.

    Python waits for the thread at exit, so that all submitted tasks are completed.

    Parameters
    ----------
    name : str
        Name of the thread, for debugging.
    """

    _ended = Signal(object)

    def __init__(self, name: str = "files") -> None:
        super().__init__()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"napari-mcm: {name}")
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
        """Run a task in the thread, unless a newer one with the same key replaces it.

        Parameters
        ----------
        key : str
            Identifies the task; only the newest task of a key is run and reported.
        work : callable
            The task, without arguments; called in the worker thread.
        then : callable
            Called in the GUI thread with the return value of `work`.
        failed : callable
            Called in the GUI thread with a one-line message if `work` raises.
        """
        number = self._newest[key] = self._newest.get(key, 0) + 1

        def run() -> None:
            if self._newest[key] != number:
                return
            ended = (key, number, *_run(work, then, failed))
            # The viewer, and this object with it, may be closed by now.
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
        """Cancel the task of a key, or discard its result if it has already started."""
        self._followed.pop(key, None)
        self._newest[key] = self._newest.get(key, 0) + 1

    def wait(self) -> None:
        """Block until all submitted tasks are done, whether or not reported yet."""
        self._pool.submit(lambda: None).result()

    def _deliver(self, ended: tuple[str, int, Callable[[Any], None], Any]) -> None:
        key, number, callback, value = ended
        if self._newest[key] == number:
            callback(value)


def _run(
    work: Callable[[], Any],
    then: Callable[[Any], None],
    failed: Callable[[str], None],
) -> tuple[Callable[[Any], None], Any]:
    """Run the task; return the callback to call, and its argument."""
    try:
        return then, work()
    except McmError as error:
        return failed, str(error)
    except Exception as error:  # noqa: BLE001 - the thread must survive any error
        _log.exception("Work in the background failed")
        return failed, f"{type(error).__name__}: {error}"
