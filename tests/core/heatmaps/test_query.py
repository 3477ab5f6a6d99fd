"""Examples on a slide, and queries in files that may come from anywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.heatmaps import (
    Examples,
    SimilarityIndex,
    make_query,
    read_query,
    write_query,
)
from napari_mcm.core.heatmaps.examples import patches_within

SQUARE = ((0.0, 32.0), (64.0, 32.0), (64.0, 96.0), (0.0, 96.0))
"""Around the patches of the two upper rows and left columns."""


def centre(features: FeatureSet, patch: int) -> tuple[float, float]:
    x, y = features.grid.centres[patch]
    return float(x), float(y)


@pytest.fixture
def saved(features: FeatureSet, tmp_path: Path) -> Path:
    """A query for patch 2, away from patch 4, in a file."""
    examples = Examples((centre(features, 2),), (centre(features, 4),))
    found = examples.directions(SimilarityIndex(features))
    assert found is not None
    query = make_query(examples, {"turning": (features, found[0])})
    return write_query(tmp_path / "a.query.json", query)


def test_a_region_takes_the_patches_whose_centres_it_holds(
    features: FeatureSet,
) -> None:
    grid = features.grid
    rows, columns = grid.lattice[patches_within(grid, [SQUARE])].T
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
    ]
    triangle = ((0.0, 32.0), (130.0, 32.0), (0.0, 162.0))
    found = grid.centres[patches_within(grid, [triangle])]
    assert len(found) == 9 and (found.sum(axis=1) < 162).all()
    assert not len(patches_within(grid, [((0.0, 0.0), (9.0, 9.0))]))


def test_a_bay_of_a_region_is_outside(features: FeatureSet) -> None:
    grid = features.grid
    legs = ((0.0, 32.0), (32.0, 32.0), (32.0, 96.0), (160.0, 96.0), (160.0, 32.0))
    ring = (*legs, (192.0, 32.0), (192.0, 128.0), (0.0, 128.0))
    found = grid.lattice[patches_within(grid, [ring])]
    columns = {row: set(found[found[:, 0] == row, 1].tolist()) for row in (1, 2, 3)}
    assert columns == {1: {0, 5}, 2: {0, 5}, 3: {0, 1, 2, 3, 4, 5}}


def test_of_a_line_that_crosses_itself_odd_turns_are_inside(
    features: FeatureSet,
) -> None:
    grid = features.grid
    rng = np.random.default_rng(0)
    for _ in range(100):
        ring = rng.uniform(0, 192, (rng.integers(3, 12), 2))
        found = patches_within(grid, [tuple(map(tuple, ring.tolist()))])
        turned = np.zeros(len(grid))
        for start, stop in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            one, two = start - grid.centres, stop - grid.centres
            sine = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]
            turned += np.arctan2(sine, (one * two).sum(axis=1))
        odd = np.rint(turned / (2 * np.pi)).astype(int) % 2
        assert found.tolist() == np.flatnonzero(odd).tolist()
    flat = ((0.0, 48.0), (96.0, 48.0), (192.0, 48.0))
    assert not len(patches_within(grid, [flat]))


def test_patches_of_a_region_that_could_not_be_read_are_left_out(
    features: FeatureSet,
) -> None:
    index = SimilarityIndex(features)
    found = Examples(regions=(SQUARE,)).directions(index)
    assert found is not None
    assert sorted(found[1]) == [0, 1, 6]  # 7 is damaged
    pointed = Examples(like=(centre(features, 7),))
    assert pointed.directions(index) is None


def test_examples_on_glass_are_no_query(features: FeatureSet) -> None:
    inside, glass = centre(features, 3), (5.0, 5.0)
    assert Examples((inside, glass)).patches(features.grid) is None
    assert Examples((), (inside,)).patches(features.grid) is None
    assert Examples((inside,)).patches(features.grid) == ([3], [])


def test_a_saved_query_answers_as_before(features: FeatureSet, saved: Path) -> None:
    query = read_query(saved)
    assert query.examples.like == (centre(features, 2),)
    index = SimilarityIndex(features)
    values = index.compare(query.ask(index))
    np.testing.assert_allclose(values, index.query(2, 4), atol=1e-6)
    elsewhere = replace(
        features.grid, slide=features.grid.slide | {"fingerprint": "another"}
    )
    other = SimilarityIndex(replace(features, grid=elsewhere))
    assert not query.is_of(other.features)
    np.testing.assert_allclose(other.compare(query.ask(other)), values)


def test_on_its_slide_the_places_serve_any_encoder(
    features: FeatureSet, saved: Path
) -> None:
    query, other = read_query(saved), {"fingerprint": "of another encoder"}
    index = SimilarityIndex(replace(features, encoder=other))
    np.testing.assert_allclose(query.ask(index), index.directions(2, 4))
    elsewhere = replace(features.grid, slide={"name": "b", "fingerprint": "b"})
    index = SimilarityIndex(replace(features, grid=elsewhere, encoder=other))
    with pytest.raises(FeatureError, match=r"other encoders \(turning\)"):
        query.ask(index, saved)


def test_features_that_name_no_encoder_make_no_file(features: FeatureSet) -> None:
    unnamed = replace(features, encoder={})
    directions = SimilarityIndex(unnamed).directions(2)
    with pytest.raises(FeatureError, match="fingerprint of their encoder"):
        make_query(Examples(), {"": (unnamed, directions)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "pickle"}, "holds no query"),
        ({"version": 2}, "has version 2"),
        ({"like": [[1, float("nan")]]}, "like.0.1"),
        ({"like": [[1, 2, 3]]}, "like.0"),
        ({"pool": "sum"}, "pool"),
        ({"extra": 1}, "extra"),
        ({"encoders": []}, "encoders"),
        ({"encoders": [{"fingerprint": "a", "directions": [[0, 0]]}]}, "no direction"),
        (
            {"encoders": [{"fingerprint": "a", "directions": [[1, 0], [1]]}]},
            "different lengths",
        ),
        (
            {"encoders": [{"fingerprint": "a", "directions": [[1]] * 65}]},
            "encoders.0.directions",
        ),
        ({"regions": [[[0, 0], [1, 1]]]}, "regions.0"),
    ],
)
def test_files_that_are_not_right_are_refused_in_one_line(
    saved: Path, change: dict[str, Any], message: str
) -> None:
    content = json.loads(saved.read_text()) | change
    saved.write_text(json.dumps(content))
    with pytest.raises(FeatureError, match=message) as caught:
        read_query(saved)
    assert "\n" not in str(caught.value) and str(saved) in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b"\x80\x04", b"[" * 100_000, b"[]", b"\xff{}"])
def test_other_files_are_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "a.query.json"
    path.write_bytes(raw)
    with pytest.raises(FeatureError):
        read_query(path)
    with pytest.raises(FeatureError, match="cannot be read"):
        read_query(tmp_path / "missing.query.json")


def test_lengths_in_a_file_do_not_matter(saved: Path, features: FeatureSet) -> None:
    content = json.loads(saved.read_text())
    vector = content["encoders"][0]["directions"][0]
    content["encoders"][0]["directions"][0] = [1000 * value for value in vector]
    before = read_query(saved)
    saved.write_text(json.dumps(content))
    index = SimilarityIndex(features)
    np.testing.assert_allclose(
        read_query(saved).ask(index), before.ask(index), atol=1e-6
    )
