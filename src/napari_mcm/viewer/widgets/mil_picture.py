"""A picture that is as wide as its dock, and thumbnails of patches in a strip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QRect, QSize, Qt
from qtpy.QtGui import QIcon, QImage, QPainter, QPaintEvent, QPixmap
from qtpy.QtWidgets import QListView, QListWidget, QListWidgetItem, QSizePolicy, QWidget

from napari_mcm.core.slides.tiles import Pixels
from napari_mcm.viewer.mil_look import THUMBNAIL_PX, TopPatch


class Picture(QWidget):
    """Shows an image as large as there is room, and no larger than it is."""

    def __init__(self) -> None:
        super().__init__()
        self._image = QImage()
        policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)

    def show_image(self, image: QImage) -> None:
        """Show another image."""
        self._image = image
        self.setVisible(not image.isNull())
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        """Tell Qt how large the picture would like to be."""
        return QSize(280, self.heightForWidth(280))

    def hasHeightForWidth(self) -> bool:
        """Keep the image's shape."""
        return True

    def heightForWidth(self, width: int) -> int:
        """Give the height that the shape asks for."""
        if self._image.isNull():
            return 0
        wide = min(width, self._image.width())
        return round(wide * self._image.height() / self._image.width())

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Paint the image in the middle."""
        if self._image.isNull():
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        size = self._image.size()
        size.scale(self.size(), Qt.AspectRatioMode.KeepAspectRatio)
        left = (self.width() - size.width()) // 2
        painter.drawImage(QRect(left, 0, size.width(), size.height()), self._image)
        painter.end()


class PatchStrip(QListWidget):
    """Thumbnails side by side; arrow keys and clicks choose one.

    Attributes
    ----------
    chosen : Signal
        A patch was clicked, or Enter was pressed on it.
    """

    chosen = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._patches: Sequence[TopPatch] = ()
        self.setAccessibleName("Patches of greatest attention, best first")
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setFlow(QListView.Flow.LeftToRight)
        self.setMovement(QListView.Movement.Static)
        self.setWrapping(False)
        self.setSpacing(2)
        self.setIconSize(QSize(THUMBNAIL_PX, THUMBNAIL_PX))
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFixedHeight(THUMBNAIL_PX + 46)
        self.setMinimumWidth(100)
        # A click and Enter; where a click activates already, both tell the same.
        self.itemClicked.connect(self._choose)
        self.itemActivated.connect(self._choose)

    def show_patches(self, patches: Sequence[TopPatch]) -> None:
        """Show other patches."""
        if patches is self._patches:
            return
        self._patches = patches
        self.clear()
        for rank, patch in enumerate(patches, 1):
            item = QListWidgetItem(_icon(patch.pixels), str(rank))
            item.setToolTip(
                f"{rank}: patch {patch.row:,}, weight {patch.weight:.3g}"
                f"{'' if patch.pixels is not None else ', not readable'}\n"
                "Click to go there"
            )
            self.addItem(item)
        self.setVisible(bool(patches))

    def _choose(self, item: QListWidgetItem) -> None:
        self.chosen.emit(self._patches[self.row(item)])


def image_of(pixels: Pixels) -> QImage:
    """Make an image of pixels (height, width, 3)."""
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).tobytes()
    return QImage(data, width, height, 3 * width, QImage.Format.Format_RGB888).copy()


def _icon(pixels: Pixels | None) -> QIcon:
    if pixels is None:
        empty = QPixmap(THUMBNAIL_PX, THUMBNAIL_PX)
        empty.fill(Qt.GlobalColor.gray)
        return QIcon(empty)
    return QIcon(QPixmap.fromImage(image_of(pixels)))
