"""Show the figures of a run, which are read in the background."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from qtpy.QtCore import QRect, QSize, Qt
from qtpy.QtGui import QImage, QPainter, QPaintEvent, QPalette, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.qt.helpers import narrow, while_alive


class RunImages(QWidget):
    """Show one figure of a run, with a list to choose it from.

    Parameters
    ----------
    session : Session
        Session of the viewer, which reads files in the background.
    key : str
        Distinguishes these figures from those of other widgets.
    """

    def __init__(self, session: Session, key: str) -> None:
        super().__init__()
        self._session, self._key = session, key
        self._paths: Mapping[str, Path] = {}
        self.choice = narrow(QComboBox())
        self.choice.setAccessibleName("Figure of the run")
        self.choice.setToolTip("Figure to show; the run folder has the file")
        self.choice.activated.connect(lambda _: self._read())
        self.picture = Picture()
        self.large = QPushButton("Larg&e…")
        self.large.setToolTip("Show the figure in full size, in a window")
        self.large.clicked.connect(self._enlarge)
        self.dialog: QDialog | None = None
        self._image = QImage()
        row = QHBoxLayout()
        row.addWidget(self.choice, 1)
        row.addWidget(self.large)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(row)
        column.addWidget(self.picture)
        self.show_pictures({})

    def show_pictures(self, paths: Mapping[str, Path]) -> None:
        """Show these figures, by title."""
        shown = self.choice.currentText()
        self._paths = paths
        self.choice.clear()
        self.choice.addItems(list(paths))
        self.choice.setCurrentIndex(max(self.choice.findText(shown), 0))
        self.choice.setVisible(len(paths) > 1)
        self.setVisible(bool(paths))
        self._read()

    def _read(self) -> None:
        path = self._paths.get(title := self.choice.currentText())
        if path is None:
            self._show(QImage())
            return
        self.picture.setAccessibleName(title)
        self.picture.setToolTip(f"{title}\n\n{path}")
        self._session.disk.submit(
            f"picture {self._key}",
            partial(_image, path),
            while_alive(self._show),
            self._session.report_error,
        )

    def _show(self, image: QImage) -> None:
        self._image = image
        self.picture.show_image(image)
        self.large.setEnabled(not image.isNull())

    def _enlarge(self) -> None:
        self.dialog = dialog = QDialog(self)
        dialog.setWindowTitle(self.choice.currentText())
        label, area = QLabel(), QScrollArea()
        label.setPixmap(QPixmap.fromImage(self._image))
        area.setWidget(label)
        QVBoxLayout(dialog).addWidget(area)
        dialog.resize(900, 500)
        dialog.open()


def _image(path: Path) -> QImage:
    return QImage(str(path))


_GROUND = (38, 41, 48)
"""Colour of a dock in napari's dark theme, as red, green and blue."""


def read_plot(path: Path) -> tuple[QImage, QImage]:
    """Read a plot for a light theme, and make one for a dark theme of it.

    Light and dark are exchanged, and hues stay.

    Parameters
    ----------
    path : Path
        A picture on a white ground.

    Returns
    -------
    light, dark : QImage
        The plot; null where it cannot be read.
    """
    light = QImage(str(path)).convertToFormat(QImage.Format.Format_RGBA8888)
    if light.isNull():
        return light, light
    pixels = np.asarray(Image.open(path).convert("RGB"), np.float32)
    ends = pixels.max(axis=2, keepdims=True) + pixels.min(axis=2, keepdims=True)
    ground = np.array(_GROUND, np.float32)
    # (height, width, 3): lightness is turned round, black becomes the dock's colour.
    turned = ground + (255 - ground) / 255 * (pixels + 255 - ends)
    turned = np.ascontiguousarray(turned.clip(0, 255).astype(np.uint8))
    height, width = turned.shape[:2]
    kind = QImage.Format.Format_RGB888
    # A copy, as the image would not keep the array alive.
    return light, QImage(turned.tobytes(), width, height, 3 * width, kind).copy()


class Picture(QWidget):
    """Show an image as large as fits, and at most in full size."""

    def __init__(self) -> None:
        super().__init__()
        self._image = self._dark = QImage()
        policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)

    def show_image(self, image: QImage) -> None:
        """Show an image; a null image hides the widget."""
        self._image, self._dark = image, QImage()
        self._refresh(image)

    def show_plot(self, plot: tuple[QImage, QImage]) -> None:
        """Show a plot as the theme wants it; both are painted when the theme changes.

        Parameters
        ----------
        plot : tuple of QImage
            For a light and for a dark theme, as :func:`read_plot` returns them.
        """
        self._image, self._dark = plot
        self._refresh(self._image)

    def _refresh(self, image: QImage) -> None:
        self.setVisible(not image.isNull())
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        """Return the preferred size."""
        return QSize(280, self.heightForWidth(280))

    def hasHeightForWidth(self) -> bool:
        """Tell Qt to keep the image's aspect ratio."""
        return True

    def heightForWidth(self, width: int) -> int:
        """Return the height for a width, at the image's aspect ratio."""
        if self._image.isNull():
            return 0
        wide = min(width, self._image.width())
        return round(wide * self._image.height() / self._image.width())

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Paint the image, centred."""
        if self._image.isNull():
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        size = self._image.size()
        size.scale(self.size(), Qt.AspectRatioMode.KeepAspectRatio)
        left = (self.width() - size.width()) // 2
        text = self.palette().color(QPalette.ColorRole.WindowText)
        dark = text.lightness() > 128 and not self._dark.isNull()
        shown = self._dark if dark else self._image
        painter.drawImage(QRect(left, 0, size.width(), size.height()), shown)
        painter.end()
