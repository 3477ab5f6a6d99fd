"""Reading ahead: threads prepare the next items while the last one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

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
