"""The one writer of GeoJSON: what its files look like, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_mcm.core.runtime.geojson import (
    make_feature,
    make_polygon,
    rectangle_rings,
    write_features,
)

POINT = {"type": "Point", "coordinates": [1, 2]}
BEGIN = '{"type": "FeatureCollection", "features": ['
FIRST = (
    '{"type": "Feature", "id": "3f0c74d9-a14b-5535-ad4c-4258894046ee", "geometry": '
    '{"type": "Point", "coordinates": [1, 2]}, "properties": {"name": "é"}}'
)
SECOND = (
    '{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, 1], '
    '[2, 1], [2, 3], [0, 3], [0, 1]]]}, "properties": {}}'
)


def features() -> Iterator[dict[str, Any]]:
    ring = rectangle_rings([(0, 1)], [(2, 3)])[0]
    yield make_feature(POINT, {"name": "é"}, "a key")
    yield make_feature(make_polygon([ring.tolist()]), {})


@pytest.mark.parametrize(
    ("one_per_line", "text"),
    [
        (True, f"{BEGIN}\n{FIRST},\n{SECOND}\n]}}\n"),
        (False, f"{BEGIN}{FIRST}, {SECOND}]}}\n"),
    ],
)
def test_features_are_written_byte_for_byte(
    tmp_path: Path, one_per_line: bool, text: str
) -> None:
    path = tmp_path / "some.geojson"
    write_features(path, features(), one_per_line=one_per_line)
    assert path.read_bytes() == text.encode()
    assert json.loads(text)["features"] == list(features())


@pytest.mark.parametrize("one_per_line", [True, False])
def test_no_features_are_an_empty_collection(
    tmp_path: Path, one_per_line: bool
) -> None:
    path = tmp_path / "none.geojson"
    write_features(path, [], one_per_line=one_per_line)
    empty = {"type": "FeatureCollection", "features": []}
    assert json.loads(path.read_text(encoding="utf-8")) == empty


def test_a_feature_that_cannot_be_made_leaves_the_file_as_it_was(
    tmp_path: Path,
) -> None:
    path = tmp_path / "some.geojson"
    write_features(path, features())
    before = path.read_bytes()

    def failing() -> Iterator[dict[str, Any]]:
        yield from features()
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_features(path, failing())
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["some.geojson"]


@pytest.mark.parametrize("kind", [np.int64, np.float64])
def test_rectangles_keep_their_type_and_are_closed(kind: type) -> None:
    low = np.array([[0, 1], [4, 5]], kind)
    rings = rectangle_rings(low, low + 2)
    assert rings.dtype == kind and rings.shape == (2, 5, 2)
    assert (rings[:, 0] == low).all() and (rings[:, -1] == low).all()
    assert (rings[:, 2] == low + 2).all()
    assert rectangle_rings(low[:0], low[:0]).shape == (0, 5, 2)
