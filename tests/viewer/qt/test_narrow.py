"""Nothing is cut off in a dock of 320 px, in either theme."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractButton, QApplication, QTabWidget

from tests.viewer.conftest import finish, unfold, wait_until
from tests.viewer.qt.test_letters import WIDGETS
from tests.viewer.similarity.dock_geometry import cut_off

WIDTH = 320


@pytest.mark.parametrize("name", WIDGETS)
def test_nothing_is_cut_off_at_320_px(viewer: Any, name: str) -> None:
    window = viewer.window._qt_window
    window.resize(1280, 800)
    dock, docked = viewer.window.add_plugin_dock_widget("napari-mcm", name)
    window.show()
    unfold(docked)
    window.resizeDocks([dock], [WIDTH], Qt.Orientation.Horizontal)
    tabs = docked.findChild(QTabWidget)
    found = {}
    for theme in ("dark", "light"):
        viewer.theme = theme
        for number in range(tabs.count() if tabs is not None else 1):
            if tabs is not None:
                tabs.setCurrentIndex(number)
            unfold(docked)
            window.resizeDocks([dock], [WIDTH], Qt.Orientation.Horizontal)
            for _ in range(20):
                QApplication.processEvents()
            # The dock needs no more than its width, whatever is unfolded.
            wait_until(lambda: docked.width() <= WIDTH + 2, 10)
            assert docked.findChildren(QAbstractButton)
            found[theme, number] = cut_off(docked)
    assert not any(found.values()), found
    finish(docked)
