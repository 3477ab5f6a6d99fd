"""Timers that call a function once."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QTimer


def single_shot(interval: int, call: Callable[[], object]) -> QTimer:
    """Return a timer that calls a function once after each start.

    Parameters
    ----------
    interval : int
        Milliseconds from the start, or the latest restart, to the call.
    call : callable
        Called without arguments.

    Returns
    -------
    QTimer
        Not started yet.
    """
    timer = QTimer()
    timer.setSingleShot(True)
    timer.setInterval(interval)
    timer.timeout.connect(call)
    return timer
