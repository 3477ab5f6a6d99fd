"""Patches lie on tissue at a physical size, windows cover them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from napari_mcm.core.errors import GridError
from napari_mcm.core.grid import GridConfig, PatchGrid, common_mpp, make_grid
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import TissueConfig, TissueMask, find_tissue
from tests.core.conftest import stained_image


def full(slide, value=True):
    """A mask that is tissue everywhere, or nowhere."""
    return TissueMask(
        np.full((50, 60), value), (slide.size[0] / 60, slide.size[1] / 50)
    )


def test_patches_have_the_physical_size_asked_for(write_slide):
    slide = open_slide(write_slide(stained_image(1000, 900), mpp=0.25))
    grid = make_grid(slide, full(slide), GridConfig(mpp=0.5, patch_size=64))
    assert grid.patch_size_level0 == (128.0, 128.0)
    assert grid.patch_um == 32
    assert grid.shape == (7, 7)
    assert_array_equal(grid.xy[:2], [[0, 0], [128, 0]])
    pixels = slide.read(grid.xy[8], (64, 64), grid.mpp)
    assert pixels.shape == (64, 64, 3)


def test_a_broken_ratio_does_not_drift(write_slide):
    slide = open_slide(write_slide(stained_image(1200, 400), mpp=0.499))
    grid = make_grid(slide, full(slide), GridConfig(mpp=0.5, patch_size=32))
    last = grid.lattice[:, 1].max()
    right = grid.xy[grid.lattice[:, 1] == last][0, 0]
    assert right == round(last * 32 * 0.5 / 0.499) != last * 32


def test_patches_lie_inside_the_slide_and_on_tissue(tissue_slide):
    slide = open_slide(tissue_slide)
    tissue = find_tissue(slide, TissueConfig(tissue_mpp=4))
    grid = make_grid(slide, tissue, GridConfig(patch_size=64, min_tissue=0.6), (7, 13))
    assert len(grid) > 50
    assert (grid.xy >= (7, 13)).all()
    assert (grid.xy + 64 <= slide.size).all()
    assert (tissue.coverage(grid.xy, (64, 64)) >= 0.6).all()


def test_auto_resolution_is_the_coarsest_slide_s(write_slide):
    image = stained_image(300, 300)
    fine, coarse = (
        open_slide(write_slide(image, f"{mpp}.ome.tif", mpp=mpp))
        for mpp in (0.25, 0.688)
    )
    assert common_mpp([fine], GridConfig()) == 0.5
    assert common_mpp([fine, coarse], GridConfig()) == 0.688


def test_finer_than_the_slide_needs_leave(write_slide):
    slide = open_slide(write_slide(stained_image(600, 600), mpp=0.688))
    with pytest.raises(GridError, match="--allow-upsampling"):
        make_grid(slide, full(slide), GridConfig(mpp=0.5))
    grid = make_grid(slide, full(slide), GridConfig(mpp=0.5, allow_upsampling=True))
    assert slide.read(grid.xy[0], (224, 224), grid.mpp).shape == (224, 224, 3)


@pytest.mark.parametrize("mpp", [0, -1, float("nan"), float("inf"), "fine"])
def test_impossible_resolutions_are_refused(mpp):
    with pytest.raises(ValueError, match="mpp"):
        GridConfig(mpp=mpp)


def test_a_click_finds_the_patch_under_it(write_slide):
    slide = open_slide(write_slide(stained_image(600, 500), mpp=0.499))
    grid = make_grid(slide, full(slide), GridConfig(mpp=0.5, patch_size=50), (11, 5))
    for index in (0, 17, len(grid) - 1):
        assert grid.index_at(*grid.centres[index]) == index
    assert grid.index_at(2, 2) is None


def test_raster_puts_values_where_patches_are(write_slide):
    slide = open_slide(write_slide(stained_image(400, 300)))
    grid = make_grid(slide, full(slide), GridConfig(patch_size=100))
    picture = grid.raster(np.arange(len(grid)))
    assert_array_equal(picture, np.arange(12).reshape(3, 4))
    half = PatchGrid(
        grid.xy[6:], grid.lattice[6:], 100, 0.5, (100, 100), (0, 0), (3, 4), grid.slide
    )
    assert np.isnan(half.raster(np.zeros(6))).sum() == 6


def test_windows_cover_every_patch_once_for_each_offset(write_slide):
    slide = open_slide(write_slide(stained_image(500, 700)))
    grid = make_grid(slide, full(slide), GridConfig(patch_size=50))
    for offset in [(0, 0), (1, 2), (3, 3)]:
        windows = grid.windows(4, offset, min_tissue=0.01)
        members = windows.index[windows.index >= 0]
        assert_array_equal(np.sort(members), np.arange(len(grid)))
        rows = grid.lattice[windows.index[windows.index >= 0], 0]
        assert rows.max() == grid.shape[0] - 1
        first = windows.index[np.flatnonzero((windows.index >= 0).all(axis=(1, 2)))[0]]
        corner = grid.lattice[first[0, 0]]
        assert_array_equal(corner % 4, offset)
        assert_array_equal(grid.lattice[first[2, 3]] - corner, (2, 3))


def test_windows_need_their_part_of_tissue(tissue_slide):
    slide = open_slide(tissue_slide)
    tissue = find_tissue(slide, TissueConfig(tissue_mpp=4))
    grid = make_grid(slide, tissue, GridConfig(patch_size=50))
    counts = (grid.windows(4, (0, 0), 0.5).index >= 0).sum(axis=(1, 2))
    assert counts.min() >= 8
    assert counts.min() < 16 == counts.max()


def test_a_grid_survives_its_description(tissue_slide):
    slide = open_slide(tissue_slide)
    grid = make_grid(slide, find_tissue(slide), GridConfig(patch_size=64))
    again = PatchGrid.from_description(grid.describe(), grid.xy, grid.lattice)
    assert again.fingerprint == grid.fingerprint
    with pytest.raises(GridError):
        PatchGrid.from_description({}, grid.xy, grid.lattice)
    with pytest.raises(GridError):
        PatchGrid.from_description(grid.describe(), grid.xy[1:], grid.lattice)


def test_a_slide_smaller_than_a_patch_has_a_grid_without_patches(write_slide):
    slide = open_slide(write_slide(stained_image(300, 260)))
    grid = make_grid(slide, full(slide), GridConfig(patch_size=512))
    assert grid.shape == (0, 0)
    again = PatchGrid.from_description(grid.describe(), grid.xy, grid.lattice)
    assert again.fingerprint == grid.fingerprint


def test_patches_outside_the_lattice_are_refused(write_slide):
    slide = open_slide(write_slide(stained_image(300, 260)))
    grid = make_grid(slide, full(slide), GridConfig(patch_size=64))
    for lattice in (grid.lattice - 1, grid.lattice + 1):
        with pytest.raises(GridError, match="outside the lattice"):
            PatchGrid.from_description(grid.describe(), grid.xy, lattice)
