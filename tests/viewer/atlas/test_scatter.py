"""Painting and seeing the map of an atlas, against plain arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mcm.viewer.atlas.map_view import MapView
from napari_mcm.viewer.atlas.raster import PointRaster, as_argb

BACKGROUND = (30, 30, 40)


def test_places_become_pixels_and_back() -> None:
    view = MapView((200, 100), (3.0, -1.0), 10.0)
    # The centre is in the middle; right is right, and up is up.
    at = view.to_screen(np.array([[3.0, -1.0], [5.0, -1.0], [3.0, 2.0]]))
    assert at.tolist() == [[100, 50], [120, 50], [100, 20]]
    rng = np.random.default_rng(0)
    places = rng.uniform(-5, 5, (50, 2))
    np.testing.assert_allclose(view.to_map(view.to_screen(places)), places)


def test_the_place_under_the_pointer_stays_while_zooming() -> None:
    view = MapView((200, 100), (3.0, -1.0), 10.0)
    before = view.to_map(np.array([[170.0, 20.0]]))
    closer = view.zoomed(3, (170, 20))
    np.testing.assert_allclose(closer.to_map(np.array([[170.0, 20.0]])), before)
    assert closer.scale == pytest.approx(30)


def test_a_drag_moves_all_places_with_it() -> None:
    view = MapView((200, 100), (3.0, -1.0), 10.0)
    places = np.array([[0.0, 0.0], [4.0, 1.0]])
    moved = view.moved(7, -5).to_screen(places) - view.to_screen(places)
    np.testing.assert_allclose(moved, [[7, -5]] * 2)


@pytest.mark.parametrize("size", [(300, 300), (120, 500), (900, 200)])
def test_the_whole_map_is_in_sight(size: tuple[int, int]) -> None:
    places = np.random.default_rng(1).normal(size=(100, 2)) * (5, 1)
    at = MapView(size).fitted(places).to_screen(places)
    assert (at >= 0).all()
    assert (at <= size).all()
    # And one direction is filled.
    assert (np.ptp(at, axis=0) / size).max() > 0.85
    # A single point is no reason to fail.
    assert np.isfinite(MapView(size).fitted(places[:1]).to_screen(places[:1])).all()


def test_points_are_where_they_belong_in_their_colours() -> None:
    view = MapView((60, 50), (0.0, 0.0), 1.0)
    places = np.array([[-20, 10], [0, 0], [25, -20], [500, 0]], np.float32)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
    raster = PointRaster()
    raster.show_points(places)
    raster.show_colours(colours, np.empty(0, int))
    picture = raster.paint(view, BACKGROUND, 2.0)
    assert picture.shape == (50, 60)
    expected = np.full((50, 60), as_argb(np.array([BACKGROUND], np.uint8))[0])
    rows, columns = np.mgrid[:50, :60]
    for (x, y), colour in zip(places[:3], as_argb(colours[:3]), strict=True):
        # The pixel that contains the point is the middle of a disc.
        inside = np.hypot(columns - (x + 30), rows - (25 - y)) <= 2
        expected[inside] = colour
    assert np.array_equal(picture, expected)


def test_a_point_at_the_border_does_not_come_in_on_the_other_side() -> None:
    view = MapView((40, 40), (0.0, 0.0), 1.0)
    raster = PointRaster()
    raster.show_points(np.array([[19.6, 0]], np.float32))
    raster.show_colours(np.array([[255, 255, 255]], np.uint8), np.empty(0, int))
    picture = raster.paint(view, (0, 0, 0), 3.0)
    columns = np.flatnonzero((picture != picture[0, 0]).any(axis=0))
    assert columns.tolist() == [36, 37, 38, 39]


def test_selected_points_cover_the_others() -> None:
    view = MapView((40, 40), (0.0, 0.0), 1.0)
    raster = PointRaster()
    raster.show_points(np.zeros((50, 2), np.float32))
    colours = np.zeros((50, 3), np.uint8)
    for top in (0, 17, 49):
        colours[:], colours[top] = 0, 255
        raster.show_colours(colours, np.array([top]))
        assert raster.paint(view, BACKGROUND, 2.0)[20, 20] == 0xFFFFFFFF


def test_no_points_are_no_reason_to_fail() -> None:
    raster = PointRaster()
    assert len(np.unique(raster.paint(MapView((9, 7)), BACKGROUND, 2.0))) == 1
