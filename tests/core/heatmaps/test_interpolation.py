"""Smooth rasters, pixel by pixel against the definition."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mcm.core.heatmaps.interpolation import SmoothRaster


def by_definition(raster: np.ndarray, factor: int) -> np.ndarray:
    """Bilinear weights of all patches with a value, scaled to a sum of 1."""
    rows, columns = raster.shape
    picture = np.full((rows * factor, columns * factor), np.nan)
    for i, j in np.ndindex(picture.shape):
        if np.isnan(raster[i // factor, j // factor]):
            continue
        y, x = (i + 0.5) / factor - 0.5, (j + 0.5) / factor - 0.5
        total = weights = 0.0
        for (row, column), value in np.ndenumerate(raster):
            weight = max(1 - abs(y - row), 0) * max(1 - abs(x - column), 0)
            if weight and not np.isnan(value):
                total, weights = total + weight * value, weights + weight
        picture[i, j] = total / weights
    return picture


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_each_pixel_is_the_weighted_mean_of_its_neighbours(factor: int) -> None:
    rng = np.random.default_rng(factor)
    raster = rng.random((6, 5)).astype(np.float32)
    raster[rng.random((6, 5)) < 0.3] = np.nan
    smooth = SmoothRaster(np.isfinite(raster), factor)
    expected = by_definition(raster, factor)
    np.testing.assert_allclose(smooth.enlarge(raster), expected, atol=1e-6)
    # Values of another query on the same patches.
    np.testing.assert_allclose(smooth.enlarge(2 * raster), 2 * expected, atol=1e-6)


def test_nothing_bleeds_over_the_border_of_the_tissue() -> None:
    raster = np.full((9, 9), np.nan, np.float32)
    raster[2:6, 3:8] = 0.25
    picture = SmoothRaster(np.isfinite(raster), 4).enlarge(raster)
    inside = np.kron(np.isfinite(raster), np.ones((4, 4))) > 0
    # Up to the last pixel: neither does it fade at the border, nor cross it.
    np.testing.assert_allclose(picture[inside], 0.25, atol=1e-6)
    assert np.isnan(picture[~inside]).all()
