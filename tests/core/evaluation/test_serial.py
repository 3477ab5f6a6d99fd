"""The click test, on features and maps whose ranks can be worked out by hand."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from scipy.stats import binom

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.evaluation.serial import (
    NEAR,
    WIDE,
    ClickTest,
    SerialConfig,
    choose_places,
    click_test,
)
from napari_mcm.core.evaluation.serial_result import (
    compare_clicks,
    median_interval,
)
from napari_mcm.core.evaluation.squares import mean_over_squares
from napari_mcm.core.features.feature_set import (
    FeatureSet,
    NeighbourhoodConfig,
    Status,
)
from napari_mcm.core.registration import Registration, Residual
from napari_mcm.core.studies.study_clicks import compare_clicks as compare_in_study
from napari_mcm.core.studies.study_serial import PairClicks
from tests.core.evaluation.conftest import make_grid

ROWS, COLUMNS, STEP = 12, 15, 100


def shifted(x: float = 0, y: float = 0) -> Registration:
    affine = np.array([[1, 0, x], [0, 1, y]], float)
    return Registration(
        affine,
        np.zeros((2, 2, 2), np.float32),
        (800.0, 600.0),
        1.0,
        1.0,
        Residual(1.0, 2.0, 10, 1.0, 1.0),
        {"name": "one", "fingerprint": "one"},
        {"name": "two", "fingerprint": "two"},
        {},
    )


def features(name: str, values: np.ndarray, damaged=()) -> FeatureSet:
    grid = make_grid(name, ROWS, COLUMNS)
    status = np.zeros(len(grid), np.uint8)
    values = values.astype(np.float32).copy()
    for row in damaged:
        status[row], values[row] = Status.BLANK, np.nan
    return FeatureSet(values, grid, status, {"name": "test"})


@pytest.fixture
def pair() -> tuple[FeatureSet, FeatureSet]:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(ROWS * COLUMNS, 6))
    noisy = base + rng.normal(0, 0.8, base.shape)
    return features("one", base), features("two", noisy, damaged=(17, 40))


def test_ranks_are_those_of_a_loop_over_queries(pair):
    first, second = pair
    registration = shifted(30, -20)
    found = click_test(first, second, registration, SerialConfig(queries=60))
    assert len(found) == 60 and found.candidates == ROWS * COLUMNS - 2
    ok = np.flatnonzero(second.ok)
    for i, row in enumerate(found.rows):
        query = first.features[row].astype(float)
        target = second.features[ok].astype(float)
        cosine = target @ query
        cosine /= np.linalg.norm(target, axis=1) * np.linalg.norm(query)
        place = first.grid.centres[row] + (30, -20)
        distance = np.linalg.norm(second.grid.centres[ok] - place, axis=1) / STEP
        order = np.argsort(-cosine)
        for rank, within in ((found.wide, WIDE), (found.near, NEAR)):
            hit = np.flatnonzero(distance[order] <= within)[0]
            # The loop counts all patches before the first hit; none of them is at the place.
            assert rank[i] == hit + 1
        assert found.own[i] == 1 + np.flatnonzero(order == distance.argmin())[0]
        assert found.wide_count[i] == (distance <= WIDE).sum()
    assert found.recall(10) == np.mean(found.wide <= 10)


def test_the_same_tissue_is_found_and_a_tie_elsewhere_is_no_hit():
    values = np.random.default_rng(1).normal(size=(ROWS * COLUMNS, 5))
    one, two = features("one", values), features("two", values)
    perfect = click_test(one, two, shifted(), SerialConfig(queries=100))
    assert perfect.recall(1, NEAR) == 1 and perfect.median_rank == 1
    flat = features("two", np.ones_like(values))
    found = click_test(one, flat, shifted(), SerialConfig(queries=100))
    assert found.recall(10) == 0 and (found.own == ROWS * COLUMNS).all()


def test_chance_is_the_hypergeometric_one_and_what_random_features_reach(pair):
    first, second = pair
    found = click_test(first, second, shifted(), SerialConfig(queries=100))
    total = found.candidates
    for k, within in ((1, WIDE), (10, WIDE), (10, NEAR)):
        counts = found.wide_count if within == WIDE else found.near_count
        truth = np.mean([1 - comb(total - int(t), k) / comb(total, k) for t in counts])
        assert found.chance(k, within) == pytest.approx(truth, rel=1e-9)
    hits = []
    for seed in range(60):
        noise = np.random.default_rng(seed).normal(size=second.features.shape)
        other = features("two", noise, damaged=(17, 40))
        hits.append(
            click_test(first, other, shifted(), SerialConfig(queries=100)).recall(10)
        )
    assert np.mean(hits) == pytest.approx(found.chance(10), abs=0.03)


def test_queries_without_a_place_are_counted_and_left_out(pair):
    first, second = pair
    # Five columns of the first section have no counterpart.
    places = choose_places(first, second, shifted(500, 0), SerialConfig(queries=1000))
    columns = first.grid.lattice[places.rows, 1]
    assert columns.max() == COLUMNS - 6
    # One damaged patch (row 40, column 10) is asked for; row 17 lies in column 2.
    assert len(places) == ROWS * (COLUMNS - 5) - 1
    assert places.left_out <= ROWS * 5 + 1
    with pytest.raises(FeatureError, match="has a place on tissue"):
        choose_places(first, second, shifted(1e5, 0))
    few = np.array([3, 30, 60])
    assert set(choose_places(first, second, shifted(), rows=few).rows) == set(few)


def test_features_that_cannot_be_compared_are_refused(pair):
    first, second = pair
    other = features("two", np.ones((ROWS * COLUMNS, 3)))
    with pytest.raises(FeatureError, match="dimensions"):
        click_test(first, other, shifted())


def test_a_test_survives_json(pair):
    found = click_test(*pair, shifted(), SerialConfig(queries=50))
    again = ClickTest.from_json(found.to_json())
    np.testing.assert_array_equal(again.near, found.near)
    assert again.recall(1) == found.recall(1) and again.chance(10) == found.chance(10)
    with pytest.raises(FeatureError, match="incomplete"):
        ClickTest.from_json({"rows": [1]})


@pytest.mark.parametrize("squares", [4, 8, 30])
def test_intervals_of_means_cover_what_they_say_with_few_squares(squares):
    # Queries of one square share most of their value.
    block = np.repeat(np.arange(squares), 10)
    places = np.stack([1000.0 * block + 500, np.full(len(block), 99.0)], axis=1)
    covered = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=squares)[block] + 0.3 * rng.normal(size=len(block))
        one = np.zeros(len(block), np.int64)
        _, low, high = mean_over_squares(values, one, places, count=500)
        covered += low <= 0 <= high
    assert 0.91 * 400 <= covered <= 0.98 * 400


def test_squares_are_drawn_within_each_slide():
    # Two sections that differ, alike inside: no other draw of their squares differs.
    slides = np.repeat([0, 1], 60)
    places = np.stack(
        [np.tile(np.repeat(np.arange(12), 5), 2) * 1000.0, slides * 0.0], 1
    )
    mean, low, high = mean_over_squares(1.0 * slides, slides, places)
    assert mean == 0.5 and (low, high) == pytest.approx((0.5, 0.5))
    one_square = mean_over_squares(1.0 * slides, slides, places * 0)
    assert one_square[0] == 0.5 and np.isnan(one_square[1:]).all()


def test_evaluate_and_study_take_the_same_interval(pair):
    first, second = pair
    alone = NeighbourhoodConfig()
    weak = click_test(first, second, shifted(), SerialConfig(queries=150))
    same = features("two", first.features, damaged=(17, 40))
    strong = click_test(first, same, shifted(), SerialConfig(queries=150))
    rows, _ = compare_clicks({("weak", alone): weak, ("strong", alone): strong})
    (gain,) = (r for r in rows if r.difference and r.measure == "recall@1 within 2")
    never = np.zeros(len(weak), bool)
    ours, theirs = ({("all", 0): {"1-2": PairClicks(t, never)}} for t in (strong, weak))
    found = compare_in_study(ours, theirs)
    assert gain.difference == pytest.approx(found.mean)
    assert (gain.difference_low, gain.difference_high) == pytest.approx(found.places)


def test_an_interval_at_the_edge_has_a_width(pair):
    first, _ = pair
    same = features("two", first.features)
    exact = click_test(first, same, shifted(0, 0), SerialConfig(queries=150))
    rows, squares = compare_clicks({("same", NeighbourhoodConfig()): exact}, 300)
    (row,) = (r for r in rows if r.measure == "recall@1 within 2")
    # Clopper-Pearson for as many of as many.
    assert row.value == row.high == 1
    assert binom.sf(squares - 1, squares, row.low) == pytest.approx(0.025)


def test_the_median_lies_in_its_interval():
    rng = np.random.default_rng(3)
    ranks = rng.integers(1, 500, 200)
    low, high = median_interval(ranks, np.arange(200) // 5, 1000, 0)
    assert low < np.median(ranks) < high < 400


def test_differences_are_paired_query_by_query(pair):
    first, second = pair
    config = SerialConfig(queries=150)
    alone = NeighbourhoodConfig()
    weak = click_test(first, second, shifted(), config)
    same = features("two", first.features, damaged=(17, 40))
    strong = click_test(first, same, shifted(), config)
    np.testing.assert_array_equal(weak.rows, strong.rows)
    rows, squares = compare_clicks(
        {("weak", alone): weak, ("strong", alone): strong}, 300
    )
    by = {(row.encoder, row.measure): row for row in rows}
    gain = by["strong", "recall@1 within 0.75"]
    assert gain.difference == pytest.approx(
        np.mean((strong.near == 1).astype(float) - (weak.near == 1))
    )
    assert gain.difference_low > 0 and squares > 10
    assert by["weak", "recall@1 within 0.75"].difference is None
