"""Blocks of mapped files have the values of the map of one slide, to the bit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.testing import assert_allclose, assert_array_equal

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features import read_features
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.features.interchange.formats import save_features
from napari_mcm.core.features.mapped import MappedFeatures, rows_of_file
from napari_mcm.core.features.neighbourhood import average_neighbourhood
from napari_mcm.core.heatmaps import SimilarityIndex
from napari_mcm.core.search import scoring
from napari_mcm.core.search.scoring import index_of, score_patches
from tests.core.search.cohort import cosines, direction_of, made_slide

CONTEXTS = [
    NeighbourhoodConfig(radius=radius, weights=weights)
    for radius in (0, 1, 3)
    for weights in ("uniform", "distance")
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return save_features(made_slide("a"), tmp_path / "a.features.zarr")


@pytest.mark.parametrize("context", CONTEXTS, ids=str)
@pytest.mark.parametrize("block", [64, 333, 5000])
def test_blocks_have_the_values_of_the_map(
    file: Path, context: NeighbourhoodConfig, block: int, monkeypatch
) -> None:
    monkeypatch.setattr(scoring.blocks, "__defaults__", (block,))
    direction = direction_of()
    found = score_patches(MappedFeatures(file), direction, context)
    index = SimilarityIndex(read_features(file), context)
    assert_array_equal(found, index.compare(direction))


def test_patches_that_overlap_in_any_order_have_the_values_of_the_map(
    tmp_path: Path, monkeypatch
) -> None:
    made = made_slide("a")
    order = np.random.default_rng(0).permutation(len(made))
    grid = replace(made.grid, xy=made.grid.xy[order], lattice=made.grid.lattice[order])
    made = replace(
        made,
        features=made.features[order],
        status=made.status[order],
        grid=grid,
        # As of another tool: each patch is two steps of the lattice wide.
        provenance={"imported": {"patch_size_level0": [128.0, 128.0]}},
    )
    file = save_features(made, tmp_path / "a.features.zarr")
    monkeypatch.setattr(scoring.blocks, "__defaults__", (100,))
    for context in CONTEXTS:
        found = score_patches(MappedFeatures(file), direction_of(), context)
        index = SimilarityIndex(read_features(file), context)
        assert_array_equal(found, index.compare(direction_of()))


def test_many_directions_have_the_values_of_the_map(file: Path) -> None:
    directions = np.concatenate([direction_of(seed=seed) for seed in range(40)])
    found = score_patches(MappedFeatures(file), directions, CONTEXTS[2])
    index = SimilarityIndex(read_features(file), CONTEXTS[2])
    # A product of matrices of another height may round the last bit differently.
    assert_allclose(found, index.compare(directions), atol=2e-7)


def test_values_are_those_of_plain_numpy(file: Path) -> None:
    features, direction = made_slide("a"), direction_of()
    unit = features.features / np.sqrt((features.features**2).sum(1, keepdims=True))
    found = score_patches(MappedFeatures(file), direction, CONTEXTS[0])
    assert_array_equal(np.isnan(found), ~features.ok)
    assert_allclose(found, unit @ direction[0], atol=3e-7)
    around = average_neighbourhood(features, CONTEXTS[2])
    found = score_patches(MappedFeatures(file), direction, CONTEXTS[2])
    assert_allclose(found, cosines(around, direction[0]), atol=1e-6)


def test_some_patches_have_the_values_of_all(file: Path) -> None:
    mapped, direction = MappedFeatures(file), direction_of()
    everything = score_patches(mapped, direction, CONTEXTS[2])
    rows = np.array([0, 7, 8, 200, len(mapped) - 1])
    inside, index = index_of(mapped, rows, CONTEXTS[2])
    assert len(index.valid) < len(mapped)
    assert_array_equal(index.compare(direction)[inside], everything[rows])


@pytest.mark.parametrize("kind", ["float16", "packed"])
def test_files_of_other_programs_are_read_too(tmp_path: Path, kind: str) -> None:
    features = made_slide("a")
    file = save_features(features, tmp_path / "a.features.zarr")
    shutil.rmtree(file / "features")
    dtype = "float16" if kind == "float16" else "float32"
    group = zarr.open_group(file, mode="r+")
    options = {} if kind == "packed" else {"compressors": zarr.codecs.Crc32cCodec()}
    array = group.create_array(
        "features",
        shape=features.features.shape,
        chunks=(100, features.dim),
        dtype=dtype,
        fill_value=np.nan,
        **options,
    )
    array[:] = features.features.astype(dtype)
    mapped, direction = MappedFeatures(file), direction_of()
    assert (mapped._layout is None) == (kind == "packed")
    assert rows_of_file(file) == len(features)
    found = score_patches(mapped, direction, CONTEXTS[0])
    assert_array_equal(found, SimilarityIndex(read_features(file)).compare(direction))
    assert_allclose(found, cosines(features, direction[0]), atol=1e-3)


def _chunk(file: Path) -> Path:
    return file / "features" / "c" / "0" / "0"


def test_a_truncated_file_says_so(file: Path) -> None:
    _chunk(file).write_bytes(_chunk(file).read_bytes()[:-300])
    with pytest.raises(FeatureError, match=r"chunk 0 of features has .* bytes, not"):
        score_patches(MappedFeatures(file), direction_of(), CONTEXTS[0])


def test_one_changed_byte_is_found(file: Path) -> None:
    raw = bytearray(_chunk(file).read_bytes())
    raw[1000] ^= 1
    _chunk(file).write_bytes(raw)
    with pytest.raises(FeatureError, match="checksum"):
        score_patches(MappedFeatures(file), direction_of(), CONTEXTS[0])


def test_a_stopped_search_ends_between_blocks(file: Path) -> None:
    with pytest.raises(FeatureError, match="cancelled"):
        score_patches(MappedFeatures(file), direction_of(), CONTEXTS[0], lambda: True)


def test_the_stamp_follows_the_content(file: Path, tmp_path: Path) -> None:
    stamp = MappedFeatures(file).stamp
    copy = tmp_path / "copy.features.zarr"
    shutil.copytree(file, copy)
    assert MappedFeatures(copy).stamp == stamp
    # The same patches, encoder and provenance, with other values.
    made = made_slide("a")
    made = replace(made, features=made.features * 2)
    other = save_features(made, tmp_path / "other.features.zarr")
    assert (other / "zarr.json").read_bytes() == (file / "zarr.json").read_bytes()
    assert MappedFeatures(other).stamp != stamp
