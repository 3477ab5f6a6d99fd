"""The grid of thumbnails in a column that scrolls."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtCore import QEvent, QObject, QPoint
from qtpy.QtGui import QHelpEvent
from qtpy.QtWidgets import QApplication, QToolTip, QWidget

from napari_mcm.viewer.layers.thumbnails import TopPatch
from napari_mcm.viewer.qt.dock import ScrollColumn
from napari_mcm.viewer.qt.summary_section import SummaryLine
from napari_mcm.viewer.qt.thumbnail_grid import ThumbnailGrid
from tests.viewer.conftest import wait_until

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


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((0.91, 0.85, 0.85), ["0.91", "0.85", "0.85"]),
        ((0.9991, 0.9972, 0.9968), ["0.999", "0.997", "0.997"]),
        ((1.0, 1.0), ["1.00", "1.00"]),
    ],
)
def test_values_have_the_decimals_that_tell_them_apart(
    qtbot: Any, values: tuple[float, ...], texts: list[str]
) -> None:
    grid = ThumbnailGrid("top")
    qtbot.addWidget(grid)
    grid.show_patches([TopPatch(row, one, None) for row, one in enumerate(values)])
    assert [grid.item(row).text() for row in range(len(values))] == texts


def test_a_tooltip_does_not_cover_a_thumbnail(qtbot: Any) -> None:
    grid = ThumbnailGrid("top")
    qtbot.addWidget(grid)
    grid.setToolTip("all patches")
    grid.resize(300, 250)
    grid.show_patches([TopPatch(row, 0.5, None) for row in range(6)])
    grid.show()
    QApplication.processEvents()
    cell = grid.cell_of(0)
    middle, value = cell.center(), QPoint(cell.center().x(), cell.bottom() - 3)
    for at, shown in ((value, True), (middle, False), (value, True)):
        viewport = grid.viewport()
        event = QHelpEvent(QEvent.Type.ToolTip, at, viewport.mapToGlobal(at))
        QApplication.sendEvent(viewport, event)
        # Qt hides one after a moment.
        wait_until(lambda shown=shown: ("patch 0" in QToolTip.text()) == shown)
    QToolTip.hideText()
