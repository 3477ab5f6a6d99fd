"""Draw the metrics of a training as lines, distinguished by label and dashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPalette, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_mcm.viewer.training.metrics import Series

Lines = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""Label of a line to its steps, counted from 1, and its values."""

# Okabe and Ito's colours that stand out from a dark and from a light background.
_ON_DARK = ("#56B4E9", "#E69F00", "#2BCB9C", "#E79CC4", "#F0E442")

_ON_LIGHT = ("#0072B2", "#B94700", "#00795B", "#A8437E", "#5A5A00")

_STYLES = (
    Qt.PenStyle.SolidLine,
    Qt.PenStyle.DashLine,
    Qt.PenStyle.DotLine,
    Qt.PenStyle.DashDotLine,
    Qt.PenStyle.DashDotDotLine,
)

HEIGHT = 170

_LEFT, _BOTTOM, _TOP = 42, 20, 8


class Chart(QWidget):
    """Draw lines over epochs or steps, with a label at the end of each.

    Parameters
    ----------
    unit : str
        Unit of the horizontal axis.
    height : int
        Height in pixels.
    """

    def __init__(self, unit: str = "epoch", height: int = HEIGHT) -> None:
        super().__init__()
        self._unit, self._height = unit, height
        self._lines: Lines = {}
        policy = QSizePolicy.Policy
        self.setSizePolicy(policy.Expanding, policy.Fixed)

    def sizeHint(self) -> QSize:
        """Return the preferred size."""
        return QSize(240, self._height)

    def show_lines(self, lines: Lines) -> None:
        """Show these lines in place of the earlier ones."""
        self._lines = lines
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw axes and lines in the colors of the theme."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = painter.font()
        font.setPixelSize(11)
        painter.setFont(font)
        text = self.palette().color(QPalette.ColorRole.WindowText)
        margin = 12 + painter.fontMetrics().horizontalAdvance(
            max(self._lines, key=len, default="")
        )
        area = QRectF(
            _LEFT, _TOP, self.width() - _LEFT - margin, self.height() - _TOP - _BOTTOM
        )
        low, high, last = _extent(self._lines)
        _draw_axes(painter, area, (low, high, last), text, self._unit)
        colours = _ON_DARK if text.lightness() > 128 else _ON_LIGHT
        taken: list[float] = []
        for number, (label, (epochs, values)) in enumerate(self._lines.items()):
            pen = QPen(QColor(colours[number % len(colours)]), 1.6)
            pen.setStyle(_STYLES[number % len(_STYLES)])
            painter.setPen(pen)
            x = area.left() + np.asarray(epochs) / last * area.width()
            y = (
                area.bottom()
                - (np.asarray(values) - low) / (high - low) * area.height()
            )
            points = _decimated(x, y, int(area.width()))
            painter.drawPolyline(QPolygonF([QPointF(*point) for point in points]))
            # A line of one epoch would be invisible without it.
            painter.setBrush(pen.color())
            painter.drawEllipse(QPointF(*points[-1]), 2, 2)
            at = _free(float(points[-1][1]), taken)
            painter.drawText(QPointF(float(points[-1][0]) + 5, at + 4), label)
        painter.end()


def describe(lines: Lines, what: str) -> str:
    """Return the last value of each line: ``Now, by fold: 1: 0.123 · 2: 0.456``."""
    if not lines:
        return ""
    return f"Now, by {what}: " + " · ".join(
        f"{label}: {values[-1]:.3f}" for label, (_, values) in lines.items()
    )


def _extent(lines: Lines) -> tuple[float, float, float]:
    """Return the smallest and the greatest value, and the last epoch."""
    values = [value for _, line in lines.values() for value in line] or [0.0, 1.0]
    last = max((epochs[-1] for epochs, _ in lines.values()), default=1.0)
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    return low, high, max(last, 1.0)


def _draw_axes(
    painter: QPainter,
    area: QRectF,
    extent: tuple[float, float, float],
    text: QColor,
    unit: str,
) -> None:
    low, high, last = extent
    faint = QColor(text)
    faint.setAlphaF(0.25)
    right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
    for part in (0.0, 0.5, 1.0):
        y = area.bottom() - part * area.height()
        painter.setPen(faint)
        painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
        painter.setPen(text)
        box = QRectF(0, y - 8, _LEFT - 5, 16)
        painter.drawText(box, right, _tick(low + part * (high - low), high - low))
    below = QRectF(area.left(), area.bottom() + 3, area.width(), 16)
    painter.drawText(below, Qt.AlignmentFlag.AlignCenter, unit)
    painter.drawText(below, right, f"{last:.0f}")


def _tick(value: float, span: float) -> str:
    """Format a value with the digits that the axis needs."""
    return f"{value:.2f}" if 0.05 < span < 1000 else f"{value:.2g}"


def _decimated(x: np.ndarray, y: np.ndarray, columns: int) -> np.ndarray:
    """Keep one point per pixel column and the last one: long lines are slow to draw."""
    chosen = np.arange(len(x))
    if len(x) > max(columns, 2):
        chosen = np.unique(np.linspace(0, len(x) - 1, max(columns, 2)).astype(int))
    return np.stack((x[chosen], y[chosen]), axis=1)


def _free(y: float, taken: list[float]) -> float:
    """Move a label down until it covers no other."""
    while any(abs(y - other) < 11 for other in taken):
        y += 11
    taken.append(y)
    return y


def lines_of(
    series: Series, figures: Mapping[str, str]
) -> dict[str, tuple[list[float], list[float]]]:
    """Return the lines of a chart, at the steps where they were measured.

    Parameters
    ----------
    series : Series
        Metrics of each step.
    figures : mapping
        Metrics by name, and the labels of their lines.
    """
    found = {}
    steps = np.asarray(series.get("step", ())) + 1
    for name, label in figures.items():
        values = np.asarray(series.get(name, ()))[: len(steps)]
        measured = np.flatnonzero(np.isfinite(values))
        if len(measured):
            found[label] = steps[measured].tolist(), values[measured].tolist()
    return found
