"""Areas count each piece of tissue once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_mcm.core.heatmaps import Heatmap
from napari_mcm.core.labelling import UNSURE_LABEL, class_areas, total_areas
from napari_mcm.core.lattice import patch_areas_mm2
from tests.core.labelling.made_labels import MPP, STEP, make_grid

CELL = (STEP * MPP / 1000) ** 2


def test_areas_of_classes_and_the_unsure_add_up_to_the_tissue() -> None:
    grid = make_grid(rows=2, columns=5)
    decided = np.array([0, 0, 0, 1, -1, -1, -2, 1, 1, 1])
    probabilities = np.full((10, 2), 0.5, np.float32)
    probabilities[:3] = (0.9, 0.1)
    probabilities[6] = np.nan
    found = class_areas(grid, decided, probabilities, ["a", "b"])
    assert [one.label for one in found] == ["a", "b", UNSURE_LABEL]
    assert [one.patches for one in found] == [3, 4, 2]
    np.testing.assert_allclose([one.mm2 / CELL for one in found], [3, 4, 2])
    # The patch without features is no tissue that was measured.
    np.testing.assert_allclose([one.share for one in found], [3 / 9, 4 / 9, 2 / 9])
    np.testing.assert_allclose([one.probability for one in found], [0.9, 0.5, 0.5])


def test_patches_that_share_a_cell_share_its_area() -> None:
    grid = make_grid(rows=1, columns=3)
    lattice = grid.lattice.copy()
    lattice[1] = lattice[0]
    grid = replace(grid, lattice=lattice)
    np.testing.assert_allclose(patch_areas_mm2(grid) / CELL, [0.5, 0.5, 1])
    # Where one of them has no features, the other stands for the whole cell.
    only = np.array([True, False, True])
    np.testing.assert_allclose(patch_areas_mm2(grid, only) / CELL, [1, 0, 1])
    values = np.array([1, np.nan, 1], np.float32)
    assert Heatmap(values, grid, (0, 1), "").area_mm2(0.5) == pytest.approx(2 * CELL)


def test_what_lies_beyond_the_slide_does_not_count() -> None:
    grid = make_grid(rows=2, columns=2)
    slide = {**grid.slide, "size": [150, 200]}
    grid = replace(grid, slide=slide)
    np.testing.assert_allclose(patch_areas_mm2(grid) / CELL, [1, 0.5, 1, 0.5])


def test_a_project_adds_up_its_slides() -> None:
    grid = make_grid(rows=1, columns=4)
    p = np.full((4, 2), 0.7, np.float32)
    one = class_areas(grid, np.array([0, 0, 0, -1]), p, ["a", "b"])
    two = class_areas(grid, np.array([1, -2, -2, -2]), p, ["a", "b"])
    total = {area.label: area for area in total_areas([one, two])}
    assert total["a"].share == pytest.approx(3 / 5)
    assert total["b"].mm2 == pytest.approx(CELL)
    assert total["b"].patches == 1
    assert total[UNSURE_LABEL].probability == pytest.approx(0.7)
    assert np.isnan(class_areas(grid, np.zeros(4, int) - 2, p, ["a"])[0].probability)
