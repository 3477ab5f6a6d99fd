"""Threads of the engine: one step of a job, and items that are prepared in advance.

:func:`run_in_thread` runs what cannot be interrupted, so that a job goes on reporting and
is cancelled at once. :func:`prefetch` prepares the next items while one is used;
:class:`Prefetcher` is the same for items that become known later. Files that are written
while work goes on have a module of their own, :mod:`.async_writes`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar

from napari_mcm.core.runtime.jobs import Job, Progress

_T = TypeVar("_T")

_POLL_S = 0.1
"""Seconds between two events while a thread works."""

_GRACE_S = 0.7
"""Seconds for which a cancelled computation is waited for."""


def run_in_thread(
    progress: str | Progress,
    work: Callable[..., _T],
    *args: Any,
    abandon: bool = False,
    stop: Callable[[], object] | None = None,
) -> Job[_T]:
    """Run a step that cannot be interrupted in a thread of its own, as a job.

    Cancelling the job leaves the thread to end on its own; its result is dropped.

    Parameters
    ----------
    progress : str or Progress
        What to report ten times per second; a text is the name of the stage.
    work : callable
        The step.
    *args
        Its arguments.
    abandon : bool
        Whether the program may end during the step, for computations: a bag of hundreds
        of thousands of patches takes seconds. After a cancel, 0.7 s are left to it, as
        what comes next needs the same processor. Otherwise the program's end waits for
        the step: it may be writing a file.
    stop : callable, optional
        Called without arguments when the job is cancelled during the step, before it is
        waited for: tells a step that looks for it to end.

    Yields
    ------
    Progress
        While the step runs.

    Returns
    -------
    object
        What `work` returns.

    Raises
    ------
    BaseException
        What `work` raises.
    """
    shown = Progress(progress, 0, None) if isinstance(progress, str) else progress
    done: Future[_T] = Future()

    def body() -> None:
        try:
            done.set_result(work(*args))
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            done.set_exception(error)

    name = f"napari-mcm: {shown.stage}"
    thread = threading.Thread(target=body, name=name, daemon=abandon)
    thread.start()
    try:
        while not wait([done], timeout=_POLL_S).done:
            yield shown
        return done.result()
    finally:
        if stop is not None and not done.done():
            stop()
        if abandon:
            thread.join(_GRACE_S)


def report_while_running(
    work: Generator[object, None, _T], progress: Progress
) -> Job[_T]:
    """Turn work that yields between its parts into a job that reports its progress.

    Parameters
    ----------
    work : generator
        The work; what it yields is not looked at.
    progress : Progress
        What to report in its place.

    Yields
    ------
    Progress
        As often as `work` yields.

    Returns
    -------
    object
        What `work` returns.
    """
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: _T = end.value
            return result
        yield progress


_In = TypeVar("_In")

_Out = TypeVar("_Out")


def prefetch(
    prepare: Callable[[_In], _Out],
    items: Iterable[_In],
    workers: int = 2,
    ahead: int = 4,
) -> Generator[_Out, None, None]:
    """Prepare items in threads, a few ahead of the one that is used.

    Decoding and NumPy release the interpreter's lock, so threads overlap with each
    other and with the encoder. The order is kept.

    Parameters
    ----------
    prepare : callable
        Makes one result from one item; runs in a thread.
    items : iterable
        What to prepare.
    workers : int
        Number of threads; with 0 everything happens in the caller's own thread.
    ahead : int
        Maximum number of items that wait at a time, which bounds the memory.

    Yields
    ------
    object
        Results in the order of the items.
    """
    if workers < 1:
        yield from map(prepare, items)
        return
    coming = Prefetcher(prepare, workers)
    try:
        for item in items:
            coming.add(item)
            if len(coming) > max(ahead, workers):
                yield coming.take()[1].result()
        while len(coming):
            yield coming.take()[1].result()
    finally:
        # The threads have ended when this returns: nothing reads a slide that is closed.
        coming.close(wait=True)


class Prefetcher(Generic[_In, _Out]):
    """Prepare items in threads, in the order in which they are added.

    Parameters
    ----------
    prepare : callable
        Makes one result from one item; runs in a thread.
    workers : int
        Number of threads.
    name : str
        What the threads are called.
    """

    def __init__(
        self, prepare: Callable[[_In], _Out], workers: int, name: str = "prefetch"
    ) -> None:
        self._prepare = prepare
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._coming: deque[tuple[_In, Future[_Out]]] = deque()

    def __len__(self) -> int:
        return len(self._coming)

    def add(self, item: _In) -> None:
        """Begin to prepare an item as soon as a thread is free.

        Parameters
        ----------
        item : object
            What to prepare.
        """
        self._coming.append((item, self._pool.submit(self._prepare, item)))

    def take(self) -> tuple[_In, Future[_Out]]:
        """Return the item that was added first, and its result to come.

        Returns
        -------
        item : object
            The item.
        future : Future
            Its result, or the error of `prepare`.
        """
        return self._coming.popleft()

    def close(
        self, wait: bool, discard: Callable[[Future[_Out]], object] | None = None
    ) -> None:
        """Drop the items that were not taken, and end the threads.

        Parameters
        ----------
        wait : bool
            Whether to wait for what is being prepared.
        discard : callable, optional
            Called with the future of each dropped item that was prepared, or is being
            prepared, once it is done.
        """
        for _, future in self._coming:
            if not future.cancel() and discard is not None:
                future.add_done_callback(discard)
        self._coming.clear()
        self._pool.shutdown(wait=wait, cancel_futures=True)
