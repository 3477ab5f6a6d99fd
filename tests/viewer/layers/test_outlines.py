"""Outlines against geometry, and as they are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from qtpy.QtWidgets import QApplication

from napari_mcm.viewer.layers.level_array import CHUNK
from napari_mcm.viewer.layers.outlines import (
    FINER,
    Outline,
    OutlineLayers,
    make_levels,
)
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import wait_until
from tests.viewer.similarity.test_maps import ready

__all__ = ["ready"]


def outline_of(mask: np.ndarray, screen_px: float) -> Outline:
    """The outline of patches of 32 × 24 px, from (10, 20) on."""
    outline = Outline(lambda: screen_px)
    outline.mask, outline.origin, outline.step = mask, (10.0, 20.0), (32.0, 24.0)
    return outline


def border_of(mask: np.ndarray) -> Any:
    """The border of those patches as a geometry: merged, without inner edges."""
    boxes = [
        shapely.box(10 + 32 * c, 20 + 24 * r, 42 + 32 * c, 44 + 24 * r)
        for r, c in np.argwhere(mask)
    ]
    return shapely.union_all(boxes).boundary


@pytest.mark.parametrize("screen_px", [0.3, 1.0, 2.7])
def test_it_is_where_merged_patches_end(screen_px: float) -> None:
    mask = np.random.default_rng(3).random((5, 6)) < 0.5
    border = border_of(mask)
    # Off the lattice, so that no pixel is just at the end of a line.
    x, y = np.arange(0.013, 215, 0.53), np.arange(0.017, 150, 0.57)
    painted = outline_of(mask, screen_px).paint(x, y)
    for least, half in ((2, 1), (1, 2)):
        reach = half * screen_px
        squares = shapely.box(
            *np.meshgrid(x - reach, y - reach), *np.meshgrid(x + reach, y + reach)
        )
        np.testing.assert_array_equal(
            painted >= least, shapely.intersects(squares, border)
        )


def test_its_length_is_that_of_the_border() -> None:
    mask = np.random.default_rng(4).random((30, 30)) < 0.6
    step = 0.25
    x, y = np.arange(0, 1000, step), np.arange(0, 760, step)
    painted = outline_of(mask, 0.5).paint(x, y) == 2
    length = painted.sum() * step**2 / (2 * 0.5)
    # Corners are counted once along x and once along y.
    assert length == pytest.approx(border_of(mask).length, rel=0.03)


def test_a_view_is_the_same_as_that_part_of_the_whole() -> None:
    outline = outline_of(np.random.default_rng(5).random((5, 6)) < 0.5, 1.0)
    levels = make_levels(outline, (230, 160))
    assert levels[0].shape == (160 * FINER, 230 * FINER)
    assert max(levels[-1].shape) <= 512 and levels[0].chunks == (CHUNK, CHUNK)
    for level in levels:
        whole = np.asarray(level)
        assert whole.shape == level.shape and len(level) == whole.shape[0]
        np.testing.assert_array_equal(level[7:60, 5:90], whole[7:60, 5:90])
        assert level[20, 30] == whole[20, 30]


def test_no_patches_have_no_outline() -> None:
    outline = outline_of(np.zeros((5, 6), bool), 1.0)
    assert not outline.paint(np.arange(200.0), np.arange(150.0)).any()


def line_width(canvas: np.ndarray) -> float:
    """The median length of runs of the line's colour along rows, in pixels."""
    yellow = (canvas[..., 0] > 200) & (canvas[..., 1] > 170) & (canvas[..., 2] < 90)
    padded = np.pad(yellow, ((0, 0), (1, 1))).astype(np.int8)
    ends = np.diff(padded, axis=1)
    lengths = np.nonzero(ends == -1)[1] - np.nonzero(ends == 1)[1]
    return float(np.median(lengths))


def test_it_is_two_pixels_wide_at_any_zoom(
    ready: SimilarityWidget, viewer: Any
) -> None:
    viewer.window._qt_window.show()
    context = context_of(ready.session)
    context.queries.point(600, 500)
    context.areas.make_labels()
    assert ready.session.slide is not None
    heatmap = context.areas.heatmap
    assert heatmap is not None
    grid, row = heatmap.grid, int(heatmap.best(1)[0])
    context.areas.set_threshold(float(heatmap.values[row]))
    look = ready.session.layers.look
    look.use_opacity(0)
    # The frame of the query would lie over the line.
    ready.session.layers.unmark()
    camera = viewer.scene.camera
    corner = grid.xy[row] * ready.session.slide.scale[-1]
    for zoom in (1.0, 3.0, 12.0, 60.0):
        camera.center, camera.zoom = tuple(corner[::-1]), zoom
        QApplication.processEvents()
        canvas = viewer.screenshot(canvas_only=True, flash=False)
        assert abs(line_width(canvas) - 2) <= 0.5, zoom


def test_drawn_regions_keep_their_width_on_the_screen(
    ready: SimilarityWidget, viewer: Any
) -> None:
    regions = context_of(ready.session).regions
    regions.begin()
    layer = regions.layer
    assert layer is not None
    layer.add_polygons([[(600, 400), (600, 700), (800, 700)]])
    scale, camera = float(ready.session.slide.scale[-1]), viewer.scene.camera
    for zoom in (0.5, 4.0):
        camera.zoom = zoom
        wait_until(lambda zoom=zoom: np.isclose(layer.edge_width[0], 3 / zoom / scale))
        assert layer.current_edge_width == pytest.approx(3 / zoom / scale)


def test_far_out_it_is_that_of_now(ready: SimilarityWidget) -> None:
    session = ready.session
    slide, outlines = session.slide, OutlineLayers(session.layers, "test")
    assert slide is not None
    # As without a window that is drawn, napari shows the coarsest level: 4 px a pixel.
    session.viewer.scene.camera.zoom = 0.3
    left, right = np.asarray([[True, False]]), np.asarray([[False, True]])

    def shown(x: float) -> int:
        layer = outlines.layer_of(slide)
        assert layer is not None
        world = slide.data_to_world((500, x))
        level, value = layer.get_value(world, world=True)
        assert level == len(layer.data) - 1
        return int(value)

    for mask, seen in ((left, (2, 0)), (right, (0, 2)), (left, (2, 0))):
        outlines.draw(slide, mask, (200, 300), (400, 400))
        assert (shown(200), shown(1000)) == seen
