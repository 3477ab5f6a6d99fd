"""Work that follows the cursor: one piece at a time, and always the newest."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from napari_mcm.viewer.background import Background


class Follower:
    """Does work for the newest of many positions, in a thread.

    While a piece of work is being done, later positions replace each other; when it is
    done it is shown, and the newest one is taken. So what is shown lags behind by one
    piece of work at most, and is never out of order.

    Parameters
    ----------
    work : callable
        Called in the thread with a position; gives what is to be shown.
    show : callable
        Called in this thread with what `work` gave.
    failed : callable
        Called in this thread with one line.
    """

    def __init__(
        self,
        work: Callable[[Any], Any],
        show: Callable[[Any], None],
        failed: Callable[[str], None],
    ) -> None:
        self._work, self._show, self._failed = work, show, failed
        self._thread = Background()
        self._next: Any = None
        self._busy = False

    def follow(self, position: Any) -> None:
        """Take a new position; an older one that was not begun is dropped."""
        self._next = position
        self._advance()

    def stop(self) -> None:
        """Drop what was not begun, and do not show what is being done."""
        self._next, self._busy = None, False
        self._thread.drop("follow")

    def _advance(self) -> None:
        if self._busy or self._next is None:
            return
        position, self._next = self._next, None
        self._busy = True
        work = partial(self._work, position)
        self._thread.submit("follow", work, self._arrived, self._could_not)

    def _arrived(self, result: Any) -> None:
        self._busy = False
        # The next is worked on while this one is drawn.
        self._advance()
        self._show(result)

    def _could_not(self, problem: str) -> None:
        self._busy = False
        self._failed(problem)
        self._advance()
