"""The look of maps: what it draws, what it leaves to the user, and what it remembers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_mcm.core.heatmaps.interpolation import SmoothRaster
from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.app.session import session_of
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.layers.colormaps import SHADE
from napari_mcm.viewer.layers.look import MapLook, look_of
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import Click, features_of, wait_until, write_slide
from tests.viewer.similarity.test_maps import centre_um, map_of, ready
from tests.viewer.similarity.test_query import again

__all__ = ["ready"]


@pytest.fixture(autouse=True)
def _own_settings(plugin_settings: Any) -> None:
    """Keep the preferences that a look writes in a folder of the test."""


@pytest.fixture
def look(ready: SimilarityWidget, click: Click) -> MapLook:
    """The look of a viewer with one map."""
    click(centre_um(ready, 5))
    return look_of(ready.session)


def heatmap_of(widget: SimilarityWidget) -> Any:
    return context_of(widget.session).queries.maps()["first"]


def drawn(layer: Any, values: np.ndarray) -> np.ndarray:
    """RGBA that a layer gives to values, by its limits and its colour map."""
    low, high = layer.contrast_limits
    return layer.colormap.map(np.clip((values - low) / (high - low), 0, 1))


def test_the_shade_of_the_spotlight_follows_its_formula(
    look: MapLook, ready: SimilarityWidget
) -> None:
    heatmap, areas = heatmap_of(ready), context_of(ready.session).areas
    look.use_style("spotlight")
    for share in (0.3, 0.8):
        low, high = heatmap.limits
        threshold = low + share * (high - low)
        areas.set_threshold(threshold)
        values = np.linspace(low - 0.1, high, 60)
        # Just below the threshold the shade falls within one step of the colour map.
        values = values[(values >= threshold) | (values < threshold - 0.01)]
        missing = np.clip((threshold - values) / (threshold - low), 0, 1)
        rgba = drawn(map_of(ready), values)
        shade = np.where(values < threshold, 0.6 + 0.4 * missing, 0)
        np.testing.assert_allclose(rgba[:, 3], shade, atol=0.01)
        np.testing.assert_allclose(
            rgba[:, :3], np.tile(SHADE, (len(values), 1)), atol=1e-6
        )


def test_the_spotlight_keeps_similar_tissue_and_greys_the_rest(
    look: MapLook, ready: SimilarityWidget, viewer: Any
) -> None:
    viewer.window._qt_window.show()
    heatmap, layer = heatmap_of(ready), map_of(ready)
    context_of(ready.session).areas.set_threshold(float(np.median(heatmap.values)))
    layer.colorbar.visible = viewer.canvas.overlays.scale_bar.visible = False
    ready.session.layers.unmark()
    look.use_style("spotlight")
    viewer.reset_view()

    def canvas(opacity: float) -> np.ndarray:
        look.use_opacity(opacity)
        QApplication.processEvents()
        return viewer.screenshot(canvas_only=True, flash=False)[..., :3] / 255

    plain, dimmed = canvas(0), canvas(0.8)
    zoom, size = viewer.scene.camera.zoom, np.asarray(plain.shape[:2])
    centre = np.asarray(viewer.scene.camera.center[-2:])
    um = heatmap.grid.centres[:, ::-1] * ready.session.slide.scale
    at = np.rint((um - centre) * zoom + size / 2).astype(int)
    alpha = 0.8 * drawn(layer, heatmap.values)[:, 3:]
    rows, columns = at.T
    expected = (1 - alpha) * plain[rows, columns] + alpha * np.asarray(SHADE)
    kept = heatmap.values >= look.threshold
    sure = kept | (heatmap.values < look.threshold - 0.01)
    seen = dimmed[rows, columns]
    np.testing.assert_allclose(seen[sure], expected[sure], atol=0.035)
    assert kept.any() and not kept.all()
    np.testing.assert_array_equal(
        plain[rows, columns][kept], dimmed[rows, columns][kept]
    )


def test_the_colour_bar_and_the_legend_show_the_same_colours(
    look: MapLook, ready: SimilarityWidget, viewer: Any
) -> None:
    viewer.window._qt_window.show()
    layer, legend = map_of(ready), ready.maps.legends["first"]
    # Far from the slide, so that only the bar is seen.
    viewer.scene.camera.center = (1e5, 1e5)
    for style, colormap in (("overlay", "mint"), ("spotlight", "mint")):
        look.use_style(style)
        look.use_colormap(colormap)
        wait_until(lambda: legend._shown == layer.colormap.name)
        canvas = viewer.screenshot(canvas_only=True, flash=False)[..., :3]
        strip = legend.strip.grab().toImage()
        size, factor = layer.colorbar.size, viewer.window._qt_window.devicePixelRatio()
        bar = column_of_bar(canvas, size[1] * factor)
        for share in (0.05, 0.3, 0.6, 0.85, 0.95):
            x = round(share * strip.width())
            colour = strip.pixelColor(x, strip.height() // 2).getRgb()[:3]
            seen = bar[round((1 - share) * len(bar))]
            np.testing.assert_allclose(
                seen, colour, atol=14, err_msg=f"{style} {share}"
            )


def column_of_bar(canvas: np.ndarray, height: float) -> np.ndarray:
    """Colours of the colour bar, from its top; it lies in a white box."""
    white = (canvas > 250).all(axis=2)
    left = int(np.flatnonzero(white.sum(axis=0) > height / 2)[0])
    top = int(np.flatnonzero(white[:, left])[0])
    # Half of napari's padding, half of a letter, and the line around the bar.
    start = top + 4 + 5 + 1
    return canvas[start : start + round(height) - 2, left + 14]


def test_what_passes_is_outlined_while_the_threshold_moves(
    look: MapLook, ready: SimilarityWidget
) -> None:
    session, areas = ready.session, context_of(ready.session).areas
    slider = ready.area.threshold

    def outlined() -> bool:
        layer = look._outlines.layer_of(session.slide)
        return layer is not None and layer.visible

    low, high = heatmap_of(ready).limits
    # A project that opens moves no slider.
    areas.set_threshold(low + 0.5 * (high - low))
    assert not outlined()
    for share in (0.6, 0.8):
        wait_until(lambda: slider.value() == pytest.approx(areas.threshold, abs=1e-3))
        slider.setValue(low + share * (high - low))
        assert outlined()
        mask = look._outlines._made[session.slide][1].mask
        np.testing.assert_array_equal(mask, heatmap_of(ready).raster >= slider.value())
    look._moving.setInterval(10)
    look._moving.start()
    wait_until(lambda: not outlined())
    areas.step(-1)
    assert outlined()
    wait_until(lambda: not outlined())
    look.use(replace(look.values, outline_moves=False))
    areas.step(-1)
    assert not outlined()


def test_an_outline_moves_neither_the_picture_nor_a_legend(
    look: MapLook, ready: SimilarityWidget, viewer: Any
) -> None:
    window = viewer.window._qt_window
    window.resize(1280, 800)
    window.show()
    viewer.layers.selection.active = ready.session.slide
    QApplication.processEvents()
    controls = viewer.window._qt_viewer.controls
    before = controls.minimumSizeHint().width()
    canvas = viewer.window._qt_viewer.canvas.native.width()
    look.use_style("outline")
    legend = ready.maps.legends["first"]
    wait_until(lambda: legend.isHidden())
    QApplication.processEvents()
    assert controls.minimumSizeHint().width() <= before
    assert viewer.window._qt_viewer.canvas.native.width() == canvas
    look.use_style("overlay")
    wait_until(lambda: not legend.isHidden())


def test_a_style_goes_with_the_query_and_with_the_cursor(
    look: MapLook, ready: SimilarityWidget, click: Click
) -> None:
    look.use_style("outline")
    layer = map_of(ready)
    assert not drawn(layer, np.linspace(-1, 1, 9))[:, 3].any()
    assert not layer.colorbar.visible
    queries, areas = context_of(ready.session).queries, context_of(ready.session).areas

    def outlined() -> np.ndarray:
        made = look._outlines._made[ready.session.slide]
        return made[1].mask

    for patch in (9, 40):
        click(centre_um(ready, patch))
        shown = heatmap_of(ready).raster >= areas.threshold
        np.testing.assert_array_equal(outlined(), shown)
    clicked = outlined()
    grid = heatmap_of(ready).grid
    queries.cursor.follow(*grid.centres[70])
    wait_until(lambda: not np.array_equal(outlined(), clicked))
    index = ready.session.features("first").index
    hovered = grid.raster(index.query(70)) >= areas.threshold
    np.testing.assert_array_equal(outlined(), hovered)
    look.use_style("overlay")
    assert layer.colorbar.visible
    assert not look._outlines.layer_of(ready.session.slide).visible


def test_what_the_user_changed_in_a_layer_stays_until_it_is_chosen_for_all(
    look: MapLook, ready: SimilarityWidget, click: Click, loaded: LoadedFeatures
) -> None:
    session, layer = ready.session, map_of(ready)
    layer.opacity, layer.colormap, layer.contrast_limits = 0.3, "magma", (0.1, 0.2)
    layer.interpolation2d = "cubic"
    click(centre_um(ready, 40))
    look.use_smooth(False)
    assert (layer.opacity, layer.colormap.name) == (0.3, "magma")
    assert tuple(layer.contrast_limits) == (0.1, 0.2)
    assert layer.interpolation2d == "cubic"
    look.use_colormap("frost")
    assert (layer.opacity, layer.colormap.name) == (0.3, "frost")
    look.use_opacity(0.9)
    assert layer.opacity == 0.9
    context_of(session).queries.use_limits("fixed")
    assert tuple(layer.contrast_limits) == (-1, 1)
    look.use_smooth(True)
    assert layer.interpolation2d == "linear"
    # Maps that are made later are drawn alike.
    session.set_features(session.slide, "second", again(loaded, 1))
    other = session.layers.map_of(session.slide, "second")
    assert (other.opacity, other.colormap.name) == (0.9, "frost")
    assert other.interpolation2d == "linear"


def test_it_is_valid_for_all_slides(
    look: MapLook, ready: SimilarityWidget, click: Click, viewer: Any, tmp_path: Path
) -> None:
    first = map_of(ready)
    other = write_slide(tmp_path / "other.tif")
    viewer.open(other, plugin="napari-mcm")
    session = ready.session
    session.set_features(session.slide, "first", features_of(other))
    click(centre_um(ready, 5))
    second = map_of(ready)
    assert second is not first
    look.use_colormap("frost")
    look.use_opacity(0.4)
    assert [x.opacity for x in (first, second)] == [0.4, 0.4]
    assert [x.colormap.name for x in (first, second)] == ["frost", "frost"]


def corners(layer: Any) -> np.ndarray:
    """Upper left and lower right corners of an image in the world."""
    shape = np.asarray(layer.data.shape)
    return layer.translate + layer.scale * np.asarray([[-0.5, -0.5], shape - 0.5])


def test_smooth_maps_show_the_interpolated_values(
    look: MapLook, ready: SimilarityWidget, click: Click
) -> None:
    layer = map_of(ready)
    before = corners(layer)
    look.use_smooth(True)
    for patch in (5, 40):
        click(centre_um(ready, patch))
        raster = heatmap_of(ready).raster
        factor = layer.data.shape[0] // raster.shape[0]
        assert factor > 1
        expected = SmoothRaster(np.isfinite(raster), factor).enlarge(raster)
        np.testing.assert_allclose(layer.data, expected, atol=1e-6)
        np.testing.assert_allclose(corners(layer), before, atol=1e-6)
    look.use_smooth(False)
    np.testing.assert_array_equal(layer.data, heatmap_of(ready).raster)
    np.testing.assert_allclose(corners(layer), before, atol=1e-6)


def test_a_cleared_map_stays_clear(look: MapLook, ready: SimilarityWidget) -> None:
    look.use_style("outline")
    context_of(ready.session).queries.clear()
    look.use_smooth(True)
    look.use_style("overlay")
    assert np.isnan(map_of(ready).data).all()


def test_maps_are_hidden_and_shown_again(
    look: MapLook, ready: SimilarityWidget, loaded: LoadedFeatures
) -> None:
    session = ready.session
    session.set_features(session.slide, "second", again(loaded, 1))
    context_of(session).queries.show("second")
    shown = [session.layers.map_of(session.slide, x) for x in ("first", "second")]
    heard: list[bool] = []
    look.changed.connect(lambda: heard.append(look.visible))
    assert look.visible
    look.use_visible(False)
    assert [layer.visible for layer in shown] == [False, False] and not look.visible
    # The area and the gallery stay those of the map that was hidden.
    assert context_of(session).queries.shown_map()[0] == "second"
    look.use_visible(True)
    assert [layer.visible for layer in shown] == [False, True]
    assert heard == [False, True]


def test_it_is_remembered_in_the_preferences(
    look: MapLook, ready: SimilarityWidget, make_napari_viewer: Any
) -> None:
    look.use_style("spotlight")
    look.use_colormap("cividis")
    look.use_opacity(0.55)
    look.use_smooth(True)
    wait_until(lambda: preferences().look == look.values)
    later = look_of(session_of(make_napari_viewer()))
    assert later.values == look.values
    assert (later.style, later.colormap) == ("spotlight", "cividis")
    assert (later.opacity, later.smooth) == (0.55, True)


def test_the_preferences_change_it(look: MapLook, ready: SimilarityWidget) -> None:
    from napari.settings import get_plugin_settings

    get_plugin_settings("napari-mcm").maps.opacity = 0.25
    assert look.opacity == map_of(ready).opacity == 0.25
