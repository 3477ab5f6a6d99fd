"""Long computations that can be walked away from."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

from napari_mcm.core.jobs import Job, Progress

_T = TypeVar("_T")

_LOOK_S = 0.1
_WAIT_S = 0.7


def steadily(work: Callable[[], _T], long: bool) -> Generator[None, None, _T]:
    """Do some work and yield now and then meanwhile, so that it can be cancelled.

    What is closed is waited for shortly, then left to end by itself, its result unused:
    a bag of hundreds of thousands of patches takes seconds that nothing interrupts.

    Parameters
    ----------
    work : callable
        What is done; in a thread of its own where `long`.
    long : bool
        Whether it may take more than a moment.

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

    thread = threading.Thread(target=body, name="mil-step", daemon=True)
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


def alive(work: Generator[None, None, _T], progress: Progress) -> Job[_T]:
    """Say that it is alive as often as some work comes up for air."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: _T = end.value
            return result
        yield progress


def apart(stage: str, work: Callable[..., _T], *args: Any) -> Job[_T]:
    """Do a step that cannot be interrupted in a thread of its own.

    A cancel need not wait for it: the thread ends by itself, its result is dropped.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="napari-mcm")
    try:
        future = pool.submit(work, *args)
        while not wait([future], timeout=_LOOK_S).done:
            yield Progress(stage, 0, None)
        return future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
