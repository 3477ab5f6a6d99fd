"""Similarities against cosines worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.heatmaps import SimilarityIndex, similarity


def test_cosines_are_those_of_the_angles(features: FeatureSet) -> None:
    heatmap = similarity(features, 0)
    expected = np.cos(features.grid.lattice[:, 1] * np.pi / 5)
    expected[7] = np.nan
    np.testing.assert_allclose(heatmap.values, expected, atol=1e-6)
    assert heatmap.values.dtype == np.float32
    assert heatmap.limits == (-1.0, 1.0)
    assert heatmap.query == 0
    assert heatmap.title == "cosine similarity to patch 0"


def test_the_raster_stands_as_the_slide_does(features: FeatureSet) -> None:
    raster = similarity(features, 0).raster
    assert raster.shape == (4, 6)
    assert np.isnan(raster[0]).all()  # the slide's upper edge has no tissue
    assert raster[1, 0] == pytest.approx(1)
    assert raster[1, 5] == pytest.approx(-1)
    assert np.isnan(raster[2, 1])  # patch 7 could not be read


def test_features_are_not_changed(features: FeatureSet) -> None:
    before = features.features.copy()
    SimilarityIndex(features).query(3)
    np.testing.assert_array_equal(features.features, before)


def test_several_queries_count_by_their_mean_direction(features: FeatureSet) -> None:
    values = SimilarityIndex(features).query([0, 2])  # 0 and 72 degrees: mean at 36
    assert values[1] == pytest.approx(1, abs=1e-6)
    assert values[0] == pytest.approx(np.cos(np.pi / 5), abs=1e-6)


def test_patches_to_be_unlike_turn_the_query_away(features: FeatureSet) -> None:
    plain, away = similarity(features, 0), similarity(features, 0, against=2)
    assert away.values[2] < plain.values[2]
    assert away.values[0] == pytest.approx(np.cos(np.deg2rad(54)), abs=1e-6)
    assert away.title == "cosine similarity to patch 0, away from patch 2"


@pytest.mark.parametrize(
    ("query", "against", "message"),
    [
        (7, (), "patch 7 has no features"),
        (18, (), "patch 18 of 18"),
        (-1, (), "patch -1 of 18"),
        ([], (), "does not exist"),
        (0, 0, "cancel each other out"),
        ([0, 5], (), "cancel each other out"),
    ],
)
def test_impossible_queries_are_refused(
    features: FeatureSet,
    query: int | list[int],
    against: int | tuple[int, ...],
    message: str,
) -> None:
    with pytest.raises(FeatureError, match=message):
        SimilarityIndex(features).query(query, against)


def test_an_all_zero_vector_has_no_direction(features: FeatureSet) -> None:
    values = features.features.copy()
    values[4] = 0
    index = SimilarityIndex(replace(features, features=values))
    assert np.isnan(index.query(0)[4])
    with pytest.raises(FeatureError, match="patch 4"):
        index.query(4)


def test_robust_limits_leave_the_query_out(features: FeatureSet) -> None:
    heatmap = similarity(features, 0, limits="robust")
    others = np.delete(heatmap.values, 0)
    expected = np.nanpercentile(others, [2, 98])
    np.testing.assert_allclose(heatmap.limits, expected, rtol=1e-6)


def test_limits_of_an_encoder_are_those_of_all_its_maps(features: FeatureSet) -> None:
    low, high = similarity(features, 0, limits="encoder").limits
    assert similarity(features, 3, limits="encoder").limits == (low, high)
    every = [np.delete(similarity(features, n).values, n) for n in range(18) if n != 7]
    assert low <= np.nanpercentile(np.concatenate(every), 2)
    assert high >= np.nanpercentile(np.concatenate(every), 98)


def test_robust_limits_of_equal_values_still_have_a_range(features: FeatureSet) -> None:
    same = replace(features, features=np.ones_like(features.features))
    low, high = similarity(same, 0, limits="robust").limits
    assert low < high


def test_a_hundred_thousand_patches_are_compared_exactly() -> None:
    side, dim = 320, 768
    lattice = np.indices((side, side)).reshape(2, -1).T.astype(np.int32)
    identity = {"name": "big", "fingerprint": "0", "size": [9, 9], "mpp": [0.5, 0.5]}
    grid = PatchGrid(
        lattice[:, ::-1].astype(np.int64) * 224,
        lattice,
        224,
        0.5,
        (224.0, 224.0),
        (0.0, 0.0),
        (side, side),
        identity,
    )
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((side * side, dim), dtype=np.float32)
    status = np.zeros(side * side, np.uint8)
    index = SimilarityIndex(FeatureSet(vectors, grid, status, {}))
    found = index.query(5)
    exact = vectors[::1000].astype(float) @ vectors[5].astype(float)
    exact /= np.linalg.norm(vectors[::1000].astype(float), axis=1)
    exact /= np.linalg.norm(vectors[5].astype(float))
    np.testing.assert_allclose(found[::1000], exact, atol=1e-5)


def test_the_nearest_of_several_counts_where_that_is_asked(
    features: FeatureSet,
) -> None:
    index = SimilarityIndex(features)
    values = index.query([0, 5], pool="max")  # 0 and 180 degrees would cancel out
    angles = features.grid.lattice[:, 1] * np.pi / 5
    expected = np.maximum(np.cos(angles), np.cos(angles - np.pi))
    expected[7] = np.nan
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_order_is_that_of_mean_cosines_less_mean_cosines() -> None:
    rng = np.random.default_rng(0)
    lattice = np.stack([np.arange(40), np.zeros(40, int)], axis=1).astype(np.int32)
    identity = {"name": "s", "fingerprint": "0", "size": [9, 9], "mpp": [0.5, 0.5]}
    xy = lattice[:, ::-1].astype(np.int64) * 32
    grid = PatchGrid(xy, lattice, 32, 0.5, (32.0, 32.0), (0.0, 0.0), (40, 1), identity)
    vectors = rng.standard_normal((40, 12), np.float32)
    index = SimilarityIndex(FeatureSet(vectors, grid, np.zeros(40, np.uint8), {}))
    like, unlike = [1, 2, 3], [10, 11]
    of_each = [index.query(patch) for patch in range(40)]
    plain = np.mean([of_each[i] for i in like], 0)
    plain -= np.mean([of_each[i] for i in unlike], 0)
    values = index.query(like, unlike)
    assert np.argsort(values).tolist() == np.argsort(plain).tolist()
    assert np.ptp(values / plain) < 1e-4


def test_a_query_can_be_asked_of_another_slide(features: FeatureSet) -> None:
    directions = SimilarityIndex(features).directions(1)
    turned = replace(features, features=features.features[::-1].copy())
    turned = replace(turned, status=features.status[::-1].copy())
    values = SimilarityIndex(turned).compare(directions)
    expected = SimilarityIndex(features).query(1)[::-1]
    np.testing.assert_allclose(values, expected, atol=1e-6)
    with pytest.raises(FeatureError, match="a query of 3 values"):
        SimilarityIndex(features).compare(np.ones((1, 3), np.float32))
