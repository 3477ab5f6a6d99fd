"""Helpers that run long computations in threads, so that jobs stay responsive.

- :func:`run_cancellable` yields while a computation runs; the caller can stop waiting.
- :func:`report_while_running` turns such yields into progress events of a job.
- :func:`run_in_thread` is both in one: a job that runs a function in a thread.
- :func:`prefetch` prepares items in threads, in order and a few in advance.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from napari_mcm.core.runtime.jobs import Job, Progress

_T = TypeVar("_T")


_POLL_S = 0.1
"""Seconds between two yields while a thread works."""

_CLOSE_S = 0.7
"""Seconds for which closing waits for the thread, before leaving it to finish."""


def run_cancellable(
    work: Callable[[], _T], long: bool, name: str
) -> Generator[None, None, _T]:
    """Run a function and yield meanwhile, so that the caller can cancel.

    Closing the generator waits briefly, then leaves the thread to finish with its
    result unused: nothing interrupts a bag of hundreds of thousands of patches, which
    takes seconds.

    Parameters
    ----------
    work : callable
        The function; it runs in a thread of its own if `long`.
    long : bool
        Whether it may take more than a moment.
    name : str
        What is done, for the thread's name.

    Returns
    -------
    object
        What `work` returns.

    Yields
    ------
    None
        Several times per second if `long`, else once.

    Raises
    ------
    BaseException
        What `work` raises.
    """
    if not long:
        yield
        return work()
    done: list[_T] = []
    failed: list[BaseException] = []

    def body() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again by the generator
            failed.append(error)

    thread = threading.Thread(target=body, name=f"napari-mcm: {name}", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            yield
            thread.join(_POLL_S)
    finally:
        thread.join(_CLOSE_S)
    if failed:
        raise failed[0]
    return done[0]


def report_while_running(
    work: Generator[None, None, _T], progress: Progress
) -> Job[_T]:
    """Turn the yields of a running computation into progress events, as a job.

    Parameters
    ----------
    work : generator
        See :func:`run_cancellable`.
    progress : Progress
        The event to yield each time.

    Returns
    -------
    object
        What `work` returns.

    Yields
    ------
    Progress
        `progress`, whenever `work` yields.
    """
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: _T = end.value
            return result
        yield progress


def run_in_thread(stage: str, work: Callable[..., _T], *args: Any) -> Job[_T]:
    """Run a function that cannot be interrupted in a thread of its own, as a job.

    Cancelling the job does not wait for the thread, which finishes with its result
    unused.

    Parameters
    ----------
    stage : str
        What is done, for the progress and the thread's name.
    work : callable
        The function.
    *args : object
        Its arguments.

    Returns
    -------
    object
        What `work` returns.

    Yields
    ------
    Progress
        Without a total, several times per second.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix=f"napari-mcm: {stage}")
    try:
        future = pool.submit(work, *args)
        while not wait([future], timeout=_POLL_S).done:
            yield Progress(stage, 0, None)
        return future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


_In = TypeVar("_In")

_Out = TypeVar("_Out")


def prefetch(
    prepare: Callable[[_In], _Out],
    items: Iterable[_In],
    workers: int = 2,
    ahead: int = 4,
) -> Generator[_Out, None, None]:
    """Prepare items in threads, a few in advance of the consumer.

    Decoding and numpy release the interpreter's lock, so that threads overlap with each
    other and with the encoder. The order is kept.

    Parameters
    ----------
    prepare : callable
        Makes one result from one item; runs in a thread.
    items : iterable
        Items to prepare.
    workers : int, optional
        Number of threads; with 0 everything happens in the caller's own thread.
    ahead : int, optional
        Number of prepared items that may wait, which limits memory use.

    Yields
    ------
    object
        Results in the order of the items.
    """
    if workers < 1:
        yield from map(prepare, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")
    waiting: deque[Future[_Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(prepare, item))
            if len(waiting) > max(ahead, workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # Stopping early drops items that have not started, but waits for running threads:
        # nothing may read a slide after it is closed.
        pool.shutdown(wait=True, cancel_futures=True)
