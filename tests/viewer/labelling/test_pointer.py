"""Keys act on what is under the pointer at the press, in the view of now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QCursor
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from napari_mcm.viewer.canvas.tools import CanvasTools
from napari_mcm.viewer.layers.pointer import NOWHERE
from napari_mcm.viewer.similarity.context import context_of
from tests.viewer.canvas.conftest import point_at
from tests.viewer.conftest import finish, wait_until, write_slide
from tests.viewer.labelling.conftest import Labeller, two_kinds
from tests.viewer.similarity.test_cursor_value import in_status_bar


@pytest.fixture
def user(
    make_napari_viewer: Callable[..., Any], plugin: Any, slide_path: Path
) -> Iterator[Labeller]:
    """A user in a window that is on the screen, with both docks."""
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1400, 900)
    viewer.open(slide_path, plugin="napari-mcm")
    viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", "Classes")
    made = Labeller(docked)
    made.context.classifier.use_radius(0)
    made.session.set_features(made.session.slide, "first", two_kinds(slide_path))
    made.session.labels.new_class("left")
    made.session.labels.new_class("right")
    made.settle()
    made.canvas.window().activateWindow()
    wait_until(lambda: made.canvas.width() > 300 and made.canvas.isVisible())
    made.canvas.setFocus()
    yield made
    finish(docked)
    made.context.classifier.wait()


def view(user: Labeller, centre: tuple[float, float], zoom: float) -> None:
    """Look at a place (y, x) in the world, in µm."""
    camera = user.session.viewer.scene.camera
    camera.center, camera.zoom = centre, zoom
    QApplication.processEvents()


def under(user: Labeller, pixel: QPoint) -> int:
    """Return the patch that is seen at a pixel of the canvas."""
    camera, native = user.session.viewer.scene.camera, user.canvas
    at = np.array([pixel.y(), pixel.x()])
    middle = np.array([native.height(), native.width()]) / 2
    y, x = (np.asarray(camera.center[-2:]) + (at - middle) / camera.zoom) / 0.5
    row = user.grid.index_at(x + 0.5, y + 0.5)
    assert row is not None
    return row


def labelled(user: Labeller) -> list[tuple[int, int]]:
    return [(one.x, one.y) for one in user.labels.labels]


def corner(user: Labeller, row: int) -> tuple[int, int]:
    x, y = user.grid.xy[row].tolist()
    return x, y


def test_a_digit_means_the_view_of_now(user: Labeller) -> None:
    view(user, (250, 300), 6)
    at = user.canvas.rect().center() + QPoint(100, 60)
    point_at(user.canvas, at)
    before = under(user, at)
    user.session.viewer.reset_view()
    now = under(user, at)
    assert now != before
    user.press("1")
    assert labelled(user) == [corner(user, now)]


def test_a_digit_away_from_the_canvas_labels_nothing(
    user: Labeller, tmp_path: Path
) -> None:
    session, first = user.session, user.session.slide
    other = write_slide(tmp_path / "other.tif", mpp=0.4)
    session.viewer.open(other, plugin="napari-mcm")
    session.set_features(session.slide, "first", two_kinds(other, mpp=0.4))
    session.choose_slide(first)
    view(user, (250, 300), 2)
    overview: Any = session.part(CanvasTools).overview
    wait_until(overview.isVisible)
    places: list[QWidget] = [overview, user.widget, session.viewer.window._qt_window]
    for place in places:
        session.choose_slide(first)
        point_at(user.canvas)
        session.choose_slide(session.layers.slides()[-1])
        if place is places[-1]:
            point_at(place, QPoint(5, 5))
        else:
            point_at(place)
        user.press("1")
        assert labelled(user) == [] and user.context.labels.note == NOWHERE
        user.context.labels.say("")


def test_the_key_that_follows_the_pointer_means_the_view_of_now(
    user: Labeller,
) -> None:
    clicks, context = context_of(user.session).clicks, context_of(user.session)
    view(user, (250, 300), 6)
    at = user.canvas.rect().center() + QPoint(100, 60)
    point_at(user.canvas, at)
    clicks.follow_cursor(True)
    user.session.viewer.reset_view()
    now = under(user, at)
    clicks.follow_cursor(False)
    wait_until(lambda: context.query is not None)
    assert context.query.maps["first"].query == now
    asked = context.query
    shown = np.array(user.session.layers.map_of(user.session.slide, "first").data)
    point_at(user.canvas, at + QPoint(-150, -100))
    clicks.follow_cursor(True)
    wait_until(lambda: context.queries.drawn.previewing)
    point_at(user.widget)
    clicks.follow_cursor(False)
    # The query and its map are as before.
    assert context.query is asked and not context.queries.drawn.previewing
    again = user.session.layers.map_of(user.session.slide, "first").data
    np.testing.assert_array_equal(again, shown)


def test_the_status_bar_follows_the_view(user: Labeller) -> None:
    viewer, context = user.session.viewer, context_of(user.session)
    context.queries.point(*map(float, user.grid.centres[3]))
    wait_until(lambda: context.query is not None)
    view(user, (250, 300), 6)
    point_at(user.canvas, user.canvas.rect().center() + QPoint(100, 60))
    QTest.keyClick(user.canvas, Qt.Key.Key_R, Qt.KeyboardModifier.ControlModifier)
    values = context.query.maps["first"].values

    def expected() -> str:
        # The canvas may have got another size.
        pixel = user.canvas.mapFromGlobal(QCursor.pos())
        return f"{values[under(user, pixel)]:.3f} "

    wait_until(lambda: in_status_bar(viewer).startswith(expected()))
    view(user, (200, 320), 9)
    wait_until(lambda: in_status_bar(viewer).startswith(expected()))
    point_at(user.widget)
    view(user, (250, 300), 6)
    wait_until(lambda: in_status_bar(viewer) == "")


def test_the_class_in_the_status_bar_follows_the_view(user: Labeller) -> None:
    left, right = np.argsort(user.grid.centres[:, 0])[[0, -1]]
    user.session.labels.add(user.grid, [left], "left")
    user.session.labels.add(user.grid, [right], "right")
    user.settle()
    at_cursor, scale = user.context.at_cursor, 0.5
    point_at(user.canvas)
    for row, name in ((left, "left"), (right, "right"), (left, "left")):
        x, y = user.grid.centres[row] * scale
        view(user, (y, x), 6)
        wait_until(lambda name=name: at_cursor.text.startswith(f"{name} "))
    point_at(user.widget)
    view(user, (250, 300), 6)
    wait_until(lambda: at_cursor.text == "")


def test_layers_with_long_names_leave_the_canvas_as_wide_as_it_is(
    user: Labeller,
) -> None:
    session, width = user.session, user.canvas.width()
    for name in ("epithelium of the glands", "stroma", "fat", "necrosis", "vessels"):
        session.labels.new_class(name)
    left, right = np.argsort(user.grid.centres[:, 0])[[0, -1]]
    session.labels.add(user.grid, [left], session.labels.classes[2].name)
    session.labels.add(user.grid, [right], "right")
    user.settle()
    for layer in list(session.viewer.layers):
        session.layers.activate(layer)
        for _ in range(5):
            QApplication.processEvents()
        assert user.canvas.width() == width, layer.name
    assert len(session.viewer.layers) == 3
