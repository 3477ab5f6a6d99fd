"""Features of patches that lie half a patch from others."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mcm.core.encoders import ComputeConfig, load_encoder
from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import FeatureSet, Status
from napari_mcm.core.features.half_steps import (
    SHIFTS,
    Detail,
    extract_half_steps,
    merge,
    paint_detail,
    part_of,
    shifted_grid,
    within,
)
from napari_mcm.core.grid import GridConfig, make_grid
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import TissueMask
from tests.core.conftest import stained_image

COMPUTE = ComputeConfig(device="cpu", precision="float32")


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("random:test_resnet", COMPUTE)


@pytest.fixture
def slide(write_slide):
    with open_slide(write_slide(stained_image(500, 420, 1), "one.ome.tif")) as opened:
        yield opened


@pytest.fixture
def coarse(slide, encoder):
    """Features of patches of 48 px, some of them without features."""
    tissue = np.ones((42, 50), bool)
    tissue[10:20, 15:30] = False
    mask = TissueMask(tissue, (10.0, 10.0), "drawn")
    grid = make_grid(slide, mask, GridConfig(patch_size=48, mpp=slide.mpp[0]))
    status = np.zeros(len(grid), np.uint8)
    status[7] = Status.BLANK
    features = np.random.default_rng(0).random((len(grid), encoder.dim), np.float32)
    features[7] = np.nan
    return FeatureSet(features, grid, status, encoder.describe())


@pytest.mark.parametrize("shift", SHIFTS)
def test_shifted_patches_lie_between_patches_with_features(coarse, shift):
    grid, there = coarse.grid, coarse.grid.xy[coarse.ok]
    made = shifted_grid(coarse, shift)
    size = grid.patch_size_level0[0]
    expected = set()
    for row, column in np.ndindex(grid.shape):
        corner = np.rint((np.asarray((column, row)) + np.asarray(shift) / 2) * size)
        # By pixels: a patch is kept if it lies wholly on patches with features.
        over = [
            np.prod(np.clip(size - np.abs(corner - other), 0, None)) for other in there
        ]
        if sum(over) > 0.999 * size**2:
            expected.add(tuple(corner.astype(int)))
    assert {tuple(corner) for corner in made.xy.tolist()} == expected
    assert made.fingerprint != grid.fingerprint
    for i in (0, len(made) - 1):
        x, y = made.centres[i]
        assert made.index_at(x, y) == i


def test_features_are_those_of_the_pixels_there(slide, coarse, encoder):
    grids = {s: shifted_grid(coarse, s) for s in SHIFTS}
    made = run(extract_half_steps(slide, grids, encoder, coarse))
    assert made.keys() == grids.keys()
    for shift, features in made.items():
        assert features.grid is grids[shift] and features.ok.all()
        assert features.encoder["fingerprint"] == encoder.fingerprint
        for row in (0, len(features) // 2):
            x, y = features.grid.xy[row]
            pixels = slide.read_level(0, int(x), int(y), 48, 48)
            expected = encoder.encode(pixels[None])[0]
            np.testing.assert_allclose(features.features[row], expected, atol=1e-4)


def test_another_encoder_is_refused(slide, coarse, encoder):
    grids = {(1, 1): shifted_grid(coarse, (1, 1))}
    other = load_encoder("random:test_resnet", COMPUTE, random_weights_seed=1)
    with pytest.raises(FeatureError, match="another weights"):
        run(extract_half_steps(slide, grids, other, coarse))


def test_it_stops_after_any_batch(slide, coarse, encoder):
    grids = {s: shifted_grid(coarse, s) for s in SHIFTS}
    job = extract_half_steps(slide, grids, encoder, coarse)
    done = [next(job).done, next(job).done, next(job).done]
    assert 0 == done[0] < done[1] < done[2] < sum(map(len, grids.values()))
    job.close()


def test_parts_make_the_same_as_the_whole(slide, coarse, encoder):
    whole = shifted_grid(coarse, (1, 0))
    first = within(whole, (0, 0, 200, 150))
    assert 0 < first.sum() < len(whole)
    centres = whole.centres[first]
    assert (centres <= (200, 150)).all() and (centres >= 0).all()
    assert within(whole, (0, 0, 200, 150), 1).sum() > first.sum()

    def extract(grid):
        return run(extract_half_steps(slide, {(1, 0): grid}, encoder, coarse))[1, 0]

    merged = merge([extract(part_of(whole, ~first)), extract(part_of(whole, first))])
    np.testing.assert_array_equal(merged.grid.xy, whole.xy)
    np.testing.assert_array_equal(merged.grid.lattice, whole.lattice)
    np.testing.assert_allclose(merged.features, extract(whole).features, atol=1e-5)


def test_a_value_is_painted_around_its_centre(coarse):
    """Each quarter of a patch takes the nearest centre, at whole or half steps."""
    rng, grid = np.random.default_rng(1), coarse.grid
    values = rng.random(len(grid), np.float32)
    values[~coarse.ok] = np.nan
    size = np.asarray(grid.patch_size_level0)
    centres, known, details = [grid.centres], [values], {}
    for shift in SHIFTS:
        shifted = shifted_grid(coarse, shift)
        details[shift] = Detail(shifted.lattice, rng.random(len(shifted), np.float32))
        centres.append((shifted.lattice[:, ::-1] + np.asarray(shift) / 2 + 0.5) * size)
        known.append(details[shift].values)
    picture = paint_detail(grid.raster(values), details)
    assert picture.shape == (4 * grid.shape[0], 4 * grid.shape[1])
    places, values = np.concatenate(centres), np.concatenate(known)
    inside = np.kron(np.isfinite(grid.raster(known[0])), np.ones((4, 4))) > 0
    np.testing.assert_array_equal(np.isfinite(picture), inside)
    for row, column in np.argwhere(inside)[::7]:
        at = (np.asarray((column, row)) + 0.5) / 4 * size
        away = np.abs(places - at).max(axis=1)
        # Within a quarter of a patch there is one; at the border the patch counts.
        if away.min() < size[0] / 4:
            assert picture[row, column] == values[away.argmin()]
