"""Widgets that show what has changed after the canvas has."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakMethod

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QWidget

from napari_mcm.viewer.widgets.parts import when_destroyed


def follow_later(method: Callable[[], None], *signals: Any) -> None:
    """Call a widget's method once, when the window has painted what came before.

    Words and sliders of the dock take as long to lay out as the map takes to be drawn,
    and nobody looks at them first.

    Parameters
    ----------
    method : callable
        A method of a widget, called without arguments; once for many signals.
    *signals : psygnal.SignalInstance
        That may outlive the widget.
    """
    reference, waiting = WeakMethod(method), [False]
    widget: QWidget = method.__self__  # type: ignore[attr-defined]

    def call() -> None:
        waiting[0] = False
        if (alive := reference()) is not None:
            alive()

    # A child of the widget, which goes away with it.
    soon = QTimer(widget)
    soon.setSingleShot(True)
    soon.setInterval(0)
    soon.timeout.connect(call)

    def relay(*_: object) -> None:
        # A widget that Python's collector took has no farewell: its timer is gone, too.
        if not waiting[0] and reference() is not None:
            waiting[0] = True
            soon.start()

    for signal in signals:
        signal.connect(relay)
        when_destroyed(widget, partial(signal.disconnect, relay, missing_ok=True))
