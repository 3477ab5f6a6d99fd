"""The overview map shows the whole slide, frames what is in sight, and moves the view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QPoint, QRect, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_mcm.core.slides import open_slide
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.canvas.magnification import magnification_text
from napari_mcm.viewer.canvas.overview import _EDGE, OverviewMap
from napari_mcm.viewer.canvas.view import seen_corners
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.canvas.conftest import canvas, tools
from tests.viewer.conftest import MPP, wait_until, write_slide

SIZE = np.array([1200, 1000])


@pytest.fixture
def overview(shown: SimilarityWidget) -> OverviewMap:
    made = tools(shown).overview
    wait_until(made.isVisible)
    return made


def seen_on_canvas(widget: SimilarityWidget) -> Any:
    """Level-0 pixels of the canvas's corners, by napari's own transform."""
    viewer = widget.session.viewer
    qt_canvas = viewer.window._qt_viewer.canvas
    views = qt_canvas.grid_views if viewer.canvas.grid.enabled else [qt_canvas.view]
    width, height = views[0].rect.size
    corners = [(0, 0), (width, 0), (width, height), (0, height)]
    world = [qt_canvas._map_canvas2world(corner, views[0]) for corner in corners]
    slide = widget.session.slide
    return np.array([slide.world_to_data(at)[::-1] for at in world]) + 0.5


def draw(widget: SimilarityWidget) -> None:
    """Draw the canvas now."""
    drawn: list[object] = []
    events = widget.session.viewer.window._qt_viewer.canvas.events
    events.draw.connect(drawn.append, position="last")
    canvas(widget).update()
    wait_until(lambda: drawn)
    events.draw.disconnect(drawn.append)
    QApplication.processEvents()


def frame(overview: OverviewMap) -> Any:
    """The frame in fractions of the slide."""
    inner = np.array([overview.width(), overview.height()]) - 2 * _EDGE
    return (overview._frame - _EDGE) / inner


def unordered(corners: Any) -> Any:
    return np.array(sorted(np.round(corners, 3).tolist()))


def test_the_picture_is_the_slides(overview: OverviewMap, slide_path: Path) -> None:
    image = overview.grab().toImage()
    inner = np.array([overview.width(), overview.height()]) - 2 * _EDGE
    assert inner[0] / inner[1] == pytest.approx(1.2, rel=0.02)
    with open_slide(slide_path) as slide:
        whole = slide.read_level(0, 0, 0, 1200, 1000)
    # Where the frame is not drawn: the mean of a field of the slide.
    centre = (overview.width() // 2, overview.height() // 2)
    seen = np.array(image.pixelColor(*centre).getRgb()[:3], float)
    field = whole[496:504, 596:604].reshape(-1, 3)
    np.testing.assert_allclose(seen, field.mean(axis=0), atol=40)


@pytest.mark.parametrize("turned", ["plain", "rotated", "flipped", "side by side"])
def test_the_frame_is_what_is_seen(
    shown: SimilarityWidget, overview: OverviewMap, turned: str
) -> None:
    viewer, slide = shown.session.viewer, shown.session.slide
    if turned == "rotated":
        slide.rotate = 30
    elif turned == "flipped":
        viewer.scene.camera.orientation2d = ("up", "left")
    elif turned == "side by side":
        viewer.open(slide.metadata["napari-mcm"]["path"], plugin="napari-mcm")
        viewer.canvas.grid.enabled = True
    viewer.scene.camera.center = (200, 330)
    viewer.scene.camera.zoom = 3
    draw(shown)
    expected = seen_on_canvas(shown)
    corners = seen_corners(viewer, shown.session.slide)
    np.testing.assert_allclose(unordered(corners), unordered(expected), atol=1)
    drawn = frame(overview)
    if turned == "flipped":
        drawn = 1 - drawn
    np.testing.assert_allclose(unordered(drawn), unordered(expected / SIZE), atol=0.01)


def test_a_click_and_a_drag_move_the_view(
    shown: SimilarityWidget, overview: OverviewMap
) -> None:
    viewer, slide = shown.session.viewer, shown.session.slide
    inner = np.array([overview.width(), overview.height()]) - 2 * _EDGE

    def at(x: float, y: float) -> QPoint:
        return QPoint(
            *(np.round(np.array([x, y]) * inner).astype(int) + _EDGE).tolist()
        )

    def centre() -> Any:
        y, x = slide.world_to_data(viewer.scene.camera.center[-2:])
        return np.array([x, y]) / SIZE

    button = Qt.MouseButton.LeftButton
    QTest.mousePress(overview, button, pos=at(0.25, 0.75))
    np.testing.assert_allclose(centre(), (0.25, 0.75), atol=0.01)
    QTest.mouseMove(overview, at(0.5, 0.5))
    QTest.mouseRelease(overview, button, pos=at(0.5, 0.5))
    np.testing.assert_allclose(centre(), (0.5, 0.5), atol=0.01)
    viewer.scene.camera.orientation2d = ("up", "right")
    QTest.mouseClick(overview, button, pos=at(0.25, 0.75))
    np.testing.assert_allclose(centre(), (0.25, 0.25), atol=0.01)


def test_a_click_in_it_asks_no_query(
    shown: SimilarityWidget, overview: OverviewMap
) -> None:
    QTest.mouseClick(overview, Qt.MouseButton.LeftButton, pos=QPoint(20, 20))
    QTest.mouseDClick(overview, Qt.MouseButton.LeftButton, pos=QPoint(20, 20))
    assert not shown.session.has_query


def test_it_is_hidden_where_it_would_be_wrong_and_by_its_key(
    shown: SimilarityWidget, overview: OverviewMap
) -> None:
    viewer = shown.session.viewer
    viewer.dims.ndisplay = 3
    draw(shown)
    assert not overview.isVisible()
    viewer.dims.ndisplay = 2
    viewer.dims.transpose()
    draw(shown)
    assert not overview.isVisible()
    viewer.dims.transpose()
    draw(shown)
    assert overview.isVisible() and preferences().overview
    QTest.keyClick(canvas(shown), Qt.Key.Key_W)
    assert not overview.isVisible() and not preferences().overview
    QTest.keyClick(canvas(shown), Qt.Key.Key_W)
    assert overview.isVisible() and preferences().overview


def test_it_follows_the_slide_and_goes_with_the_last_one(
    shown: SimilarityWidget, overview: OverviewMap, tmp_path: Path
) -> None:
    session, first = shown.session, shown.session.slide
    before = overview.grab().toImage()
    session.viewer.open(
        write_slide(tmp_path / "blank.tif", blank=True), plugin="napari-mcm"
    )
    wait_until(lambda: overview.isVisible() and overview.grab().toImage() != before)
    middle = overview.grab().toImage().pixelColor(30, 30).getRgb()[:3]
    assert middle == (243, 243, 243)
    session.viewer.layers.remove(session.slide)
    wait_until(lambda: session.slide is first and overview.isVisible())
    session.viewer.layers.clear()
    assert not overview.isVisible()


def test_it_stays_in_its_corner(shown: SimilarityWidget, overview: OverviewMap) -> None:
    native = canvas(shown)
    for size in ((1000, 600), (1300, 900)):
        shown.session.viewer.window.resize(*size)
        wait_until(lambda: overview.geometry().bottom() == native.height() - 11)
        assert overview.x() == 10
        assert native.rect().contains(tools(shown).magnification.geometry())


def test_it_covers_neither_scale_bar_nor_magnification(
    shown: SimilarityWidget, overview: OverviewMap
) -> None:
    label = tools(shown).magnification
    assert label.isVisible()
    assert not QRect(overview.geometry()).intersects(label.geometry())


def test_the_magnification_is_that_of_the_view(shown: SimilarityWidget) -> None:
    viewer, label = shown.session.viewer, tools(shown).magnification
    # Two pixels of the screen per pixel of 0.5 µm.
    viewer.scene.camera.zoom = 2 / MPP
    draw(shown)
    assert label.text() == "40× · 0.25 µm/px"
    viewer.scene.camera.zoom = 0.5
    draw(shown)
    assert label.text() == "5× · 2 µm/px"
    assert magnification_text(4, None) == "4 px of the slide per pixel"


def test_a_pan_paints_nothing_of_it_that_did_not_change(
    shown: SimilarityWidget, overview: OverviewMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted = []
    monkeypatch.setattr(overview, "update", lambda: painted.append(1))
    camera = shown.session.viewer.scene.camera
    y, x = camera.center[-2:]
    camera.center = (y, x + 1e-3)
    draw(shown)
    assert painted == []
    camera.center = (y, x + 50)
    draw(shown)
    assert painted == [1]


def test_a_pan_by_the_mouse_draws_the_canvas_once_a_movement(
    shown: SimilarityWidget, overview: OverviewMap
) -> None:
    native, drawn = canvas(shown), []
    camera = shown.session.viewer.scene.camera
    camera.zoom = 6
    for _ in range(20):
        QApplication.processEvents()
    scene = shown.session.viewer.window._qt_viewer.canvas.events
    scene.draw.connect(lambda event: drawn.append(1))
    at, button = native.rect().center(), Qt.MouseButton.LeftButton
    before = frame(overview).copy()
    QTest.mousePress(native, button, pos=at)
    for step in range(1, 6):
        QTest.mouseMove(native, at - QPoint(40 * step, 30 * step))
        for _ in range(10):
            QApplication.processEvents()
    QTest.mouseRelease(native, button, pos=at - QPoint(200, 150))
    assert np.abs(frame(overview) - before).max() > 0.01
    assert len(drawn) <= 6
