"""A title that unfolds what is below it, with a triangle in the colour of the text."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPalette, QPixmap, QPolygonF
from superqt import QCollapsible

_SIDE = 16
_RIGHT = (5.5, 3.5), (11.5, 8.0), (5.5, 12.5)
_DOWN = (3.5, 5.5), (12.5, 5.5), (8.0, 11.5)


class Fold(QCollapsible):
    """A fold whose triangle points right while it is closed, and down while it is open.

    Parameters
    ----------
    title : str
        Of what is folded.
    """

    def __init__(self, title: str) -> None:
        super().__init__(title)
        self._draw()

    def changeEvent(self, event: QEvent | None) -> None:
        """Follow the theme."""
        super().changeEvent(event)
        kinds = QEvent.Type.PaletteChange, QEvent.Type.StyleChange
        if event is not None and event.type() in kinds:
            self._draw()

    def _draw(self) -> None:
        colour = self.palette().color(QPalette.ColorRole.WindowText)
        self.setCollapsedIcon(_triangle(_RIGHT, colour, self.devicePixelRatioF()))
        self.setExpandedIcon(_triangle(_DOWN, colour, self.devicePixelRatioF()))


def _triangle(
    corners: tuple[tuple[float, float], ...], colour: QColor, ratio: float
) -> QIcon:
    pixmap = QPixmap(round(_SIDE * ratio), round(_SIDE * ratio))
    pixmap.setDevicePixelRatio(ratio)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(colour)
    painter.drawPolygon(QPolygonF([QPointF(x, y) for x, y in corners]))
    painter.end()
    return QIcon(pixmap)
