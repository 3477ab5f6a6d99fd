"""Pictures that a run has drawn, read in the background."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from qtpy.QtCore import QRect, QSize, Qt
from qtpy.QtGui import QImage, QPainter, QPaintEvent, QPixmap
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
    """One of a run's pictures, and a list to choose it from where there are several.

    Parameters
    ----------
    session : Session
        Whose thread reads them.
    key : str
        Tells these pictures from those of other widgets.
    """

    def __init__(self, session: Session, key: str) -> None:
        super().__init__()
        self._session, self._key = session, key
        self._paths: Mapping[str, Path] = {}
        self.choice = narrow(QComboBox())
        self.choice.setAccessibleName("Picture of the run")
        self.choice.setToolTip("Which of the run's pictures is shown; see its folder")
        self.choice.activated.connect(lambda _: self._read())
        self.picture = Picture()
        self.large = QPushButton("Larg&e…")
        self.large.setToolTip("Show the picture in its full size, in a window")
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
        """Show pictures, by title."""
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
