"""The grid of thumbnails in a column that scrolls."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QApplication, QWidget

from napari_mcm.viewer.layers.thumbnails import TopPatch
from napari_mcm.viewer.qt.dock import ScrollColumn
from napari_mcm.viewer.qt.summary_section import SummaryLine
from napari_mcm.viewer.qt.thumbnail_grid import ThumbnailGrid

MOST_RESIZES = 10
"""More than any size below takes; without an end, there are hundreds."""


class _Resizes(QObject):
    count = 0

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        self.count += event is not None and event.type() == QEvent.Type.Resize
        return False


def test_the_scroll_bar_around_the_grid_does_not_come_and_go(qtbot: Any) -> None:
    grid, line, above = ThumbnailGrid("top"), SummaryLine(), QWidget()
    line.show_text("a text that is longer than a line " * 3, "a tip")
    above.setMinimumHeight(60)
    column = ScrollColumn([line, above, grid])
    qtbot.addWidget(column)
    column.show()
    grid.show_patches([TopPatch(row, 0.5, None) for row in range(12)])
    for _ in range(10):
        QApplication.processEvents()
    resizes = _Resizes()
    grid.installEventFilter(resizes)
    for width in range(200, 420, 20):
        # Around the height from which on the column needs its bar.
        for height in range(200, 380, 4):
            resizes.count = 0
            column.resize(width, height)
            for _ in range(3):
                QApplication.processEvents()
            assert resizes.count <= MOST_RESIZES, (width, height)
            assert grid.minimumHeight() <= grid.maximumHeight()
