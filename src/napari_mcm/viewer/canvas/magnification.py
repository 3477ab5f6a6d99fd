"""The magnification of the view, beside napari's scale bar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QWidget

from napari_mcm.viewer.layers.metadata import SlideMetadata

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

ONE_FOLD_UM = 10.0
"""Microns per pixel of the screen at 1×, by which 20× is 0.5 and 40× is 0.25."""
_MARGIN, _OVER_BAR = 10, 56
"""Distances in pixels to the right edge, and to the lower one, over the scale bar."""


def magnification_text(per_pixel: float, mpp: float | None) -> str:
    """Return the magnification and the size of a pixel of the screen.

    Parameters
    ----------
    per_pixel : float
        Level-0 pixels per pixel of the screen.
    mpp : float or None
        Microns per level-0 pixel; None if unknown.
    """
    if mpp is None:
        return f"{per_pixel:.3g} px of the slide per pixel"
    um = per_pixel * mpp
    return f"{ONE_FOLD_UM / um:.3g}× · {um:.3g} µm/px"


class MagnificationLabel(QLabel):
    """Shows the magnification over the canvas's lower right corner.

    Parameters
    ----------
    native : QWidget
        The widget that napari draws on.
    """

    def __init__(self, native: QWidget) -> None:
        super().__init__(native)
        # Otherwise napari would draw the canvas under it anew at each change.
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAccessibleName("Magnification")
        self.setObjectName("magnification")
        self.setStyleSheet(
            "#magnification { background: rgb(30, 33, 38); color: white;"
            " padding: 1px 5px; }"
        )
        self.hide()

    def follow(self, viewer: ViewerModel, slide: Layer | None) -> None:
        """Show the magnification of the view.

        Parameters
        ----------
        viewer : ViewerModel
            The viewer.
        slide : Layer or None
            Layer of the slide in sight; None for none.
        """
        metadata = None if slide is None else SlideMetadata.of_layer(slide)
        if slide is None or metadata is None or viewer.dims.ndisplay != 2:
            self.hide()
            return
        per_pixel = 1 / float(viewer.scene.camera.zoom * slide.scale[-1])
        mpp = None if metadata.mpp is None else metadata.mpp[0]
        text = magnification_text(per_pixel, mpp)
        if text != self.text():
            self.setText(text)
            self.adjustSize()
            self.place()
        if self.isHidden():
            self.show()

    def place(self) -> None:
        """Move it over the scale bar."""
        if (native := self.parentWidget()) is not None:
            left = native.width() - self.width() - _MARGIN
            self.move(left, native.height() - self.height() - _OVER_BAR)
