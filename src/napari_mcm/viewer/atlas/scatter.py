"""The map of an atlas as a widget: pan, zoom, point, choose and lasso."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt
from qtpy.QtGui import (
    QColor,
    QImage,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPalette,
    QPen,
    QPolygonF,
    QResizeEvent,
    QTextOption,
    QWheelEvent,
)
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_mcm.viewer.atlas.map_view import MapView
from napari_mcm.viewer.atlas.raster import PointRaster
from napari_mcm.viewer.layers.mouse import MOVED_PX

_NEAR_PX = 10
"""Distance in pixels within which a point is under the pointer."""
_STEP_PX = 40.0
"""How far an arrow key moves the map."""
_ZOOM = 1.25
"""By how much a key zooms, and a notch of the wheel."""
_LASSO_PX = 3.0
"""Shortest distance of two corners of a lasso."""
_FEW, _MANY = 2_000, 200_000
_RADIUS_PX = (3.0, 1.0)
"""Radius of a point where there are few, and where there are many."""


class ScatterView(QWidget):
    """Points of a 2-D map.

    A drag moves the map, the wheel zooms, Shift and a drag draw a lasso; with
    :meth:`use_lasso` a plain drag does. A click chooses a point.

    Attributes
    ----------
    pointed : Signal
        Emitted with the point under the pointer, or -1.
    chosen : Signal
        Emitted with a point that was clicked.
    lassoed : Signal
        Emitted with the corners (x, y) of a lasso on the map, and whether it adds to the
        selection.
    cleared : Signal
        Emitted when the user wants nothing to be selected.
    lasso_wanted : Signal
        Emitted with whether a plain drag should draw a lasso, when a key asks for it.
    digit_pressed : Signal
        Emitted with a number key, 1 to 9.
    """

    pointed = Signal(int)
    chosen = Signal(int)
    lassoed = Signal(object, bool)
    cleared = Signal()
    lasso_wanted = Signal(bool)
    digit_pressed = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._view = MapView()
        self._raster = PointRaster()
        self._places = np.empty((0, 2), np.float32)
        self._tree: Any = None
        self._picture: QImage | None = None
        self._is_whole, self._lasso_tool = True, False
        self._marked = self._under = -1
        self._pressed: QPointF | None = None
        self._last = QPointF()
        self._lasso: list[QPointF] | None = None
        self._dragging = self._adds = False
        self._message = ""
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName("Map of patches")
        self.setCursor(Qt.CursorShape.CrossCursor)
        policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        # What a high dock has left is the map's.
        policy.setVerticalStretch(100)
        self.setSizePolicy(policy)
        self.setMinimumSize(180, 220)

    @property
    def view(self) -> MapView:
        """Which part of the map is seen."""
        # Asked, not told by an event: a widget that is not shown yet gets none.
        size = max(self.width(), 1), max(self.height(), 1)
        if self._view.size != size:
            self._view = self._view.resized(*size)
            if self._is_whole:
                self._view = self._view.fitted(self._places)
        return self._view

    def sizeHint(self) -> QSize:
        """Return the preferred size."""
        # The least height: what a dock has left is added.
        return QSize(300, 220)

    def show_points(
        self, places: NDArray[np.float32], tree: Any = None, keep: bool = False
    ) -> None:
        """Replace the points.

        Parameters
        ----------
        places : ndarray of float32, shape (N, 2)
            Places on the map.
        tree : scipy.spatial.cKDTree, optional
            Finds points; without it, none is under the pointer.
        keep : bool
            Whether the view stays.
        """
        self._places, self._tree = places, tree
        self._raster.show_points(places)
        self._marked = self._under = -1
        if not keep:
            self.show_all()
        self._redraw()

    def show_colours(
        self, colours: NDArray[np.uint8], top: NDArray[np.integer]
    ) -> None:
        """Colour the points; see :meth:`PointRaster.show_colours`."""
        self._raster.show_colours(colours, top)
        self._redraw()

    def show_message(self, text: str) -> None:
        """Show a text in the middle, in place of points; an empty one for none."""
        self._message = text
        self.update()

    def mark(self, point: int) -> None:
        """Put a ring around a point; -1 for none."""
        if point != self._marked:
            self._marked = point
            self.update()

    def show_all(self) -> None:
        """See the whole map."""
        self._is_whole = True
        self._look(self.view.fitted(self._places))

    def use_lasso(self, on: bool) -> None:
        """Let a plain drag draw a lasso instead of moving the map."""
        self._lasso_tool = on
        shape = Qt.CursorShape
        self.setCursor(shape.PointingHandCursor if on else shape.CrossCursor)

    def screen_of(self, point: int) -> QPointF:
        """Return where a point is on the widget."""
        x, y = self.view.to_screen(self._places[point : point + 1].astype(float))[0]
        return QPointF(float(x), float(y))

    def point_at(self, position: QPointF) -> int:
        """Return the point next to a position on the widget; -1 if none is near."""
        if self._tree is None or not len(self._places):
            return -1
        at = self.view.to_map(np.asarray([[position.x(), position.y()]]))[0]
        distance, found = self._tree.query(
            at, distance_upper_bound=_NEAR_PX / self.view.scale
        )
        return int(found) if np.isfinite(distance) else -1

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Paint the points, the ring around one of them, and the lasso."""
        painter = QPainter(self)
        palette = self.palette()
        if self._picture is None:
            self._picture = self._paint_points(palette.color(QPalette.ColorRole.Base))
        painter.drawImage(QPointF(), self._picture)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = palette.color(QPalette.ColorRole.WindowText)
        if 0 <= self._marked < len(self._places):
            self._ring(painter, self.screen_of(self._marked), text)
        if self._lasso:
            painter.setPen(QPen(text, 1.5))
            faint = QColor(text)
            faint.setAlphaF(0.12)
            painter.setBrush(faint)
            painter.drawPolygon(QPolygonF(self._lasso))
        if self._message:
            painter.setPen(text)
            inner = QRectF(self.rect()).adjusted(12, 12, -12, -12)
            centred = QTextOption(Qt.AlignmentFlag.AlignCenter)
            painter.drawText(inner, self._message, centred)
        if self.hasFocus():
            painter.setPen(QPen(text, 1))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5))
        painter.end()

    def _paint_points(self, base: QColor) -> QImage:
        ratio = self.devicePixelRatioF()
        view = MapView(
            (round(self.width() * ratio), round(self.height() * ratio)),
            self.view.centre,
            self.view.scale * ratio,
        )
        background = base.red(), base.green(), base.blue()
        pixels = np.ascontiguousarray(
            self._raster.paint(view, background, self._radius() * ratio)
        )
        height, width = pixels.shape
        kind = QImage.Format.Format_RGB32
        picture = QImage(pixels.tobytes(), width, height, 4 * width, kind).copy()
        picture.setDevicePixelRatio(ratio)
        return picture

    def _radius(self) -> float:
        """Return the radius of a point: smaller, the more there are."""
        few, many = _RADIUS_PX
        count = np.clip(len(self._places), _FEW, _MANY)
        share = np.log(count / _FEW) / np.log(_MANY / _FEW)
        return float(few + share * (many - few))

    @staticmethod
    def _ring(painter: QPainter, at: QPointF, text: QColor) -> None:
        """Draw a ring that stands out from any colour."""
        painter.setBrush(Qt.BrushStyle.NoBrush)
        inverse = QColor(0, 0, 0) if text.lightness() > 127 else QColor(255, 255, 255)
        for colour, width in ((inverse, 4.5), (text, 2.0)):
            painter.setPen(QPen(colour, width))
            painter.drawEllipse(at, 7.0, 7.0)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """See as much of the map as before."""
        super().resizeEvent(event)
        self._redraw()

    def changeEvent(self, event: QEvent | None) -> None:
        """Take the background of another theme."""
        super().changeEvent(event)
        kinds = QEvent.Type.PaletteChange, QEvent.Type.StyleChange
        if event is not None and event.type() in kinds:
            self._redraw()

    def wheelEvent(self, event: QWheelEvent | None) -> None:
        """Zoom at the pointer."""
        if event is None:
            return
        notches = event.angleDelta().y() / 120
        position = event.position()
        self._zoom(_ZOOM**notches, (position.x(), position.y()))
        # Not for the column around, which would scroll.
        event.accept()

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Begin a click, a drag or a lasso."""
        if event is None or event.button() != Qt.MouseButton.LeftButton:
            return
        self._pressed = self._last = event.position()
        self._dragging = False
        modifiers, keys = event.modifiers(), Qt.KeyboardModifier
        self._adds = bool(modifiers & keys.ControlModifier)
        if self._lasso_tool or modifiers & keys.ShiftModifier:
            self._lasso = [event.position()]

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Move the map, draw the lasso, or tell what is under the pointer."""
        if event is None:
            return
        position = event.position()
        if self._pressed is None:
            self._point_at(self.point_at(position))
            return
        if not self._dragging:
            self._dragging = _distance(position, self._pressed) >= MOVED_PX
        if not self._dragging:
            return
        if self._lasso is not None:
            if _distance(position, self._lasso[-1]) >= _LASSO_PX:
                self._lasso.append(position)
                self.update()
            return
        moved = position - self._last
        self._last, self._is_whole = position, False
        self._look(self.view.moved(moved.x(), moved.y()))

    def mouseReleaseEvent(self, event: QMouseEvent | None) -> None:
        """End a click or a lasso."""
        if event is None or self._pressed is None:
            return
        self._pressed = None
        lasso, self._lasso = self._lasso, None
        if not self._dragging:
            found = self.point_at(event.position())
            if found >= 0:
                self.chosen.emit(found)
            elif lasso is None:
                self.cleared.emit()
        elif lasso is not None and len(lasso) > 2:
            pixels = np.asarray([(point.x(), point.y()) for point in lasso])
            self.lassoed.emit(self.view.to_map(pixels), self._adds)
        self.update()

    def mouseDoubleClickEvent(self, event: QMouseEvent | None) -> None:
        """Take a double click for two clicks."""
        self.mousePressEvent(event)

    def leaveEvent(self, event: QEvent | None) -> None:
        """Tell that nothing is under the pointer."""
        super().leaveEvent(event)
        self._point_at(-1)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Move, zoom, and choose by keys."""
        if event is None:
            return
        key, keys = event.key(), Qt.Key
        middle = self.width() / 2, self.height() / 2
        steps = {
            keys.Key_Left: (_STEP_PX, 0.0),
            keys.Key_Right: (-_STEP_PX, 0.0),
            keys.Key_Up: (0.0, _STEP_PX),
            keys.Key_Down: (0.0, -_STEP_PX),
        }
        if key in steps:
            self._is_whole = False
            self._look(self.view.moved(*steps[keys(key)]))
        elif key in (keys.Key_Plus, keys.Key_Equal):
            self._zoom(_ZOOM, middle)
        elif key == keys.Key_Minus:
            self._zoom(1 / _ZOOM, middle)
        elif keys.Key_1 <= key <= keys.Key_9:
            self.digit_pressed.emit(key - keys.Key_0)
        elif key == keys.Key_Home:
            self.show_all()
        elif key == keys.Key_L:
            self.lasso_wanted.emit(not self._lasso_tool)
        elif key == keys.Key_Escape:
            self._lasso = self._pressed = None
            self.cleared.emit()
            self.update()
        else:
            super().keyPressEvent(event)

    def _zoom(self, factor: float, at: tuple[float, float]) -> None:
        self._is_whole = False
        self._look(self.view.zoomed(factor, at))

    def _look(self, view: MapView) -> None:
        self._view = view
        self._redraw()

    def _redraw(self) -> None:
        self._picture = None
        self.update()

    def _point_at(self, point: int) -> None:
        if point != self._under:
            self._under = point
            self.pointed.emit(point)


def _distance(a: QPointF, b: QPointF) -> float:
    return float(np.hypot(a.x() - b.x(), a.y() - b.y()))
