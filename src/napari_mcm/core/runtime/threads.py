"""Long computations that can be walked away from."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from napari_mcm.core.runtime.jobs import Job, Progress

_T = TypeVar("_T")


_LOOK_S = 0.1

_WAIT_S = 0.7


def run_cancellable(
    work: Callable[[], _T], long: bool, name: str
) -> Generator[None, None, _T]:
    """Do some work and yield now and then meanwhile, so that it can be cancelled.

    What is closed is waited for shortly, then left to end by itself, its result unused:
    a bag of hundreds of thousands of patches takes seconds that nothing interrupts.

    Parameters
    ----------
    work : callable
        What is done; in a thread of its own where `long`.
    long : bool
        Whether it may take more than a moment.
    name : str
        What is done; the thread is called so.

    Returns
    -------
    object
        What `work` returns.
    """
    if not long:
        yield
        return work()
    done: list[_T] = []
    failed: list[BaseException] = []

    def body() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            failed.append(error)

    thread = threading.Thread(target=body, name=f"napari-mcm: {name}", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            yield
            thread.join(_LOOK_S)
    finally:
        thread.join(_WAIT_S)
    if failed:
        raise failed[0]
    return done[0]


def report_while_running(
    work: Generator[None, None, _T], progress: Progress
) -> Job[_T]:
    """Say that it is alive as often as some work comes up for air."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: _T = end.value
            return result
        yield progress


def run_in_thread(stage: str, work: Callable[..., _T], *args: Any) -> Job[_T]:
    """Do a step that cannot be interrupted in a thread of its own.

    A cancel need not wait for it: the thread ends by itself, its result is dropped.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix=f"napari-mcm: {stage}")
    try:
        future = pool.submit(work, *args)
        while not wait([future], timeout=_LOOK_S).done:
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
    """Prepare items in threads, a few ahead of whoever takes them.

    Decoding and numpy release the interpreter's lock, so threads overlap with each
    other and with the encoder. The order is kept.

    Parameters
    ----------
    prepare : callable
        Makes one result from one item; runs in a thread.
    items : iterable
        What to prepare.
    workers : int
        Threads; with 0 everything happens in the caller's own thread.
    ahead : int
        How many items may wait at a time, which bounds the memory.

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
        # Whoever stops early does not wait for what is no longer wanted, but the threads
        # are gone when this returns: nothing reads a slide that is being closed.
        pool.shutdown(wait=True, cancel_futures=True)
