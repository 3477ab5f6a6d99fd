"""What the colours of an atlas mean: a list of kinds, or a colour bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPixmap, QResizeEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.viewer.atlas.colouring import Category, Colouring
from napari_mcm.viewer.qt.color_strip import ColorStrip
from napari_mcm.viewer.qt.helpers import note

if TYPE_CHECKING:
    from napari.utils.colormaps import Colormap

_SWATCH_PX, _BESIDE_PX = 12, 30
"""Side of a colour, and the space that an entry needs beside it and its text."""
_ROWS = 5
"""Number of kinds in sight."""


class KindList(QListWidget):
    """Kinds of points with their colours and numbers; a click selects their points.

    Attributes
    ----------
    kind_chosen : Signal
        Emitted with the position of a kind that the user chose.
    """

    kind_chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._shown: Sequence[Category] = ()
        self.setAccessibleName("Kinds of points; choosing one selects its points")
        self.setIconSize(QSize(_SWATCH_PX, _SWATCH_PX))
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setUniformItemSizes(True)
        # Names wrap around to a second column where the dock is wide.
        self.setFlow(QListWidget.Flow.LeftToRight)
        self.setWrapping(True)
        self.setResizeMode(QListWidget.ResizeMode.Adjust)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.itemClicked.connect(self._choose)
        self.itemActivated.connect(self._choose)

    def show_kinds(self, kinds: Sequence[Category]) -> None:
        """Replace the kinds; the chosen one stays if they are the same."""
        if list(kinds) == list(self._shown):
            return
        same = [one.name for one in kinds] == [one.name for one in self._shown]
        current = self.currentRow() if same else -1
        self._shown = kinds
        self.clear()
        for kind in kinds:
            text = _text(kind)
            item = QListWidgetItem(_swatch(kind.colour), text)
            item.setToolTip(f"{text}\nClick or Enter selects its points")
            self.addItem(item)
        self._fit()
        if current >= 0:
            self.setCurrentRow(current)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Be as high as the kinds need in this width."""
        super().resizeEvent(event)
        self._fit()

    def changeEvent(self, event: QEvent | None) -> None:
        """Fit the names in another font, as that of the theme."""
        super().changeEvent(event)
        kinds = QEvent.Type.FontChange, QEvent.Type.StyleChange
        if event is not None and event.type() in kinds:
            self._fit()

    def _fit(self) -> None:
        metrics = self.fontMetrics()
        texts = [_text(kind) for kind in self._shown]
        width = max((metrics.horizontalAdvance(text) for text in texts), default=0)
        cell = QSize(width + _SWATCH_PX + _BESIDE_PX, metrics.height() + 6)
        if cell != self.gridSize():
            self.setGridSize(cell)
        columns = max((self.width() - 8) // cell.width(), 1)
        rows = min(max(-(-len(texts) // columns), 1), _ROWS)
        self.setFixedHeight(rows * cell.height() + 6)

    def _choose(self, item: QListWidgetItem) -> None:
        self.kind_chosen.emit(self.row(item))


class LegendPanel(QWidget):
    """The list of kinds, or the colour bar, and what is missing.

    Attributes
    ----------
    kinds : KindList
        The list.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kinds, self.strip, self.note = KindList(), ColorStrip(), note()
        self.low, self.high = QLabel(), QLabel()
        self._bar = QWidget()
        row = QHBoxLayout(self._bar)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.low)
        row.addWidget(self.strip, 1)
        row.addWidget(self.high)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        for part in (self.note, self._bar, self.kinds):
            column.addWidget(part)

    def show_colouring(
        self, colouring: Colouring | None, bar: Callable[[], NDArray[np.uint8]]
    ) -> None:
        """Show what colours mean.

        Parameters
        ----------
        colouring : Colouring or None
            The colours; None for none.
        bar : callable
            Returns the colours of values, RGB (C, 3).
        """
        text = "" if colouring is None else colouring.note
        self.note.setText(text)
        self.note.setVisible(bool(text))
        limits = None if colouring is None else colouring.limits
        has_values = limits is not None and not text
        self._bar.setVisible(has_values)
        if limits is not None and has_values:
            self.low.setText(f"{limits[0]:.2f}")
            self.high.setText(f"{limits[1]:.2f}")
            self.strip.show_map(_colormap_of(bar()))
        kinds = () if colouring is None else colouring.categories
        self.kinds.show_kinds(kinds)
        self.kinds.setVisible(bool(kinds))


def _text(kind: Category) -> str:
    return f"{kind.name} · {kind.count:,}"


def _swatch(colour: tuple[int, int, int]) -> QIcon:
    picture = QPixmap(_SWATCH_PX, _SWATCH_PX)
    picture.fill(QColor(*colour))
    return QIcon(picture)


def _colormap_of(colours: NDArray[np.uint8]) -> Colormap:
    from napari.utils.colormaps import Colormap

    alpha = np.ones((len(colours), 1))
    return Colormap(np.hstack([colours / 255, alpha]), name="atlas values")
