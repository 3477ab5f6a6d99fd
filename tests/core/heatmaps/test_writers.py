"""Each format, read back by what reads it elsewhere."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from matplotlib.image import imread

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.heatmaps import Heatmap, similarity, write_heatmap
from napari_mcm.core.slides import Slide


@pytest.fixture
def heatmap(features: FeatureSet) -> Heatmap:
    """Give the similarity to the first patch."""
    return similarity(features, 0)


def test_ome_tiff_keeps_values_sizes_and_position(
    heatmap: Heatmap, tmp_path: Path
) -> None:
    path = write_heatmap(heatmap, tmp_path / "map.ome.tif")
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        raster = tiff.asarray()
        image = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]
    np.testing.assert_array_equal(raster, heatmap.raster)
    assert raster.dtype == np.float32
    pixels = image["Pixels"]
    assert pixels["PhysicalSizeX"] == pixels["PhysicalSizeY"] == 16.0  # 32 px of 0.5 µm
    assert pixels["PhysicalSizeXUnit"] == "µm"
    assert pixels["Plane"]["PositionX"] == pixels["Plane"]["PositionY"] == 0.0
    assert image["Name"] == heatmap.title


def test_geojson_is_what_qupath_takes(heatmap: Heatmap, tmp_path: Path) -> None:
    path = write_heatmap(heatmap, tmp_path / "map.geojson")
    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert content["type"] == "FeatureCollection"
    assert len(content["features"]) == 17  # 18 patches, one could not be read
    first = content["features"][0]
    assert first["geometry"]["type"] == "Polygon"
    (ring,) = first["geometry"]["coordinates"]
    assert ring == [[0, 32], [32, 32], [32, 64], [0, 64], [0, 32]]
    properties = first["properties"]
    assert properties["objectType"] == "tile"
    assert properties["name"] == "query"
    assert properties["measurements"] == {heatmap.title: 1.0}
    assert len(properties["color"]) == 3
    identifiers = {uuid.UUID(feature["id"]) for feature in content["features"]}
    assert len(identifiers) == 17


def test_geojson_is_the_same_every_time(heatmap: Heatmap, tmp_path: Path) -> None:
    files = [write_heatmap(heatmap, tmp_path / f"{i}.geojson") for i in range(2)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_neighbouring_tiles_share_their_edge(
    features: FeatureSet, tmp_path: Path
) -> None:
    path = write_heatmap(similarity(features, 0), tmp_path / "map.geojson")
    tiles = json.loads(path.read_text(encoding="utf-8"))["features"]
    left, right = (tile["geometry"]["coordinates"][0] for tile in tiles[:2])
    assert left[1] == right[0]


def test_a_tile_beside_the_lattice_is_drawn_where_it_is(
    features: FeatureSet, tmp_path: Path
) -> None:
    xy = features.grid.xy.copy()
    xy[0] += 3
    moved = replace(features, grid=replace(features.grid, xy=xy))
    path = write_heatmap(similarity(moved, 0), tmp_path / "map.geojson")
    tiles = json.loads(path.read_text(encoding="utf-8"))["features"]
    (ring,) = tiles[0]["geometry"]["coordinates"]
    assert ring == [[3, 35], [35, 35], [35, 67], [3, 67], [3, 35]]


@pytest.mark.parametrize("with_slide", [False, True])
def test_png_opens_and_shows_the_colours(
    heatmap: Heatmap, slide: Slide, tmp_path: Path, with_slide: bool
) -> None:
    path = write_heatmap(heatmap, tmp_path / "map.png", slide if with_slide else None)
    picture = imread(path)
    height, width = picture.shape[:2]
    assert width > height * (2 if with_slide else 1)
    assert 600 < width < 3000
    red, blue = picture[..., 0], picture[..., 2]
    assert ((red - blue) > 0.3).any()  # alike
    assert ((blue - red) > 0.3).any()  # unlike


def test_nothing_is_left_behind_by_another_ending(
    heatmap: Heatmap, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"\.png, \.ome\.tif"):
        write_heatmap(heatmap, tmp_path / "map.jpeg")
    assert not list(tmp_path.glob("*.jpeg"))
    assert not list(tmp_path.glob(".part*"))
