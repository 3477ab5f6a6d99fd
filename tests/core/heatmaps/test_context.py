"""Maps with context equal maps of averaged features, which are never stored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from napari_mcm.core.errors import ConfigError, FeatureError, GridError
from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.features.neighbourhood import average_neighbourhood
from napari_mcm.core.heatmaps import (
    Examples,
    SimilarityIndex,
    difference,
    heatmap_of,
    make_query,
    read_query,
    similarity,
    usual_range,
    write_heatmap,
    write_query,
)
from napari_mcm.core.heatmaps.config import DEFAULT_RADIUS, SimilarityConfig
from napari_mcm.core.runtime.jobs import Progress
from napari_mcm.core.search import CrossSlideConfig, search_slides
from tests.core.features.made_features import made_features

WIDE = NeighbourhoodConfig(radius=2)
CONFIGS = [
    NeighbourhoodConfig(radius=radius, weights=weights)
    for radius in (1, 2, 3)
    for weights in ("uniform", "distance")
]


@pytest.fixture
def sets() -> FeatureSet:
    """Features of very different lengths, with holes in the tissue and missing ones."""
    made = made_features(dim=12, rows=16, columns=14)
    rng = np.random.default_rng(5)
    kept = np.flatnonzero(rng.random(len(made)) < 0.7)
    grid = made.grid
    grid = replace(grid, xy=grid.xy[kept], lattice=grid.lattice[kept])
    lengths = rng.uniform(0.1, 10, (len(kept), 1)).astype(np.float32)
    features = made.features[kept] * lengths + np.float32(0.5)
    return FeatureSet(features, grid, made.status[kept], made.encoder)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize(
    ("like", "against", "pool"),
    [([5], [], "mean"), ([5, 30, 60], [80], "mean"), ([5, 30, 60], [80], "max")],
)
def test_a_map_with_context_is_that_of_averaged_features(
    sets, config, like, against, pool
):
    averaged = SimilarityIndex(average_neighbourhood(sets, config))
    index = SimilarityIndex(sets, config)
    assert_array_equal(index.valid, averaged.valid)
    wanted = averaged.directions(like, against, pool)
    assert_allclose(index.directions(like, against, pool), wanted, atol=1e-5)
    values = index.query(like, against, pool)
    assert_allclose(values, averaged.query(like, against, pool), atol=1e-5)
    # It is not the mean of the cosines.
    plain = SimilarityIndex(sets).query(like, against, pool)
    assert np.nanmax(np.abs(values - plain)) > 0.1


def test_many_examples_of_which_the_nearest_counts(sets):
    rows = np.flatnonzero(sets.ok)[:50].tolist()
    index = SimilarityIndex(sets, WIDE)
    averaged = SimilarityIndex(average_neighbourhood(sets, WIDE))
    assert_allclose(
        index.query(rows, pool="max"), averaged.query(rows, pool="max"), atol=1e-5
    )


def test_one_index_serves_all_neighbourhoods_and_measures_each_once(sets, monkeypatch):
    index = SimilarityIndex(sets)
    assert index.is_prepared(NeighbourhoodConfig())
    assert not index.is_prepared(WIDE)
    events = list(index.prepare(WIDE))
    assert all(isinstance(event, Progress) for event in events)
    assert events[-1].done == len(sets)
    assert index.is_prepared(WIDE)
    wide = index.at(WIDE)
    assert wide._unit is index._unit, "features are not copied"
    monkeypatch.setattr(
        "napari_mcm.core.heatmaps.similarity_index.measure_averages", pytest.fail
    )
    again = wide.at(NeighbourhoodConfig()).at(WIDE)
    assert_array_equal(again.query(3), wide.query(3))
    assert_array_equal(wide.at(NeighbourhoodConfig()).query(3), index.query(3))
    assert index.neighbourhood == NeighbourhoodConfig(), "the first is unchanged"


def test_range_of_colours_follows_the_neighbourhood(sets):
    index = SimilarityIndex(sets)
    ranges = {0: usual_range(index)}
    for radius in (1, 2):
        config = NeighbourhoodConfig(radius=radius)
        ranges[radius] = usual_range(index.at(config))
        averaged = SimilarityIndex(average_neighbourhood(sets, config))
        assert ranges[radius] == pytest.approx(usual_range(averaged), abs=1e-5)
    assert len(set(ranges.values())) == 3
    assert usual_range(index) == ranges[0]
    # 32 random queries, each without itself, one at a time.
    drawn = np.random.default_rng(0).permutation(np.flatnonzero(index.valid))[:32]
    values = [np.delete(index.query(int(patch)), patch) for patch in drawn]
    low, high = np.nanpercentile(np.concatenate(values), (2, 98))
    assert ranges[0] == pytest.approx((low, high), abs=1e-5)
    maps = [similarity(index.at(WIDE), 3, limits=k) for k in ("encoder", "robust")]
    low, high = ranges[2]
    assert maps[0].limits[0] <= low and high <= maps[0].limits[1]
    others = np.delete(maps[1].values, 3)
    expected = np.nanpercentile(others, (2, 98))
    assert_allclose(maps[1].limits, expected, atol=1e-6)


def test_maps_and_their_files_name_the_context(sets, tmp_path):
    plain = similarity(sets, 3)
    assert plain.title == "cosine similarity to patch 3"
    heatmap = similarity(SimilarityIndex(sets, WIDE), 3)
    assert heatmap.title == "cosine similarity to patch 3, context 5 × 5"
    assert heatmap.neighbourhood == WIDE
    write_heatmap(heatmap, tmp_path / "a.geojson")
    tiles = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert list(tiles[0]["properties"]["measurements"]) == [heatmap.title]
    write_heatmap(plain, tmp_path / "b.geojson")
    others = json.loads((tmp_path / "b.geojson").read_text())["features"]
    assert {t["id"] for t in tiles}.isdisjoint(t["id"] for t in others)
    same = difference(heatmap, heatmap)
    assert same.title == "difference of cosine similarities, context 5 × 5"
    with pytest.raises(GridError, match=r"different context \(patch and 5 × 5\)"):
        difference(plain, heatmap)


def test_averaged_features_keep_their_context(sets):
    averaged = average_neighbourhood(sets, WIDE)
    index = SimilarityIndex(averaged)
    assert index.neighbourhood == WIDE
    assert similarity(index, 3).title.endswith("context 5 × 5")
    assert SimilarityIndex(averaged, WIDE).neighbourhood == WIDE
    with pytest.raises(FeatureError, match="averages over 5 × 5"):
        index.at(NeighbourhoodConfig(radius=1))


def centre(sets: FeatureSet, patch: int) -> tuple[float, float]:
    x, y = sets.grid.centres[patch]
    return float(x), float(y)


def save(sets: FeatureSet, path: Path, config: NeighbourhoodConfig) -> Path:
    examples = Examples((centre(sets, 5),))
    index = SimilarityIndex(sets, config)
    found = examples.directions(index)
    assert found is not None
    return write_query(path, make_query(examples, {"a": (sets, found[0])}, config))


def elsewhere(sets: FeatureSet) -> FeatureSet:
    slide = sets.grid.slide | {"fingerprint": "another"}
    return replace(sets, grid=replace(sets.grid, slide=slide))


def test_a_query_is_answered_with_its_own_context_only(sets, tmp_path):
    query = read_query(save(sets, tmp_path / "a.query.json", WIDE))
    assert query.neighbourhood_for(sets.encoder) == WIDE
    assert query.of_encoder(sets.encoder) is None, "not for the patch alone"
    for features in (sets, elsewhere(sets)):
        index = SimilarityIndex(features, WIDE)
        values = heatmap_of(index, query.ask(index), "").values
        assert_allclose(values, SimilarityIndex(sets, WIDE).query(5), atol=1e-6)
        for other in (SimilarityIndex(features), index.at(CONFIGS[0])):
            with pytest.raises(FeatureError, match="was made with context 5 × 5, not"):
                query.ask(other, "file")


YESTERDAY = """{"format":"napari-mcm query","version":1,"slide":{"name":"a",
"fingerprint":"5555555555555555"},"like":[[96.0,32.0]],"unlike":[],"regions":[],
"pool":"mean","encoders":[{"fingerprint":"eeeeeeeeeeeeeeee","label":"none",
"directions":[[0.6,0.8,0,0,0,0,0,0,0,0,0,0]]}]}"""


def test_files_of_earlier_versions_are_of_the_patch_alone(sets, tmp_path):
    path = tmp_path / "old.query.json"
    path.write_text(YESTERDAY)
    query = read_query(path)
    assert query.neighbourhood_for(sets.encoder) == NeighbourhoodConfig()
    index = SimilarityIndex(sets)
    unit = sets.features / np.linalg.norm(sets.features, axis=1, keepdims=True)
    expected = unit[:, 0] * 0.6 + unit[:, 1] * 0.8
    assert_allclose(index.compare(query.ask(index)), expected, atol=1e-6)
    with pytest.raises(FeatureError, match="made with context patch, not 5 × 5"):
        query.ask(index.at(WIDE))
    # Earlier versions read queries of the patch alone that are written now.
    write_query(path, query)
    assert json.loads(path.read_text()).keys() == json.loads(YESTERDAY).keys()
    written = json.loads(path.read_text())["encoders"][0]
    assert written == json.loads(YESTERDAY)["encoders"][0]


def test_a_query_of_both_contexts_answers_each(sets, tmp_path):
    one, other = (
        read_query(save(sets, tmp_path / f"{c.radius}.query.json", c))
        for c in (NeighbourhoodConfig(), WIDE)
    )
    both = one.model_copy(update={"encoders": one.encoders + other.encoders})
    far = elsewhere(sets)
    for query, config in ((one, NeighbourhoodConfig()), (other, WIDE)):
        index = SimilarityIndex(far, config)
        assert_array_equal(both.ask(index), query.ask(index))


def options(**given: object) -> SimilarityConfig:
    return SimilarityConfig.model_validate({"features": "f", "out": "o.png", **given})


def test_options_leave_open_what_is_not_given():
    default = NeighbourhoodConfig(radius=DEFAULT_RADIUS)
    assert options().neighbourhood_of() == default
    assert options().neighbourhood_of(NeighbourhoodConfig()).radius == 0
    assert options().neighbourhood_of(WIDE) == WIDE
    given = options(neighbourhood={"radius": 2})
    assert given.neighbourhood_of() == given.neighbourhood_of(WIDE) == WIDE
    weighted = options(neighbourhood={"weights": "distance"}).neighbourhood_of()
    assert (weighted.radius, weighted.weights) == (DEFAULT_RADIUS, "distance")
    with pytest.raises(ConfigError, match="made with context 5 × 5, not patch"):
        options(neighbourhood={"radius": 0}).neighbourhood_of(WIDE, "a.query.json")
    with pytest.raises(ConfigError, match="not 5 × 5, distance-weighted"):
        options(neighbourhood={"weights": "distance"}).neighbourhood_of(WIDE)
    # Of one patch there is no weight to choose.
    alone = options(neighbourhood={"weights": "distance"})
    assert alone.neighbourhood_of(NeighbourhoodConfig()).radius == 0


def test_other_slides_are_searched_with_the_querys_context(sets, tmp_path):
    from napari_mcm.core.features.interchange.formats import save_features
    from napari_mcm.core.runtime.jobs import run

    save_features(sets, tmp_path / "a.features.zarr")
    directions = SimilarityIndex(sets, WIDE).directions(5)
    config = CrossSlideConfig(features=tmp_path, top=4, neighbourhood=WIDE)
    found = run(search_slides(config, "e" * 16, directions)).matches[0]
    values = SimilarityIndex(average_neighbourhood(sets, WIDE)).query(5)
    best = np.sort(values[np.isfinite(values)])[-4:].mean()
    assert found.mean == pytest.approx(best, abs=1e-5)
