"""Features of a neighbourhood are means over the connected tissue in a square in µm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from napari_mcm.core.encoders import ComputeConfig, load_encoder
from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features import FeatureSet, Status, extract, read_features
from napari_mcm.core.features.neighbourhood import (
    NeighbourhoodConfig,
    average_neighbourhood,
    context_mark,
    neighbour_weights,
)
from napari_mcm.core.grid import GridConfig, make_grid
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import TissueConfig, find_tissue
from tests.core.features.made_features import SIDE, made_features, made_grid


def of_lattice(places, dim=4, seed=0, step=SIDE, side=SIDE) -> FeatureSet:
    """Random features of patches at rows and columns that lie `step` pixels apart."""
    lattice = np.asarray(places, np.int32)
    shape = tuple(int(n) + 1 for n in lattice.max(axis=0))
    grid = replace(
        made_grid(*shape),
        xy=lattice[:, ::-1].astype(np.int64) * step,
        lattice=lattice,
        patch_size_level0=(float(step), float(step)),
        patch_size=step,
    )
    features = np.random.default_rng(seed).normal(size=(len(grid), dim))
    told = {} if side == step else {"imported": {"patch_size_level0": [side, side]}}
    status = np.zeros(len(grid), np.uint8)
    return FeatureSet(features.astype(np.float32), grid, status, {}, told)


def brute_force(features: FeatureSet, config: NeighbourhoodConfig, side=SIDE):
    """Walk from patch to touching patch within the square; one patch at a time."""
    centres = features.grid.centres
    means = np.full((len(features), features.dim), np.nan)
    for own, centre in enumerate(centres):
        if not features.ok[own]:
            continue
        far = np.abs(centres - centre).max(axis=1)
        inside = set(np.flatnonzero(far <= config.radius * side + 1e-6).tolist())
        reached, waiting = {own}, [own]
        while waiting:
            at = centres[waiting.pop()]
            for other in inside - reached:
                if np.abs(centres[other] - at).max() <= side + 1e-6:
                    reached.add(other)
                    waiting.append(other)
        used = [i for i in sorted(reached) if features.ok[i]]
        weights = np.ones(len(used))
        if config.weights == "distance":
            away = np.linalg.norm(centres[used] - centre, axis=1) / side
            weights = 1 / (1 + away)
        values = features.features[used].astype(np.float64)
        means[own] = np.average(values, axis=0, weights=weights)
    return means


def ragged(seed=3, rows=14, columns=12, kept=0.55):
    """Places with holes, islands and borders."""
    places = np.indices((rows, columns)).reshape(2, -1).T
    rng = np.random.default_rng(seed)
    return places[rng.random(len(places)) < kept]


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("radius", [1, 2, 3])
def test_means_are_those_of_a_walk_over_touching_patches(radius, weights):
    sets = of_lattice(ragged())
    status = sets.status.copy()
    status[::9] = Status.DECODE_ERROR
    features = np.where(status[:, None] == 0, sets.features, np.float32(np.nan))
    sets = replace(sets, features=features, status=status)
    config = NeighbourhoodConfig(radius=radius, weights=weights)
    averaged = average_neighbourhood(sets, config)
    assert averaged.features.dtype == np.float32
    assert_allclose(averaged.features, brute_force(sets, config), atol=1e-6)
    assert averaged.neighbourhood == config
    assert averaged.grid is sets.grid and averaged.status is sets.status
    # The weights are those of the mean: rows of patches with features sum to 1.
    matrix = neighbour_weights(sets, config)
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    assert_allclose(sums, sets.ok, atol=1e-6)
    known = np.where(sets.ok[:, None], sets.features, 0)
    assert_allclose((matrix @ known)[sets.ok], averaged.features[sets.ok], atol=1e-6)


def test_radius_1_is_the_plain_mean_of_the_patches_around():
    sets = made_features(rows=9, columns=7)
    averaged = average_neighbourhood(sets, NeighbourhoodConfig(radius=1))
    picture = np.full((9, 7, sets.dim), np.nan)
    picture[tuple(sets.grid.lattice.T)] = sets.features
    for (row, column), ok, found in zip(
        sets.grid.lattice, sets.ok, averaged.features, strict=True
    ):
        around = picture[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        expected = np.nanmean(around, axis=(0, 1)) if ok else np.full(sets.dim, np.nan)
        assert_allclose(found, expected, atol=1e-6)
    assert averaged.quality is sets.quality


def test_a_gap_of_tissue_is_not_crossed_even_inside_the_square():
    # Two strips with an empty column between them; below, a bridge at row 4.
    strips = [(row, column) for row in range(5) for column in (0, 2)]
    sets = of_lattice([*strips, (4, 1)])
    sets = replace(sets, features=sets.grid.lattice[:, 1:].astype(np.float32))
    means = average_neighbourhood(sets, NeighbourhoodConfig(radius=2)).features
    at = {tuple(place): mean for place, mean in zip(strips, means[:, 0], strict=False)}
    # From row 0 the square reaches row 2: the bridge lies outside.
    assert at[0, 0] == 0 and at[0, 2] == 2
    # From row 2 it holds the bridge, and so the whole other strip.
    assert at[2, 0] == pytest.approx((5 * 2 + 1) / 11)
    assert at[2, 2] == pytest.approx((5 * 2 + 1) / 11)


@pytest.mark.parametrize("radius", [1, 2])
def test_overlapping_patches_average_over_the_same_square(radius):
    half = SIDE // 2
    places = np.indices((16, 14)).reshape(2, -1).T
    kept = places[np.random.default_rng(1).random(len(places)) < 0.6]
    sets = of_lattice(kept, step=half, side=SIDE)
    config = NeighbourhoodConfig(radius=radius)
    averaged = average_neighbourhood(sets, config)
    assert_allclose(averaged.features, brute_force(sets, config), atol=1e-6)
    # The middle of full tissue: 2·(2·radius) + 1 half steps along each side.
    full = of_lattice(places, step=half, side=SIDE)
    middle = np.flatnonzero((full.grid.lattice == (8, 7)).all(axis=1))[0]
    row = neighbour_weights(full, config)[[middle]]
    assert row.nnz == (4 * radius + 1) ** 2
    around = full.grid.centres[row.indices] - full.grid.centres[middle]
    assert np.abs(around).max() == radius * SIDE


def test_patches_that_share_a_cell_are_averaged_too():
    sets = of_lattice([(0, 0), (0, 0), (0, 1), (3, 0)], dim=1)
    sets = replace(sets, features=np.array([[1], [2], [6], [50]], np.float32))
    averaged = average_neighbourhood(sets, NeighbourhoodConfig(radius=1))
    assert_allclose(averaged.features[:, 0], [3, 3, 3, 50])
    alone = neighbour_weights(sets, NeighbourhoodConfig())
    assert_array_equal(alone.toarray(), np.eye(4))


def test_rows_that_are_not_finite_are_missing_whatever_their_status():
    sets = of_lattice([(0, 0), (0, 1), (0, 2)], dim=2)
    features = sets.features.copy()
    features[1, 0] = np.inf
    sets = replace(sets, features=features)
    averaged = average_neighbourhood(sets, NeighbourhoodConfig(radius=3))
    assert_allclose(
        averaged.features[[0, 2]], features[[0, 2]].mean(0)[None].repeat(2, 0)
    )
    assert np.isnan(averaged.features[1]).all()


def test_no_patches_have_no_neighbours():
    grid = replace(
        made_grid(), xy=np.empty((0, 2), np.int64), lattice=np.empty((0, 2), np.int32)
    )
    empty = FeatureSet(np.empty((0, 3), np.float32), grid, np.empty(0, np.uint8), {})
    averaged = average_neighbourhood(empty, NeighbourhoodConfig(radius=1))
    assert averaged.features.shape == (0, 3)


def test_averages_say_what_they_are_and_are_not_averaged_again():
    sets = made_features()
    assert average_neighbourhood(sets, NeighbourhoodConfig()) is sets
    assert context_mark(sets) == ""
    marks = set()
    for radius in (1, 2, 3):
        for weights in ("uniform", "distance"):
            config = NeighbourhoodConfig(radius=radius, weights=weights)
            averaged = average_neighbourhood(sets, config)
            marks.add(context_mark(averaged))
            with pytest.raises(FeatureError, match="averages over"):
                average_neighbourhood(averaged, NeighbourhoodConfig(radius=1))
    assert len(marks) == 6 and "" not in marks
    described = [NeighbourhoodConfig(radius=r).describe() for r in range(4)]
    assert described == ["patch", "3 × 3", "5 × 5", "7 × 7"]
    weighted = NeighbourhoodConfig(radius=2, weights="distance")
    assert weighted.describe() == "5 × 5, distance-weighted"


def test_real_features_are_averaged_over_the_patches_around(shared_data, tmp_path):
    """On real tissue with real weights, against the stored rows themselves."""
    compute = ComputeConfig(device="cpu", precision="float32")
    path = shared_data / "slides/cmu1/CMU-1-Small-Region.svs"
    with open_slide(path) as slide:
        tissue = find_tissue(slide, TissueConfig())
        grid = make_grid(slide, tissue, GridConfig(patch_size=112, mpp=1.0))
        encoder = load_encoder("offline:efficientnet_lite0", compute)
        run(extract(slide, grid, encoder, tmp_path / "cmu.features.zarr"))
    stored = read_features(tmp_path / "cmu.features.zarr")
    assert len(stored) > 40
    averaged = average_neighbourhood(stored, NeighbourhoodConfig(radius=1))
    centres = stored.grid.centres * np.asarray(stored.grid.slide["mpp"])
    for own, centre in enumerate(centres):
        near = np.abs(centres - centre).max(axis=1) < 1.4 * stored.grid.patch_um
        expected = stored.features[near].astype(np.float64).mean(axis=0)
        assert_allclose(averaged.features[own], expected, rtol=1e-5, atol=1e-6)
