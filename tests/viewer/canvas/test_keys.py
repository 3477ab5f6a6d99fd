"""Keys act wherever the pointer is over the canvas, and text fields keep theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QLabel,
    QLineEdit,
    QPushButton,
    QSpinBox,
)

from napari_mcm.viewer.canvas import keys
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.canvas.conftest import canvas, point_at, tools, turn_wheel
from tests.viewer.conftest import wait_until


@pytest.fixture
def mapped(shown: SimilarityWidget) -> SimilarityWidget:
    """The widget with a query."""
    grid = shown.session.features("first").index.features.grid
    context_of(shown.session).queries.point(*grid.centres[5])
    wait_until(lambda: shown.session.layers.map_of(shown.session.slide, "first"))
    return shown


def is_map_shown(widget: SimilarityWidget) -> bool:
    return widget.session.layers.map_of(widget.session.slide, "first").visible


def in_dock(widget: SimilarityWidget, field: Any) -> Any:
    """Show a field in the dock."""
    widget.layout().addWidget(field)
    field.show()
    return field


def focus(field: Any) -> None:
    field.window().activateWindow()
    field.setFocus()
    wait_until(field.hasFocus)


def test_a_key_acts_after_a_click_in_the_dock(mapped: SimilarityWidget) -> None:
    button = in_dock(mapped, QPushButton("anything"))
    focus(button)
    point_at(canvas(mapped))
    assert is_map_shown(mapped)
    QTest.keyClick(button, Qt.Key.Key_M)
    assert not is_map_shown(mapped)
    # From now on the canvas has the keys itself.
    assert canvas(mapped).hasFocus()
    QTest.keyClick(canvas(mapped), Qt.Key.Key_M)
    assert is_map_shown(mapped)


def test_a_list_has_the_key_unless_the_pointer_is_over_the_canvas(
    mapped: SimilarityWidget,
) -> None:
    choice = in_dock(mapped, QComboBox())
    choice.addItems(["apple", "melon", "mango"])
    focus(choice)
    point_at(choice)
    QTest.keyClick(choice, Qt.Key.Key_M)
    assert choice.currentText() == "melon" and is_map_shown(mapped)
    point_at(canvas(mapped))
    QTest.keyClick(choice, Qt.Key.Key_M)
    assert choice.currentText() == "melon" and not is_map_shown(mapped)


def test_escape_in_a_dock_leaves_the_query(mapped: SimilarityWidget) -> None:
    context, choice = context_of(mapped.session), in_dock(mapped, QComboBox())
    choice.addItems(["apple", "melon"])
    focus(choice)
    point_at(choice)
    # napari gets the key, as the field does not use it.
    QTest.keyClick(choice, Qt.Key.Key_Escape)
    assert context.query is not None
    point_at(canvas(mapped))
    QTest.keyClick(choice, Qt.Key.Key_Escape)
    assert context.query is None


def test_text_that_is_typed_keeps_its_keys(mapped: SimilarityWidget) -> None:
    line = in_dock(mapped, QLineEdit())
    focus(line)
    point_at(canvas(mapped))
    for text in ("t", "m", ".", ",", "?"):
        QTest.keyClicks(line, text)
    QTest.keyClick(line, Qt.Key.Key_Backspace)
    assert line.text() == "tm.," and line.hasFocus()
    assert is_map_shown(mapped) and context_of(mapped.session).query is not None


def test_a_number_keeps_the_keys_that_numbers_are_typed_with(
    mapped: SimilarityWidget,
) -> None:
    number = in_dock(mapped, QSpinBox())
    number.setRange(0, 1000)
    focus(number)
    number.selectAll()
    point_at(canvas(mapped))
    QTest.keyClicks(number, "12")
    QTest.keyClick(number, Qt.Key.Key_M)
    assert number.hasFocus() and number.value() == 12 and is_map_shown(mapped)
    QTest.keyClick(number, Qt.Key.Key_Return)
    number.setValue(13)
    QTest.keyClick(number, Qt.Key.Key_M)
    assert not is_map_shown(mapped)


def test_alt_and_the_wheel_move_the_threshold(mapped: SimilarityWidget) -> None:
    areas, native = context_of(mapped.session).areas, canvas(mapped)
    camera, alt = mapped.session.viewer.scene.camera, Qt.KeyboardModifier.AltModifier
    before, zoom = areas.threshold, camera.zoom
    turn_wheel(native, -120, alt)
    lower = areas.threshold
    QTest.keyClick(native, ".")
    assert lower < before and areas.threshold == pytest.approx(before)
    for _ in range(2):
        # A wheel that turns in half notches.
        turn_wheel(native, -60, alt)
    assert areas.threshold == pytest.approx(lower) and camera.zoom == zoom


def test_the_list_of_keys_is_shown_and_hidden(mapped: SimilarityWidget) -> None:
    native, shown = canvas(mapped), tools(mapped).list
    QTest.keyClicks(native, "?")
    assert shown.isVisible() and native.rect().contains(shown.geometry())
    QTest.keyClick(native, Qt.Key.Key_Escape)
    # Escape closed the list, and did not remove the examples.
    assert not shown.isVisible() and context_of(mapped.session).query is not None
    QTest.keyClicks(native, "?")
    QTest.keyClicks(native, "?")
    assert not shown.isVisible()
    QTest.keyClick(native, Qt.Key.Key_Escape)
    assert context_of(mapped.session).query is None


def test_the_list_of_keys_has_a_title_and_no_needless_scroll_bars(
    mapped: SimilarityWidget,
) -> None:
    native, shown = canvas(mapped), tools(mapped).list
    native.window().resize(1400, 1000)
    for _ in range(5):
        QApplication.processEvents()
    QTest.keyClicks(native, "?")
    QApplication.processEvents()
    inner, port = shown.widget(), shown.viewport()
    assert native.rect().contains(shown.geometry())
    # All is seen, and nothing is left to scroll.
    assert inner.height() <= port.height() and inner.width() <= port.width()
    assert inner.sizeHint().height() <= port.height()
    texts = " ".join(label.text() for label in inner.findChildren(QLabel))
    assert "<b>Keys</b>" in texts and "Esc closes" in texts
    assert not shown.verticalScrollBar().isVisible()
    assert not shown.horizontalScrollBar().isVisible()


@pytest.mark.parametrize("width", [1400, 700, 260])
def test_the_list_has_all_keys_and_fits_across_the_canvas(
    mapped: SimilarityWidget, width: int
) -> None:
    native, shown = canvas(mapped), tools(mapped).list
    # Of the canvas alone: docks hold the window open.
    native.setFixedWidth(width)
    for _ in range(5):
        QApplication.processEvents()
    shown.switch()
    QApplication.processEvents()
    assert native.width() == width and native.rect().contains(shown.geometry())
    inner = shown.widget()
    labels = inner.findChildren(QLabel)
    texts = " ".join(label.text() for label in labels)
    for one in (key for group in keys.GROUPS.values() for key in group):
        assert f"{one.shown}&nbsp;" in texts and one.does in texts
    # Each table has the room that its text needs.
    assert inner.width() <= shown.viewport().width()
    for label in labels:
        needed = label.heightForWidth(label.width())
        assert label.height() >= max(needed, label.minimumSizeHint().height())
        assert label.minimumSizeHint().width() <= label.width()


def test_the_tooltip_of_undo_names_the_keys_of_the_list(
    mapped: SimilarityWidget,
) -> None:
    of = {one.action: one.shown for one in keys.QUERY}
    tip = mapped.query.back.toolTip()
    assert (of["undo"], of["back"]) == ("Ctrl+Z", "Backspace")
    assert "(keys Ctrl+Z or Backspace on the slide)" in tip


def test_undo_by_key(mapped: SimilarityWidget) -> None:
    queries = context_of(mapped.session).queries
    grid = mapped.session.features("first").index.features.grid
    one = np.array(queries.maps()["first"].values)
    queries.point(*grid.centres[20], "like")
    assert not np.allclose(queries.maps()["first"].values, one)
    QTest.keyClick(canvas(mapped), Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    np.testing.assert_allclose(queries.maps()["first"].values, one)


def test_each_key_of_the_table_is_recognised() -> None:
    none = Qt.KeyboardModifier.NoModifier
    shift, ctrl = (
        Qt.KeyboardModifier.ShiftModifier,
        Qt.KeyboardModifier.ControlModifier,
    )

    def is_one(key: Any, modifiers: Any, text: str = "") -> bool:
        event = QKeyEvent(QKeyEvent.Type.KeyPress, key, modifiers, text)
        return keys.is_canvas_key(event)

    assert is_one(Qt.Key.Key_G, none, "g") and is_one(Qt.Key.Key_G, shift, "G")
    assert is_one(Qt.Key.Key_Return, ctrl) and is_one(Qt.Key.Key_Enter, none)
    assert is_one(Qt.Key.Key_Z, ctrl) and not is_one(Qt.Key.Key_Z, none, "z")
    # German and American keyboards.
    assert is_one(Qt.Key.Key_Question, shift, "?") and is_one(
        Qt.Key.Key_Comma, none, ","
    )
    assert not is_one(Qt.Key.Key_T, ctrl) and not is_one(Qt.Key.Key_K, none, "k")


def test_no_key_has_two_meanings() -> None:
    bound = [one.key for group in keys.GROUPS.values() for one in group]
    assert len(set(bound)) == len(bound)


def test_the_documentation_lists_the_same_keys() -> None:
    page = Path(__file__).parents[3] / "docs" / "viewer.md"
    assert keys.as_markdown() in page.read_text(encoding="utf-8")


def test_the_list_on_the_canvas_shows_all_keys(shown: SimilarityWidget) -> None:
    shown_list = tools(shown).list
    assert shown_list is not None
    texts = " ".join(label.text() for label in shown_list.findChildren(QLabel))
    for group in keys.GROUPS.values():
        for one in group:
            assert f">{one.shown}&nbsp;<" in texts, one
