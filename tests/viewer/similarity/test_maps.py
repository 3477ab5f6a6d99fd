"""A click on the slide, and the maps that it draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_mcm.core.heatmaps import usual_range
from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.layers.thumbnails import go_to
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.maps_panel import RANGES
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import Click, features_of, write_slide


@pytest.fixture
def ready(widget: SimilarityWidget, loaded: LoadedFeatures) -> SimilarityWidget:
    """The widget with features in its first slot."""
    widget.session.set_features(widget.session.slide, "first", loaded)
    return widget


def centre_um(ready: SimilarityWidget, patch: int) -> tuple[float, float]:
    """Where the middle of a patch lies in the world (y, x)."""
    loaded, metadata = ready.session.features("first"), ready.session.metadata
    assert loaded is not None and metadata is not None and metadata.mpp is not None
    x, y = loaded.index.features.grid.centres[patch]
    return (y - 0.5) * metadata.mpp[1], (x - 0.5) * metadata.mpp[0]


def map_of(widget: SimilarityWidget, slot: str = "first") -> Any:
    return widget.session.layers.map_of(widget.session.slide, slot)


def test_a_click_finds_the_patch_under_it(
    ready: SimilarityWidget, click: Click
) -> None:
    loaded = ready.session.features("first")
    for patch in (0, 17, len(loaded.index.features) - 1):
        click(centre_um(ready, patch))
        heatmap = context_of(ready.session).query.maps["first"]
        assert heatmap.query == patch
        row, column = loaded.index.features.grid.lattice[patch]
        assert map_of(ready).data[row, column] == pytest.approx(1, abs=1e-5)


def test_the_edges_of_a_patch_are_its_own(
    ready: SimilarityWidget, click: Click
) -> None:
    grid = ready.session.features("first").index.features.grid
    y, x = centre_um(ready, 30)
    inside = grid.patch_um / 2 - 0.01
    for dy, dx in [(-1, -1), (-1, 1), (1, -1), (1, 1)]:
        click((y + dy * inside, x + dx * inside))
        assert context_of(ready.session).query.maps["first"].query == 30


def test_a_cell_of_the_map_covers_its_patch(
    ready: SimilarityWidget, click: Click
) -> None:
    click(centre_um(ready, 5))
    grid = ready.session.features("first").index.features.grid
    layer, slide = map_of(ready), ready.session.slide
    for patch in (0, 5, len(grid) - 1):
        cell = grid.lattice[patch].astype(float)
        corners = [layer.data_to_world(cell + side) for side in (-0.5, 0.5)]
        first = grid.xy[patch][::-1] - 0.5
        wanted = [
            slide.data_to_world(first + side * np.asarray(grid.patch_size_level0))
            for side in (0, 1)
        ]
        np.testing.assert_allclose(corners, wanted, atol=1e-6)
    assert layer.units == slide.units and layer.axis_labels == slide.axis_labels
    assert np.isnan(layer.data).any() and layer.data.dtype == np.float32


def test_colour_bar_scale_bar_and_marker_are_shown(
    ready: SimilarityWidget, click: Click, viewer: Any
) -> None:
    click(centre_um(ready, 5))
    assert map_of(ready).colorbar.visible
    assert viewer.canvas.overlays.scale_bar.visible
    marker = viewer.layers["query patch"]
    np.testing.assert_allclose(
        marker.data_to_world(marker.data[0]), centre_um(ready, 5), atol=1e-6
    )
    assert viewer.layers.selection.active is ready.session.slide


def test_drags_other_buttons_and_alt_are_left_alone(
    ready: SimilarityWidget, click: Click
) -> None:
    at = centre_um(ready, 5)
    click(at, moved_px=30)
    click(at, button=2)
    click(at, modifiers=["Alt"])
    assert context_of(ready.session).query is None
    click(at, moved_px=2)
    assert context_of(ready.session).query is not None


def test_painting_in_another_layer_is_no_query(
    ready: SimilarityWidget, click: Click, viewer: Any
) -> None:
    points = viewer.add_points(np.zeros((1, 2)), units=("um", "um"))
    points.mode = "add"
    click(centre_um(ready, 5))
    assert context_of(ready.session).query is None


def test_another_click_updates_the_same_layer(
    ready: SimilarityWidget, click: Click, viewer: Any
) -> None:
    click(centre_um(ready, 5))
    layer, names = map_of(ready), [layer.name for layer in viewer.layers]
    layer.name, layer.opacity, layer.colormap = "mine", 0.3, "viridis"
    before = layer.data.copy()
    click(centre_um(ready, 40))
    assert map_of(ready) is layer and len(viewer.layers) == len(names)
    assert not np.array_equal(before, layer.data, equal_nan=True)
    assert (layer.name, layer.opacity, layer.colormap.name) == ("mine", 0.3, "viridis")


def test_deleted_layers_come_back(
    ready: SimilarityWidget, click: Click, viewer: Any
) -> None:
    click(centre_um(ready, 5))
    viewer.layers.remove(map_of(ready))
    viewer.layers.remove("query patch")
    click(centre_um(ready, 6))
    assert map_of(ready) in viewer.layers and "query patch" in viewer.layers


def test_maps_go_with_the_slide_that_is_deleted(
    ready: SimilarityWidget, click: Click, viewer: Any
) -> None:
    click(centre_um(ready, 5))
    layer = map_of(ready)
    viewer.layers.remove(ready.session.slide)
    QApplication.processEvents()
    assert layer not in viewer.layers and ready.session.slide is None
    assert context_of(ready.session).query is None


def test_a_patch_that_is_gone_to_is_framed_beside_the_examples(
    ready: SimilarityWidget, click: Click, viewer: Any
) -> None:
    click(centre_um(ready, 5))
    click(centre_um(ready, 9), modifiers=["Shift"])
    examples = viewer.layers["query patch"].data.copy()
    grid = ready.session.features("first").index.features.grid
    go_to(ready.session.layers, ready.session.slide, grid, 40)
    np.testing.assert_array_equal(viewer.layers["query patch"].data, examples)
    dashes = viewer.layers["top patch"].data
    x, y = grid.centres[40] - 0.5
    np.testing.assert_allclose(dashes[:, 0].mean(axis=0), (y, x), atol=1e-6)
    assert np.ptp(dashes[:, 0], axis=0).tolist() == [grid.patch_size_level0[0]] * 2
    click(centre_um(ready, 6))
    assert not len(viewer.layers["top patch"].data)


def test_both_encoders_answer_the_same_click(
    ready: SimilarityWidget, click: Click, slide_path: Path
) -> None:
    click(centre_um(ready, 5))
    other = features_of(slide_path, patch_size=80)
    ready.session.set_features(ready.session.slide, "second", other)
    first, second = map_of(ready, "first"), map_of(ready, "second")
    # The query is asked of new features at once, and their map is the one that shows.
    assert second.visible and not first.visible
    before = first.data.copy(), second.data.copy()
    click(centre_um(ready, len(other.index.features)))
    assert not np.array_equal(before[0], first.data, equal_nan=True)
    assert not np.array_equal(before[1], second.data, equal_nan=True)
    ready.maps.show_slot["first"].click()
    assert first.visible and not second.visible


def test_an_encoder_without_a_patch_there_shows_nothing(
    ready: SimilarityWidget, click: Click, slide_path: Path
) -> None:
    other = features_of(slide_path, patch_size=80)
    ready.session.set_features(ready.session.slide, "second", other)
    centres = ready.session.features("first").index.features.grid.centres
    found = [other.index.features.grid.index_at(*xy) is None for xy in centres]
    click(centre_um(ready, found.index(False)))
    assert np.isfinite(map_of(ready, "second").data).any()
    click(centre_um(ready, found.index(True)))
    assert context_of(ready.session).query.maps["second"] is None
    assert np.isnan(map_of(ready, "second").data).all()
    assert np.isfinite(map_of(ready, "first").data).any()


def test_features_on_another_grid_move_the_layer(
    ready: SimilarityWidget, click: Click, slide_path: Path
) -> None:
    click(centre_um(ready, 5))
    layer = map_of(ready)
    coarser = features_of(slide_path, patch_size=80)
    ready.session.set_features(ready.session.slide, "first", coarser)
    assert map_of(ready) is layer
    assert layer.data.shape == coarser.index.features.grid.shape
    np.testing.assert_allclose(layer.scale, (40, 40), rtol=1e-4)


def test_a_click_beside_the_tissue_keeps_the_map(
    ready: SimilarityWidget, click: Click
) -> None:
    click(centre_um(ready, 5))
    query = context_of(ready.session).query
    click((1.0, 1.0))
    assert context_of(ready.session).query is query
    assert "tissue" in ready.query.where.text()


def test_fixed_colours_run_from_minus_one_to_one(
    ready: SimilarityWidget, click: Click
) -> None:
    click(centre_um(ready, 5))
    assert map_of(ready).contrast_limits != [-1, 1]
    choose_range(ready, "fixed")
    assert map_of(ready).contrast_limits == [-1, 1]


def test_colours_of_an_encoder_stay_from_click_to_click(
    ready: SimilarityWidget, click: Click
) -> None:
    limits = []
    for patch in (5, 40):
        click(centre_um(ready, patch))
        limits.append(tuple(map_of(ready).contrast_limits))
    assert limits[0] == limits[1]
    low, high = usual_range(ready.session.features("first").index)
    assert limits[0][0] <= low < high <= limits[0][1]
    assert f"{limits[0][0]:.2f}" in ready.maps.legends["first"].low.text()


def test_colours_can_follow_each_map(ready: SimilarityWidget, click: Click) -> None:
    choose_range(ready, "robust")
    click(centre_um(ready, 5))
    heatmap = context_of(ready.session).query.maps["first"]
    assert map_of(ready).contrast_limits == list(heatmap.limits)
    others = np.delete(heatmap.values, 5)
    inside = (others >= heatmap.limits[0]) & (others <= heatmap.limits[1])
    assert inside.mean() > 0.95


def choose_range(widget: SimilarityWidget, limits: str) -> None:
    index = list(RANGES.values()).index(limits)
    widget.maps.range.setCurrentIndex(index)
    widget.maps.range.activated.emit(index)


def test_a_real_mouse_click_works(
    ready: SimilarityWidget, viewer: Any, make_napari_viewer: Any
) -> None:
    viewer.window._qt_window.show()
    QApplication.processEvents()
    native = viewer.window._qt_viewer.canvas.native
    middle = QPoint(native.width() // 2, native.height() // 2)
    QTest.mouseClick(native, Qt.MouseButton.LeftButton, pos=middle)
    QApplication.processEvents()
    # The view was fitted to the slide: its middle is the slide's.
    x, y = context_of(ready.session).query.xy
    assert abs(x - 600) < 20 and abs(y - 500) < 20


def test_the_slide_alone_converts_the_click(
    ready: SimilarityWidget, click: Click, viewer: Any
) -> None:
    viewer.add_image(np.zeros((4, 4)), scale=(0.1, 0.1), units=("mm", "mm"))
    click(centre_um(ready, 12))
    assert context_of(ready.session).query.maps["first"].query == 12


def test_the_position_is_shown_in_microns(
    ready: SimilarityWidget, click: Click
) -> None:
    click(centre_um(ready, 5))
    x, y = context_of(ready.session).query.um
    assert f"x {x:,.1f} µm, y {y:,.1f} µm" in ready.query.where.toolTip()
    assert "patch 5 of" in ready.query.where.toolTip()
    assert ready.query.where.text() == "1 ■ similar"


def test_colour_bars_are_of_the_slide_that_is_worked_on(
    ready: SimilarityWidget, viewer: Any, click: Click, tmp_path: Path
) -> None:
    click(centre_um(ready, 5))
    first, layer = ready.session.slide, map_of(ready)
    (second,) = viewer.open(write_slide(tmp_path / "b.tif"), plugin="napari-mcm")
    assert ready.session.slide is second and not layer.colorbar.visible
    ready.session.choose_slide(first)
    assert layer.colorbar.visible
    # One that the user has put away stays away.
    layer.colorbar.visible = False
    ready.session.choose_slide(second)
    ready.session.choose_slide(first)
    assert not layer.colorbar.visible


def test_each_slide_keeps_its_features(
    ready: SimilarityWidget, viewer: Any, tmp_path: Path
) -> None:
    other = write_slide(tmp_path / "other.tif")
    (second,) = viewer.open(other, plugin="napari-mcm")
    assert ready.session.slide is second and ready.session.features("first") is None
    viewer.layers.remove(second)
    assert ready.session.slide is not None
    assert ready.session.features("first") is not None
