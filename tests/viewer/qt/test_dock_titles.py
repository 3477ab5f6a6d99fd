"""What a dock is called in its tab and its title bar, and what it scrolls to."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtWidgets import QApplication, QLabel, QVBoxLayout, QWidget

from napari_mcm.viewer.project.results_widget import ResultsWidget
from napari_mcm.viewer.qt.dock import ScrollColumn
from tests.viewer.conftest import wait_until


@pytest.mark.parametrize(
    "plugin", ["napari-mcm", "Masked context modelling for slides"]
)
def test_titles_leave_the_plugin_out(viewer: Any, plugin: str) -> None:
    dock = viewer.window.add_dock_widget(
        ResultsWidget(viewer), name=f"Results table ({plugin})"
    )
    wait_until(lambda: dock.titleBarWidget().title.text() == "Results table")
    assert dock.windowTitle() == "Results table"
    dock.setFloating(True)
    dock.show()
    wait_until(lambda: dock.titleBarWidget().title.text() == "Results table")


def test_what_is_opened_is_scrolled_to(qtbot: Any) -> None:
    above, section = QWidget(), QWidget()
    above.setMinimumHeight(180)
    content = QLabel("content")
    content.setMinimumHeight(100)
    content.hide()
    layout = QVBoxLayout(section)
    layout.addWidget(QLabel("a line"))
    layout.addWidget(content)
    column = ScrollColumn([above, section])
    qtbot.addWidget(column)
    column.resize(200, 220)
    column.show()
    for _ in range(10):
        QApplication.processEvents()
    assert column.verticalScrollBar().value() == 0

    def bottom() -> int:
        at = section.mapTo(column.viewport(), section.rect().bottomLeft())
        return at.y() - column.viewport().height()

    content.show()
    column.reveal(section)
    wait_until(lambda: -2 <= bottom() <= 2)
