"""What the parts of the *MIL* widget share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakMethod

from qtpy.QtWidgets import QWidget

from napari_mcm.viewer.widgets.parts import when_destroyed


def while_alive(method: Callable[..., None]) -> Callable[..., None]:
    """Give a widget's method as one that does nothing once Qt has deleted the widget.

    Work in the background may end after the viewer was closed.

    Parameters
    ----------
    method : callable
        A method of a widget.
    """
    reference, alive = WeakMethod(method), [True]
    widget: QWidget = method.__self__  # type: ignore[attr-defined]
    when_destroyed(widget, alive.clear)

    def call(*given: Any) -> None:
        if alive and (found := reference()) is not None:
            found(*given)

    return call
