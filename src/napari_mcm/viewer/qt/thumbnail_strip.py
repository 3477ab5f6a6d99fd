"""A horizontal strip of patch thumbnails."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QListView, QListWidget, QListWidgetItem

from napari_mcm.core.slides.tiles import Pixels
from napari_mcm.viewer.layers.thumbnails import THUMBNAIL_PX, TopPatch


class ThumbnailStrip(QListWidget):
    """A horizontal list of patch thumbnails, for mouse and keyboard.

    Parameters
    ----------
    name : str
        Accessible name for screen readers.
    value : str
        Name of the patches' values, for tooltips.

    Attributes
    ----------
    chosen : Signal
        Emitted with a :class:`TopPatch` that was clicked, or on which Enter was pressed.
    """

    chosen = Signal(object)

    def __init__(self, name: str, value: str) -> None:
        super().__init__()
        self._patches: Sequence[TopPatch] = ()
        self._value = value
        self.setAccessibleName(name)
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setFlow(QListView.Flow.LeftToRight)
        self.setMovement(QListView.Movement.Static)
        self.setWrapping(False)
        self.setSpacing(2)
        self.setIconSize(QSize(THUMBNAIL_PX, THUMBNAIL_PX))
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFixedHeight(THUMBNAIL_PX + 46)
        self.setMinimumWidth(100)
        # Click and Enter. On platforms where one click activates, both are emitted, which
        # is harmless.
        self.itemClicked.connect(self._choose)
        self.itemActivated.connect(self._choose)

    def show_patches(self, patches: Sequence[TopPatch]) -> None:
        """Replace the thumbnails.

        Parameters
        ----------
        patches : sequence of TopPatch
            Best first.
        """
        if patches is self._patches:
            return
        self._patches = patches
        self.clear()
        for rank, patch in enumerate(patches, 1):
            item = QListWidgetItem(_icon(patch.pixels), str(rank))
            item.setToolTip(
                f"{rank}: patch {patch.row:,}, {self._value} {patch.value:.3g}"
                f"{'' if patch.pixels is not None else ', not readable'}\n"
                "Click to go there"
            )
            self.addItem(item)
        self.setVisible(bool(patches))

    def _choose(self, item: QListWidgetItem) -> None:
        self.chosen.emit(self._patches[self.row(item)])


def image_of(pixels: Pixels) -> QImage:
    """Convert pixels to a Qt image.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width, 3)
        RGB pixels.
    """
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).tobytes()
    return QImage(data, width, height, 3 * width, QImage.Format.Format_RGB888).copy()


def _icon(pixels: Pixels | None) -> QIcon:
    if pixels is None:
        empty = QPixmap(THUMBNAIL_PX, THUMBNAIL_PX)
        empty.fill(Qt.GlobalColor.gray)
        return QIcon(empty)
    return QIcon(QPixmap.fromImage(image_of(pixels)))
