"""The overview map: the whole slide, small, with a frame around what is in sight."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import ref

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import (
    QColor,
    QImage,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QPixmap,
    QPolygonF,
    QTransform,
)
from qtpy.QtWidgets import QWidget

from napari_mcm.viewer.canvas.view import centre_on, flipped, is_plain, seen_corners

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mcm.core.slides.tiles import Pixels

SIDE = 150
"""Longer side of the map on the screen, in pixels."""
_EDGE = 3
"""Width of the border, in pixels."""
_MARGIN = 10
"""Distance to the canvas's lower left corner, in pixels."""
_LEAST = 9.0
"""Smallest side of the frame, in pixels: a smaller one could not be seen."""
_MOVED = 0.25
"""Movement of the frame, in pixels, from which the map is painted anew."""


class OverviewMap(QWidget):
    """A small picture of the current slide over the canvas's lower left corner.

    A click or a drag in it moves the view. It is not shown in three dimensions, nor with
    transposed axes, where it would be wrong; on a rotated slide, the frame is rotated.

    Parameters
    ----------
    native : QWidget
        The widget that napari draws on.
    viewer : ViewerModel
        The viewer.
    """

    def __init__(self, native: QWidget, viewer: ViewerModel) -> None:
        super().__init__(native)
        # Otherwise napari would draw the canvas under it anew at each change.
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self._viewer = ref(viewer)
        self._slide: Callable[[], Layer | None] = _no_layer
        self._image: QImage | None = None
        self._size, self._frame = (1, 1), np.zeros((4, 2))
        self._wanted = True
        self._drawn: tuple[object, QPixmap] | None = None
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setAccessibleName("Overview map")
        self.setToolTip("Click or drag to move the view (key W hides this map)")
        self.hide()

    def show_slide(self, slide: Layer | None, pixels: Pixels | None) -> None:
        """Show another slide.

        Parameters
        ----------
        slide : Layer or None
            Layer of the slide; None for no map.
        pixels : ndarray of uint8, shape (height, width, 3), or None
            The whole slide, small; None while it is read.
        """
        self._slide = _no_layer if slide is None else ref(slide)
        self._image = None if pixels is None else _image(pixels)
        if slide is not None:
            height, width = (
                slide.data[0].shape[:2] if slide.multiscale else (slide.data.shape[:2])
            )
            self._size = (width, height)
            scale = SIDE / max(width, height)
            inner = max(round(width * scale), 12), max(round(height * scale), 12)
            self.resize(inner[0] + 2 * _EDGE, inner[1] + 2 * _EDGE)
        self.place()
        self.follow()
        self.update()

    def want(self, wanted: bool) -> None:
        """Show the map where it is right, or never.

        Parameters
        ----------
        wanted : bool
            Whether to show it.
        """
        self._wanted = wanted
        self.follow()

    def place(self) -> None:
        """Move it to the canvas's lower left corner."""
        if (native := self.parentWidget()) is not None:
            self.move(_MARGIN, native.height() - self.height() - _MARGIN)

    def follow(self) -> None:
        """Follow the view: move the frame, and show or hide the map."""
        viewer, slide = self._viewer(), self._slide()
        can = viewer is not None and slide is not None and self._image is not None
        shown = self._wanted and can and is_plain(viewer) and self._has_room()
        if shown != self.isVisibleTo(self.parentWidget()):
            self.setVisible(shown)
        if not shown or viewer is None or slide is None:
            return
        frame = self._to_map(seen_corners(viewer, slide))
        if np.abs(frame - self._frame).max() >= _MOVED:
            self._frame = frame
            self.update()

    def _has_room(self) -> bool:
        native = self.parentWidget()
        return native is not None and native.width() > 2 * self.width()

    def _scale(self) -> NDArray[np.float64]:
        """Return the map's pixels per level-0 pixel, along x and y."""
        inner = np.array([self.width(), self.height()]) - 2 * _EDGE
        return inner / np.asarray(self._size, float)

    def _to_map(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map level-0 pixels to pixels of this widget."""
        inner = points * self._scale()
        return np.asarray(self._mirror(inner) + _EDGE)

    def _mirror(self, inner: NDArray[np.float64]) -> NDArray[np.float64]:
        viewer = self._viewer()
        vertically, horizontally = (False, False) if viewer is None else flipped(viewer)
        size = np.array([self.width(), self.height()]) - 2 * _EDGE
        return np.where((horizontally, vertically), size - inner, inner)

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Paint the picture and the frame."""
        viewer = self._viewer()
        if self._image is None or viewer is None:
            return
        painter = QPainter(self)
        painter.drawPixmap(0, 0, self._background(self._image, flipped(viewer)))
        # Dark on both sides of a light line: it is seen on glass and on tissue.
        frame = _at_least(self._frame, _LEAST)
        polygon = QPolygonF([QPointF(*point) for point in frame])
        for colour, width in ((QColor(0, 0, 0, 200), 4.0), (QColor(255, 220, 0), 2.0)):
            painter.setPen(QPen(colour, width))
            painter.drawPolygon(polygon)
        painter.end()

    def _background(self, image: QImage, mirrored: tuple[bool, bool]) -> QPixmap:
        """Return border and picture at the size of the screen's pixels.

        Qt paints the map at each drawing of the canvas: scaling would be slow.
        """
        key = image.cacheKey(), mirrored, self.devicePixelRatioF(), self.size()
        if self._drawn is None or self._drawn[0] != key:
            pixmap = QPixmap(self.size() * self.devicePixelRatioF())
            pixmap.setDevicePixelRatio(self.devicePixelRatioF())
            pixmap.fill(QColor(40, 40, 40))
            inner = QRectF(self.rect()).adjusted(_EDGE, _EDGE, -_EDGE, -_EDGE)
            painter = QPainter(pixmap)
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
            painter.setTransform(_mirrored(inner, *mirrored))
            painter.drawImage(inner, image)
            painter.end()
            self._drawn = key, pixmap
        return self._drawn[1]

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Move the view."""
        if event is not None and event.button() == Qt.MouseButton.LeftButton:
            self._go_to(event.position())

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Move the view while the button is held."""
        if event is not None and event.buttons() & Qt.MouseButton.LeftButton:
            self._go_to(event.position())

    def mouseReleaseEvent(self, event: QMouseEvent | None) -> None:
        """Keep the release from the canvas, which saw no press."""

    def mouseDoubleClickEvent(self, event: QMouseEvent | None) -> None:
        """Keep a double click from the canvas, which would zoom in."""

    def _go_to(self, at: QPointF) -> None:
        viewer, slide = self._viewer(), self._slide()
        if viewer is None or slide is None:
            return
        inner = self._mirror(np.array([at.x(), at.y()]) - _EDGE)
        x, y = np.clip(inner / self._scale(), 0, self._size)
        centre_on(viewer, slide, float(x), float(y))


def _no_layer() -> None:
    return None


def _image(pixels: Pixels) -> QImage:
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    form = QImage.Format.Format_RGB888
    # A copy: QImage does not keep the array alive.
    return QImage(pixels.tobytes(), width, height, 3 * width, form).copy()


def _mirrored(inner: QRectF, vertically: bool, horizontally: bool) -> QTransform:
    """Return the transform that mirrors a rectangle in itself."""
    centre = inner.center()
    turn = QTransform.fromTranslate(centre.x(), centre.y())
    turn.scale(-1 if horizontally else 1, -1 if vertically else 1)
    turn.translate(-centre.x(), -centre.y())
    return turn


def _at_least(frame: NDArray[np.float64], side: float) -> NDArray[np.float64]:
    """Enlarge a frame whose sides are shorter than a number of pixels."""
    centre = frame.mean(axis=0)
    shortest = min(np.ptp(frame[:, 0]), np.ptp(frame[:, 1]))
    if shortest >= side:
        return frame
    longer = side / max(np.ptp(frame, axis=0).max(), 1e-9)
    if longer > 1:
        return np.asarray(centre + (frame - centre) * longer)
    return frame
