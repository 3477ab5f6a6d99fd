"""What stands in a list that is too narrow for it can be read all the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QHelpEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QComboBox, QToolTip

from napari_mcm.viewer.qt.helpers import narrow, set_enabled_with_reason

LONG = "an entry of a list that is longer by far than the list is wide"


@pytest.fixture
def combo(qtbot: QtBot) -> Iterator[QComboBox]:
    """A list in sight, at the right edge of the screen."""
    made = narrow(QComboBox())
    qtbot.addWidget(made)
    made.addItems(["short", LONG])
    made.setFixedWidth(120)
    screen = made.screen().availableGeometry()
    made.move(screen.right() - 130, screen.top() + 100)
    made.show()
    qtbot.waitUntil(made.isVisible)
    yield made
    made.hidePopup()


def tooltip(combo: QComboBox) -> str:
    """What is shown when the mouse rests."""
    place = QPoint(5, 5)
    rests = QHelpEvent(QHelpEvent.Type.ToolTip, place, combo.mapToGlobal(place))
    QApplication.sendEvent(combo, rests)
    return str(QToolTip.text())


def test_what_is_chosen_stands_in_the_tooltip(combo: QComboBox) -> None:
    combo.setToolTip("What it is for")
    assert tooltip(combo) == "What it is for\n\nshort"
    combo.setCurrentText(LONG)
    assert tooltip(combo) == f"What it is for\n\n{LONG}"
    set_enabled_with_reason(combo, "What it is for", "no slide is open")
    assert tooltip(combo).endswith(f"no slide is open\n\n{LONG}")


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_a_list_opens_as_wide_as_its_words_and_on_the_screen(
    combo: QComboBox, qtbot: QtBot, by: str
) -> None:
    if by == "mouse":
        QTest.mouseClick(combo, Qt.MouseButton.LeftButton)
    else:
        QTest.keyClick(combo, Qt.Key.Key_F4)
    view = combo.view()
    qtbot.waitUntil(view.isVisible)
    words = combo.fontMetrics().horizontalAdvance(LONG)
    assert view.viewport().width() >= words > combo.width()
    box = view.window().frameGeometry()
    assert box.right() <= combo.screen().geometry().right()
