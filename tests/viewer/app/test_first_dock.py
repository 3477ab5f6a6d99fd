"""A slide that opens brings the dock *Similarity*, once, without taking the focus."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from napari.settings import get_plugin_settings
from npe2 import PluginManager
from qtpy.QtWidgets import QApplication, QDockWidget, QLineEdit

from napari_mcm.viewer.app import first_dock
from napari_mcm.viewer.reader import read_slide
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import finish, wait_until, write_slide


@pytest.fixture
def shown(make_napari_viewer: Callable[..., Any], plugin: PluginManager) -> Any:
    """A viewer whose window is shown."""
    return make_napari_viewer(show=True)


def docks(viewer: Any) -> list[SimilarityWidget]:
    """The docks *Similarity* of a viewer."""
    found = viewer.window._qt_window.findChildren(QDockWidget)
    inner = [dock.widget() for dock in found]
    return [one for one in inner if isinstance(one, SimilarityWidget)]


def idle() -> None:
    """Let everything happen that was begun."""
    until = time.monotonic() + 0.3
    wait_until(lambda: time.monotonic() > until)
    for worker in first_dock._workers:
        worker.wait()
    until = time.monotonic() + 0.3
    wait_until(lambda: time.monotonic() > until)


def test_the_first_slide_brings_the_dock_and_the_focus_stays(
    shown: Any, slide_path: Path
) -> None:
    field = QLineEdit()
    shown.window.add_dock_widget(field, name="other")
    shown.window._qt_window.activateWindow()
    field.setFocus()
    QApplication.processEvents()
    focused = QApplication.focusWidget()
    shown.open(slide_path, plugin="napari-mcm")
    assert docks(shown) == []
    wait_until(lambda: docks(shown))
    (widget,) = docks(shown)
    wait_until(widget.isVisible)
    assert QApplication.focusWidget() is focused
    assert widget.session.slide is shown.layers[0]
    finish(widget)


def test_it_is_opened_once(shown: Any, slide_path: Path) -> None:
    shown.open(slide_path, plugin="napari-mcm")
    wait_until(lambda: docks(shown))
    finish(docks(shown)[0])
    dock = shown.window._wrapped_dock_widgets["Similarity (napari-mcm)"]
    dock.destroyOnClose()
    other = write_slide(slide_path.with_name("other.tif"), mpp=0.25)
    shown.open(other, plugin="napari-mcm")
    idle()
    assert docks(shown) == []


def test_not_where_another_dock_is_used_or_it_is_not_wanted(
    shown: Any, make_napari_viewer: Callable[..., Any], slide_path: Path
) -> None:
    _, features = shown.window.add_plugin_dock_widget("napari-mcm", "Features")
    wait_until(features.isVisible)
    shown.open(slide_path, plugin="napari-mcm")
    idle()
    assert docks(shown) == []
    finish(features)
    get_plugin_settings("napari-mcm").slides.open_similarity = False
    try:
        second = make_napari_viewer(show=True)
        second.open(slide_path, plugin="napari-mcm")
        idle()
        assert docks(second) == []
    finally:
        get_plugin_settings("napari-mcm").slides.open_similarity = True


def test_with_the_dock_slide_it_comes_as_well(shown: Any, slide_path: Path) -> None:
    _, slide = shown.window.add_plugin_dock_widget("napari-mcm", "Slide")
    wait_until(slide.isVisible)
    shown.open(slide_path, plugin="napari-mcm")
    wait_until(lambda: docks(shown))
    finish(docks(shown)[0])


def test_not_for_a_slide_that_is_read_and_not_shown(
    shown: Any, slide_path: Path
) -> None:
    read_slide(slide_path)
    idle()
    assert docks(shown) == []


def test_not_in_a_window_that_is_hidden(viewer: Any, slide_path: Path) -> None:
    viewer.open(slide_path, plugin="napari-mcm")
    idle()
    assert docks(viewer) == []
