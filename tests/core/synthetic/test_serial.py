"""Serial sections: the same structures, elsewhere on the slide, and the truth of where."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.synthetic import Cohort, SampleConfig, generate_cohort
from napari_mcm.core.synthetic.cells import mix_palette
from napari_mcm.core.synthetic.cohort import plan_sample, prepare_sample, section_map
from napari_mcm.core.synthetic.serial import SectionMap, draw_section_map

CONFIG = SampleConfig(slides=2, size=1400, seed=5, serial=True)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return run(generate_cohort(tmp_path_factory.mktemp("serial"), CONFIG))


def some_points(extent: float, count: int = 500) -> NDArray[np.float64]:
    return np.random.default_rng(1).uniform(0, extent, (count, 2))


@pytest.mark.parametrize("extent", [350.0, 1000.0, 10_000.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_map_can_be_inverted(extent: float, seed: int) -> None:
    section = draw_section_map(extent, np.random.default_rng(seed))
    points = some_points(extent)
    there = section.map_um(points)
    assert np.abs(section.unmap_um(there) - points).max() < 1e-3
    # Turned, shifted and stretched: nowhere torn, and nowhere far away.
    assert 1 < np.abs(there - points).max() < 0.25 * extent + 120
    step = section.map_um(points + [0.1, 0]) - there
    assert np.abs(np.hypot(*step.T) / 0.1 - 1).max() < 0.5


def test_without_waves_it_is_a_rotation_about_the_centre_and_a_shift() -> None:
    none = np.empty((0, 2))
    section = SectionMap(math.pi / 2, (3.0, -4.0), 100.0, none, none, np.empty(0))
    # From x towards y: what lies right of the centre comes to lie below it.
    there = section.map_um(np.array([[100.0, 100.0], [110.0, 100.0]]))
    np.testing.assert_allclose(there, [[103.0, 96.0], [103.0, 106.0]], atol=1e-9)


def test_the_first_section_is_the_slide_without_serial(
    cohort: Cohort, tmp_path: Path
) -> None:
    plain = CONFIG.model_copy(update={"serial": False})
    slides = run(generate_cohort(tmp_path, plain)).slides
    first, second = (tifffile.imread(path) for path in cohort.slides)
    np.testing.assert_array_equal(first, tifffile.imread(slides[0]))
    assert (second != tifffile.imread(slides[1])).mean() > 0.2


def test_the_truth_is_the_map_and_names_both_slides(cohort: Cohort) -> None:
    (path,) = cohort.truths
    truth = json.loads(path.read_text(encoding="utf-8"))
    assert path.name == "slide_00_to_01.json"
    assert [truth["first"], truth["second"]] == [p.name for p in cohort.slides]
    points = np.array(truth["points"])
    assert points[:, :2].min() >= 0 and points[:, :2].max() <= 700
    there = section_map(CONFIG, 1).map_um(points[:, :2])
    np.testing.assert_allclose(points[:, 2:], there, atol=1e-3)


def grey(path: Path) -> NDArray[np.float64]:
    """A slide at 4 µm per pixel, blurred: structures, not nuclei."""
    image = tifffile.imread(path).astype(float).mean(axis=2)
    small = image.reshape(175, 8, 175, 8).mean(axis=(1, 3))
    return ndimage.gaussian_filter(small, 2)


def test_the_pixels_follow_the_truth(cohort: Cohort) -> None:
    first, second = (grey(path) for path in cohort.slides)
    centres = (np.stack(np.meshgrid(*[np.arange(175)] * 2), -1) + 0.5) * 4.0
    there = section_map(CONFIG, 1).map_um(centres.reshape(-1, 2)) / 4 - 0.5

    def likeness(x: int, y: int) -> float:
        at = (there + [x, y])[:, ::-1].T
        seen = ndimage.map_coordinates(second, at, order=1, cval=243)
        return float(np.corrcoef(first.ravel(), seen)[0, 1])

    # No place 12 µm beside the true one is as similar.
    beside = [(x, y) for x in (-3, 0, 3) for y in (-3, 0, 3) if x or y]
    assert likeness(0, 0) > max(likeness(*shift) for shift in beside) + 0.01
    assert likeness(0, 0) > 0.8


def test_nuclei_and_stain_are_the_sections_own() -> None:
    palette = mix_palette(CONFIG.mpp, np.random.default_rng(0))
    first, second = (prepare_sample(CONFIG, index, palette) for index in (0, 1))
    assert first.stain != second.stain
    section = section_map(CONFIG, 1)
    cells = [
        np.stack([c.x, c.y], axis=1) * CONFIG.mpp
        for c in (first.cells["spindle"], second.cells["spindle"])
    ]
    moved = section.map_um(cells[0])
    near = np.hypot(*(moved[:, None] - cells[1]).transpose(2, 0, 1)).min(axis=1)
    # As far as chance has it for independent points of this density, not on top.
    assert np.median(near) > 2
    assert 0.8 < len(cells[1]) / len(cells[0]) < 1.25


def test_compartments_keep_their_area() -> None:
    first, second = (plan_sample(CONFIG, index) for index in (0, 1))
    for name in ("tissue", "tumour", "ducts", "lobules"):
        areas = [(getattr(plan, name) > 0).sum() for plan in (first, second)]
        assert areas[1] == pytest.approx(areas[0], rel=0.12), name
    assert second.pen is None


def test_every_second_slide_is_cut_from_the_one_before(tmp_path: Path) -> None:
    config = SampleConfig(slides=5, size=512, serial=True)
    truths = run(generate_cohort(tmp_path, config)).truths
    assert [p.name for p in truths] == ["slide_00_to_01.json", "slide_02_to_03.json"]
