"""Where the pointer is on the canvas now, not where it was last seen to move."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QApplication, QWidget

from napari_mcm.viewer.layers.early_slicing import canvas_of

if TYPE_CHECKING:
    from napari.components import ViewerModel

NOWHERE = "Point at a patch of the slide"
"""What a key that needs the pointer says where it is not over the canvas."""

REST_MS = 60
"""Time from when the canvas is drawn until what is under the pointer is shown anew."""


def locate_pointer(viewer: ViewerModel) -> tuple[float, ...] | None:
    """Return the world position under the pointer, and tell napari's cursor of it.

    napari's cursor is where the pointer moved last: since then the view may have moved,
    and the pointer may have left the canvas.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer. A window that is not shown has no pointer: its cursor's position is
        taken as it is.

    Returns
    -------
    tuple of float or None
        World position; None where the pointer is not over the canvas itself.
    """
    canvas = canvas_of(viewer)
    native: QWidget | None = None if canvas is None else canvas.native
    if native is not None and native.isVisible():
        at = QCursor.pos()
        if QApplication.widgetAt(at) != native:
            return None
        local = native.mapFromGlobal(at)
        pixel = np.array((local.x(), local.y()))
        box, viewer.cursor.viewbox = canvas._get_viewbox_at(pixel)
        if box is None:
            return None
        viewer.cursor.position = canvas._map_canvas2world(pixel, box)
    return tuple(viewer.cursor.position)


def is_on_canvas(viewer: ViewerModel) -> bool:
    """Return whether pointer or keyboard are on the canvas, and not in a dock or menu.

    napari gets the keys that a dock does not use, too.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer. In a window that is not shown, all is on the canvas.
    """
    canvas = canvas_of(viewer)
    native: QWidget | None = None if canvas is None else canvas.native
    if native is None or not native.isVisible() or native.hasFocus():
        return True
    under = QApplication.widgetAt(QCursor.pos())
    if QApplication.activePopupWidget() is not None or under is None:
        return False
    return under == native or native.isAncestorOf(under)
