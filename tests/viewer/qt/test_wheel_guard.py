"""The wheel scrolls docks, and changes no field that has not the focus."""

from __future__ import annotations

from typing import Any

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import (
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QScrollBar,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.viewer.qt.dock import ScrollColumn
from napari_mcm.viewer.qt.wheel_guard import WheelGuard
from tests.viewer.canvas.conftest import turn_wheel
from tests.viewer.conftest import finish, unfold, wait_until

DOCKS = (
    "Slide",
    "Features",
    "Similarity",
    "Atlas",
    "Sections",
    "Fine-tune",
    "MIL",
    "MAE & cells",
)


def fields(widget: Any) -> list[Any]:
    kinds = (QAbstractSpinBox, QComboBox, QAbstractSlider)
    found = [field for kind in kinds for field in widget.findChildren(kind)]
    return [f for f in found if f.isVisible() and not isinstance(f, QScrollBar)]


def state(field: Any) -> Any:
    return (
        field.currentIndex()
        if isinstance(field, QComboBox)
        else field.text()
        if (isinstance(field, QAbstractSpinBox))
        else field.value()
    )


def unfold_all(docked: Any) -> None:
    """Show all fields of a dock."""
    column = docked.findChild(ScrollColumn)
    wait_until(lambda: not column._waiting)
    unfold(docked)
    wait_until(lambda: fields(docked))


@pytest.mark.parametrize("name", DOCKS)
def test_the_wheel_changes_no_field_without_focus(
    make_napari_viewer: Any, plugin: Any, slide_path: Any, name: str
) -> None:
    viewer = make_napari_viewer(show=True)
    viewer.open(slide_path, plugin="napari-mcm")
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", name)
    unfold_all(docked)
    viewer.window._qt_window.setFocus()
    found = fields(docked)
    assert found
    for field in found:
        for angle in (120, -240):
            before = state(field)
            turn_wheel(field, angle)
            assert state(field) == before and not field.hasFocus(), field
    finish(docked)


def test_the_wheel_over_a_field_scrolls_the_dock(qtbot: QtBot) -> None:
    dock = QWidget()
    qtbot.addWidget(dock)
    guard = WheelGuard(dock)
    numbers = [QSpinBox() for _ in range(40)]
    column = ScrollColumn(numbers)
    QVBoxLayout(dock).addWidget(column)
    dock.resize(200, 300)
    dock.show()
    bar = column.verticalScrollBar()
    wait_until(lambda: not column._waiting and bar.maximum() > 0)
    numbers[2].setValue(7)
    turn_wheel(numbers[2], -120)
    assert bar.value() > 0 and numbers[2].value() == 7
    # Made after the guard, and after the window was shown.
    late = QSpinBox()
    numbers[2].parentWidget().layout().insertWidget(0, late)
    wait_until(late.isVisible)
    late.setValue(7)
    turn_wheel(late, -120)
    assert late.value() == 7 and guard.parent() is dock


def test_a_field_with_focus_is_changed(
    make_napari_viewer: Any, plugin: Any, slide_path: Any
) -> None:
    viewer = make_napari_viewer(show=True)
    viewer.open(slide_path, plugin="napari-mcm")
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")
    unfold_all(docked)
    docked.window().activateWindow()
    number = docked.options.patch_size
    number = getattr(number, "native", number)
    number.setFocus()
    wait_until(number.hasFocus)
    before = state(number)
    turn_wheel(number, 120)
    QApplication.processEvents()
    assert state(number) != before
    finish(docked)
