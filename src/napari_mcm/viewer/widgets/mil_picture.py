"""A picture that is as wide as its dock."""

from __future__ import annotations

from qtpy.QtCore import QRect, QSize, Qt
from qtpy.QtGui import QImage, QPainter, QPaintEvent
from qtpy.QtWidgets import QSizePolicy, QWidget


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
