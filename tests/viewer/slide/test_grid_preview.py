"""The preview of the grid: where patches lie, and that it follows at once."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mcm.core.tissue import TissueMask
from napari_mcm.viewer.slide.widget import SlideWidget
from tests.viewer.conftest import wait_until


@pytest.fixture
def shown(slide_widget: SlideWidget) -> SlideWidget:
    """The widget with a mask over the right half, and its grid."""
    mask = np.zeros((125, 150), bool)
    mask[:, 75:] = True
    session = slide_widget.session
    assert session.slide is not None
    session.tissue.show_found(session.slide, TissueMask.from_array(mask, (1200, 1000)))
    slide_widget.grid.fields.patch_size.setValue(100)
    slide_widget.grid.show_grid.click()
    wait_until(lambda: slide_widget.grid.preview.grid)
    return slide_widget


def raster(widget: SlideWidget) -> np.ndarray:
    slide = widget.session.slide
    assert slide is not None
    layer = widget.grid.preview.layer_of(slide)
    assert layer is not None and layer.visible
    return np.asarray(layer.data)


def test_there_is_a_pixel_a_patch(shown: SlideWidget) -> None:
    seen = raster(shown)
    assert seen.shape == (10, 12)
    assert np.isnan(seen[:, :6]).all() and not np.isnan(seen[:, 6:]).any()
    patches = seen[:, 6:]
    # Neighbours differ, so that single patches are seen.
    assert (np.diff(patches, axis=0) != 0).all()
    assert (np.diff(patches, axis=1) != 0).all()


def test_the_numbers_are_told(shown: SlideWidget) -> None:
    text = shown.grid.count.text()
    assert text.startswith("60 patches of 50 × 50 µm, 0.15 mm²\n")
    assert "100 px at 0.5 µm/px, 100 px of level 0" in text


def test_it_lies_on_its_patches(shown: SlideWidget) -> None:
    slide = shown.session.slide
    assert slide is not None
    layer = shown.grid.preview.layer_of(slide)
    assert layer is not None
    for cell, level0 in (((-0.5, -0.5), (-0.5, -0.5)), ((9.5, 11.5), (999.5, 1199.5))):
        world = layer.data_to_world(cell), slide.data_to_world(level0)
        np.testing.assert_allclose(*world, atol=1e-6)


def test_it_follows_the_fields(shown: SlideWidget) -> None:
    shown.grid.fields.patch_size.setValue(50)
    wait_until(lambda: len(shown.grid.preview.grid or ()) == 240)
    shown.grid.fields.min_tissue.setValue(0)
    wait_until(lambda: raster(shown).shape == (20, 24))


def test_it_follows_the_brush(shown: SlideWidget) -> None:
    drawing = shown.session.tissue.mask_of(shown.session.slide)
    assert drawing is not None
    drawing.layer.brush_size = 40
    drawing.layer.paint((6, 6), 1)
    wait_until(lambda: len(shown.grid.preview.grid or ()) > 60)
    assert not np.isnan(raster(shown)[0, 0])
    # A layer that is slow to be made must not be made again.
    assert (
        sum(layer.name.startswith("patches") for layer in shown.session.viewer.layers)
        == 1
    )


def test_it_can_be_taken_away_and_brought_back(shown: SlideWidget) -> None:
    slide, viewer = shown.session.slide, shown.session.viewer
    assert slide is not None
    shown.grid.show_grid.click()
    layer = shown.grid.preview.layer_of(slide)
    assert layer is not None and not layer.visible
    viewer.layers.remove(layer)
    shown.grid.show_grid.click()
    wait_until(lambda: shown.grid.preview.layer_of(slide))


def test_too_many_patches_are_told_not_drawn(
    shown: SlideWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_mcm.viewer.slide.grid_preview.MOST_PLACES", 100)
    shown.grid.fields.patch_size.setValue(64)
    wait_until(lambda: "too many to show" in shown.grid.count.text())


def test_patches_larger_than_the_slide_are_told(shown: SlideWidget) -> None:
    shown.grid.fields.patch_size.setValue(2000)
    wait_until(lambda: "larger than the slide" in shown.grid.count.text())


def test_without_a_mask_it_waits(slide_widget: SlideWidget) -> None:
    assert not slide_widget.grid.show_grid.isEnabled()
    assert "find tissue first" in slide_widget.grid.show_grid.toolTip()
