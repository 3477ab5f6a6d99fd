"""Deletes layers that belonged to one that the user has deleted."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer


def drop_later(viewer: ViewerModel, layers: Collection[Layer]) -> None:
    """Delete layers once all know of the deletion that is under way.

    Parameters
    ----------
    viewer : ViewerModel
        Which may have them.
    layers : collection of Layer
        Those that are gone by then are left alone.
    """

    def drop() -> None:
        for layer in layers:
            if layer in viewer.layers:
                viewer.layers.remove(layer)

    if layers:
        QTimer.singleShot(0, drop)
