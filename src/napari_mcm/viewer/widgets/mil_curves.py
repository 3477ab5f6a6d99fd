"""Curves of a training as it goes: a line for each fold, told by number and dashes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, QTimer
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPalette, QPen, QPolygonF
from qtpy.QtWidgets import QComboBox, QSizePolicy, QVBoxLayout, QWidget

from napari_mcm.viewer.mil_desk import MilDesk
from napari_mcm.viewer.mil_runs import Curves
from napari_mcm.viewer.widgets.parts import follow, narrow, note

NAMES = {
    "validation_auroc": "Validation AUROC",
    "validation_loss": "Validation loss",
    "loss": "Training loss",
}
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
_WAIT_MS = 100
_HEIGHT, _LEFT, _BOTTOM, _TOP = 170, 42, 20, 8


class Chart(QWidget):
    """Draws lines over epochs, with a number at the end of each."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
        policy = QSizePolicy.Policy
        self.setSizePolicy(policy.Expanding, policy.Fixed)

    def sizeHint(self) -> QSize:
        """Tell Qt how large the chart would like to be."""
        return QSize(240, _HEIGHT)

    def show_lines(
        self, lines: dict[str, tuple[Sequence[float], Sequence[float]]]
    ) -> None:
        """Draw lines: label to epochs, counted from 1, and values."""
        self._lines = lines
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw axes and lines in the colours of the theme."""
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
        _draw_axes(painter, area, (low, high, last), text)
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
            # A line of one epoch would not be seen without it.
            painter.setBrush(pen.color())
            painter.drawEllipse(QPointF(*points[-1]), 2, 2)
            at = _free(float(points[-1][1]), taken)
            painter.drawText(QPointF(float(points[-1][0]) + 5, at + 4), label)
        painter.end()


class CurvesBox(QWidget):
    """The chart, what it shows, and the last values as text.

    Parameters
    ----------
    desk : MilDesk
        Whose curves.
    """

    def __init__(self, desk: MilDesk) -> None:
        super().__init__()
        self._desk = desk
        self.choice = narrow(QComboBox())
        self.choice.setAccessibleName("Curves")
        self.choice.setToolTip("What the lines show, over the epochs")
        self.choice.activated.connect(lambda _: self.refresh())
        self.chart = Chart()
        self.text = note()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.choice, self.chart, self.text):
            column.addWidget(part)
        # Small cohorts go through a hundred epochs a second.
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(_WAIT_MS)
        self._soon.timeout.connect(self.refresh)
        follow(desk.curves_changed, self._changed)
        self.refresh()

    def _changed(self) -> None:
        if not self._soon.isActive():
            self._soon.start()

    def refresh(self) -> None:
        """Show the curves as they are now."""
        curves = self._desk.curves
        self.setVisible(bool(curves))
        self._offer([n for n in NAMES if any(n in s for s in curves.values())])
        name = self.choice.currentData()
        lines = lines_of(curves, name) if name else {}
        self.chart.show_lines(lines)
        text = describe(lines)
        self.text.setText(text)
        for part in (self.chart, self.chart.parentWidget()):
            if part is not None:
                part.setAccessibleDescription(text)
        self.chart.setToolTip(f"{self.choice.currentText()} of each fold, by epoch")

    def _offer(self, names: list[str]) -> None:
        if names == [self.choice.itemData(i) for i in range(self.choice.count())]:
            return
        self.choice.clear()
        for name in names:
            self.choice.addItem(NAMES[name], name)


def lines_of(
    curves: Curves, name: str
) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
    """Give the lines of a figure: a fold's number, with the seed if there are several."""
    several = len({seed for _, seed in curves}) > 1
    found: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
    for (fold, seed), series in sorted(curves.items()):
        values, steps = series.get(name, []), series.get("step", [])
        kept = [
            (step + 1, value)
            for step, value in zip(steps, values, strict=False)
            if math.isfinite(value) and math.isfinite(step)
        ]
        if kept:
            epochs, shown = zip(*kept, strict=True)
            found[f"{fold + 1}, seed {seed}" if several else f"{fold + 1}"] = (
                epochs,
                shown,
            )
    return found


def describe(lines: dict[str, tuple[Sequence[float], Sequence[float]]]) -> str:
    """Say where each line stands."""
    if not lines:
        return ""
    return "Now, by fold: " + " · ".join(
        f"{label}: {values[-1]:.3f}" for label, (_, values) in lines.items()
    )


def _extent(
    lines: dict[str, tuple[Sequence[float], Sequence[float]]],
) -> tuple[float, float, float]:
    """Give the least and greatest value, and the last epoch."""
    values = [value for _, line in lines.values() for value in line] or [0.0, 1.0]
    last = max((epochs[-1] for epochs, _ in lines.values()), default=1.0)
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    return low, high, max(last, 1.0)


def _draw_axes(
    painter: QPainter, area: QRectF, extent: tuple[float, float, float], text: QColor
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
    painter.drawText(below, Qt.AlignmentFlag.AlignCenter, "epoch")
    painter.drawText(below, right, f"{last:.0f}")


def _tick(value: float, span: float) -> str:
    """Write a value as short as its neighbours on the axis allow."""
    return f"{value:.2f}" if 0.05 < span < 1000 else f"{value:.2g}"


def _decimated(x: np.ndarray, y: np.ndarray, columns: int) -> np.ndarray:
    """Keep at most one point a column of pixels, and the last: long lines are slow."""
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
