"""Areas, best patches and differences of maps, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_mcm.core.errors import GridError
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.heatmaps import difference, similarity
from napari_mcm.core.heatmaps.heatmap import DIFFERENCE


def test_area_counts_the_patches_that_are_alike_enough(features: FeatureSet) -> None:
    heatmap = similarity(features, 0)
    # Columns 0 and 1 have cosines 1 and 0.81; one of their six was not readable.
    assert heatmap.count_above(0.8) == 5
    patch_mm2 = (32 * 0.5 / 1000) ** 2
    assert heatmap.area_mm2(0.8) == pytest.approx(5 * patch_mm2)
    shown = np.isfinite(heatmap.above(0.8).values)
    assert set(features.grid.lattice[shown, 1]) == {0, 1}
    assert heatmap.area_mm2(-1) == pytest.approx(17 * patch_mm2)


def test_the_best_are_those_of_greatest_value(features: FeatureSet) -> None:
    heatmap = similarity(features, 0)
    best = heatmap.best(3, besides=[0])
    assert features.grid.lattice[best, 1].tolist() == [0, 0, 1]
    assert 0 not in best
    assert len(heatmap.best(100)) == 17  # all that have features
    values = heatmap.values[heatmap.best(100)]
    assert (np.diff(values) <= 0).all()


def test_a_difference_is_after_less_before(features: FeatureSet) -> None:
    before, after = similarity(features, 0), similarity(features, 5)
    heatmap = difference(before, after)
    np.testing.assert_allclose(heatmap.values, after.values - before.values)
    assert heatmap.limits == (-DIFFERENCE, DIFFERENCE)
    assert heatmap.colormap != before.colormap


def test_a_difference_needs_the_same_patches(features: FeatureSet) -> None:
    before = similarity(features, 0)
    moved = replace(features.grid, xy=features.grid.xy + 1)
    with pytest.raises(GridError, match="different patches"):
        difference(before, replace(before, grid=moved))
    # The same patches, read from another file.
    again = replace(features.grid, xy=features.grid.xy.copy())
    assert np.nanmax(difference(before, replace(before, grid=again)).values) == 0
