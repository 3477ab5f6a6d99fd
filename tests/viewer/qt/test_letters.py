"""Alt and a letter does one thing: what is underlined, on the page that is seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QAbstractButton,
    QApplication,
    QGroupBox,
    QLabel,
    QTabWidget,
    QWidget,
)

from napari_mcm.viewer.qt.dock import DockedWidget
from napari_mcm.viewer.training.start_panel import RESUME, StartPanel
from tests.viewer.conftest import finish, unfold

WIDGETS = (
    "Slide",
    "Features",
    "Similarity",
    "Atlas",
    "Sections",
    "Project",
    "Results table",
    "Fine-tune",
    "MIL",
    "MAE & cells",
)


def letter(text: str) -> str:
    """The letter that is underlined: ``Alt+S``."""
    return str(QKeySequence.mnemonic(text).toString())


def menu_letters(viewer: Any) -> set[str]:
    """Those that napari's menu bar takes."""
    actions = viewer.window._qt_window.menuBar().actions()
    return {letter(action.text()) for action in actions} - {""}


def texts(part: QWidget) -> list[str]:
    """What may be underlined in a part, at one time or another."""
    if isinstance(part, StartPanel):
        return [RESUME, part.start.text()]
    if isinstance(part.parent(), StartPanel) and part is part.parent().start:
        return []
    if isinstance(part, QAbstractButton):
        return [part.text()]
    if isinstance(part, QLabel) and part.buddy() is not None:
        return [part.text()]
    return [part.title()] if isinstance(part, QGroupBox) else []


def pages(docked: DockedWidget) -> Iterator[tuple[str, list[QWidget]]]:
    """The parts of each page, with those that are always in sight."""
    always = [docked.job, *docked.job.findChildren(QWidget)]
    tabs = docked.findChild(QTabWidget)
    if tabs is None:
        yield "", docked.findChildren(QWidget)
        return
    for number in range(tabs.count()):
        tabs.setCurrentIndex(number)
        QApplication.processEvents()
        unfold(docked)
        yield tabs.tabText(number), tabs.widget(number).findChildren(QWidget) + always


@pytest.mark.parametrize("name", WIDGETS)
def test_no_letter_is_the_menus_or_underlined_twice(viewer: Any, name: str) -> None:
    menus = menu_letters(viewer)
    assert {"Alt+F", "Alt+V", "Alt+H"} <= menus
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", name)
    unfold(docked)
    for page, parts in pages(docked):
        where = defaultdict(list)
        for part in parts:
            for key in {letter(text) for text in texts(part)} - {""}:
                where[key].append((type(part).__name__, texts(part)))
        taken = {key: found for key, found in where.items() if key in menus}
        twice = {key: found for key, found in where.items() if len(found) > 1}
        assert not taken and not twice, page
        # That the page was looked at at all: Cancel has one, and some other button.
        assert len(where) > 1, page
    finish(docked)


def test_the_letter_in_a_tooltip_is_the_one_that_is_underlined(viewer: Any) -> None:
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")
    told = 0
    for button in docked.findChildren(QAbstractButton):
        _, found, rest = button.toolTip().partition("(Alt+")
        if found:
            told += 1
            assert letter(button.text()) == f"Alt+{rest[0]}", button.text()
    assert told >= 6
    finish(docked)
