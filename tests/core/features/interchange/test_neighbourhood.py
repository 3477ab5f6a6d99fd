"""Features averaged over neighbours, in files of other tools: never taken for others."""

from __future__ import annotations

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from napari_mcm.cli.app import main
from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features import read_features
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.features.interchange import (
    in_neighbourhood,
    read_foreign,
    read_vectors,
    save_features,
    write_foreign,
)
from napari_mcm.core.features.neighbourhood import average_neighbourhood
from tests.core.features.made_features import made_features

ENDINGS = {"trident": "h5", "clam": "h5", "stamp": "h5", "anndata": "h5ad"}
GIVEN = {"clam": {"patch_size_level0": 64.0, "mpp": 0.5}, "stamp": {"mpp": 0.5}}
SQUARE = NeighbourhoodConfig(radius=1)
FAR = NeighbourhoodConfig(radius=2, weights="distance")


def mean_of_neighbours(features):
    """The plain mean over a patch and its eight neighbours, patch by patch."""
    at = {tuple(place): row for row, place in enumerate(features.grid.lattice)}
    means = np.full(features.features.shape, np.nan)
    for (row, column), index in at.items():
        around = [at.get((row + i, column + j)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        there = [i for i in around if i is not None and features.ok[i]]
        if features.ok[index]:
            means[index] = features.features[there].astype(np.float64).mean(axis=0)
    return means


@pytest.mark.parametrize("kind", ENDINGS)
@pytest.mark.parametrize("config", [SQUARE, FAR])
def test_an_exported_file_says_what_its_rows_were_averaged_over(tmp_path, kind, config):
    averaged = average_neighbourhood(made_features(), config)
    path = tmp_path / f"a.{ENDINGS[kind]}"
    write_foreign(averaged, path, kind)
    back = read_foreign(path, **GIVEN.get(kind, {}))
    assert back.neighbourhood == config
    assert read_vectors(path).neighbourhood == config
    with pytest.raises(FeatureError, match="averages"):
        average_neighbourhood(back, config)
    with pytest.raises(FeatureError, match="hold those of single patches"):
        save_features(back, tmp_path / "a.features.zarr")
    assert not (tmp_path / "a.features.zarr").exists()


@pytest.mark.parametrize("kind", ENDINGS)
def test_files_of_single_patches_are_as_they_were(tmp_path, kind):
    path = tmp_path / f"a.{ENDINGS[kind]}"
    write_foreign(made_features(), path, kind)
    assert read_foreign(path, **GIVEN.get(kind, {})).neighbourhood.radius == 0
    names: list[str] = []
    with h5py.File(path) as file:
        file.visit(names.append)
        for name in ["/", *names]:
            names += file[name].attrs
    assert not [name for name in names if "neighbourhood" in name]


def test_a_tensor_of_clam_is_known_by_the_file_with_its_coordinates(tmp_path):
    averaged = average_neighbourhood(made_features(), SQUARE)
    write_foreign(averaged, tmp_path, "clam")
    tensor = tmp_path / "pt_files" / "a.pt"
    assert read_vectors(tensor).neighbourhood == SQUARE
    assert read_foreign(tensor, mpp=0.5).neighbourhood == SQUARE
    (tmp_path / "h5_files" / "a.h5").unlink()
    assert read_vectors(tensor).neighbourhood.radius == 0


def test_folders_of_trident_are_apart(tmp_path):
    raw = made_features()
    one, *_ = write_foreign(raw, tmp_path, "trident").files
    other, *_ = write_foreign(
        average_neighbourhood(raw, SQUARE), tmp_path, "trident"
    ).files
    third, *_ = write_foreign(
        average_neighbourhood(raw, FAR), tmp_path, "trident"
    ).files
    folders = [file.parent.name for file in (one, other, third)]
    assert folders == [
        *("features_none", "features_none_context1", "features_none_context2distance")
    ]


def test_tiles_for_qupath_say_it_too(tmp_path):
    averaged = average_neighbourhood(made_features(), SQUARE)
    write_foreign(averaged, tmp_path / "a.geojson", "geojson")
    tiles = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert {t["properties"]["metadata"]["neighbourhood"] for t in tiles} == {"3 × 3"}


@pytest.mark.parametrize("kind", ["own", "trident", "anndata"])
def test_vectors_are_averaged_while_they_are_read(tmp_path, kind):
    raw = made_features()
    if kind == "own":
        path = save_features(raw, tmp_path / "a.features.zarr")
    else:
        path = write_foreign(raw, tmp_path / f"a.{ENDINGS[kind]}", kind).files[0]
    found = read_vectors(path, SQUARE)
    assert found.neighbourhood == SQUARE
    wanted = mean_of_neighbours(raw)[raw.ok]
    np.testing.assert_allclose(found.features, wanted, rtol=0, atol=1e-6)


def test_a_file_without_places_cannot_be_averaged(tmp_path):
    path = write_foreign(made_features(), tmp_path / "a.h5", "clam").files[0]
    assert len(read_vectors(path).features) == 78
    with pytest.raises(FeatureError, match="cannot be averaged over neighbours"):
        read_vectors(path, SQUARE)


def test_averages_are_taken_as_they_are_and_never_for_others(tmp_path):
    averaged = average_neighbourhood(made_features(), SQUARE)
    assert in_neighbourhood(averaged, SQUARE, tmp_path) is averaged
    assert in_neighbourhood(averaged, NeighbourhoodConfig(), tmp_path) is averaged
    with pytest.raises(FeatureError, match="over 3 × 3 patches, not 5 × 5, distance"):
        in_neighbourhood(averaged, FAR, tmp_path)


@pytest.mark.parametrize("stated", [4, -1, 1.5, "wide", float("nan")])
def test_a_neighbourhood_that_does_not_exist_is_refused(tmp_path, stated):
    path = tmp_path / "a.h5"
    write_foreign(average_neighbourhood(made_features(), SQUARE), path, "trident")
    with h5py.File(path, "a") as file:
        file["features"].attrs["neighbourhood_radius"] = stated
    with pytest.raises(FeatureError, match="does not exist"):
        read_foreign(path)


def test_convert_averages_and_says_so(tmp_path, capsys):
    raw = made_features()
    ours = save_features(raw, tmp_path / "a.features.zarr")
    theirs = tmp_path / "a.h5"
    words = ["convert", str(ours), "--to", "trident", "--out", str(theirs)]
    assert main([*words, "--context", "1"]) == 0
    assert "3 × 3 patches around each" in capsys.readouterr().out
    with h5py.File(theirs) as file:
        assert file["features"].attrs["neighbourhood_radius"] == 1
        wanted = mean_of_neighbours(raw)[raw.ok]
        np.testing.assert_allclose(file["features"][:], wanted, rtol=0, atol=1e-6)
    again = ["convert", str(theirs), "--to", "clam", "--out", str(tmp_path / "b.h5")]
    assert main([*again, "--context", "2"]) == 1
    assert "over 3 × 3 patches, not 5 × 5" in capsys.readouterr().err
    assert main(again) == 0
    assert read_vectors(tmp_path / "b.h5").neighbourhood == SQUARE


def test_our_own_files_hold_single_patches_only(tmp_path, capsys):
    ours = save_features(made_features(), tmp_path / "a.features.zarr")
    out = tmp_path / "b.features.zarr"
    assert main(["convert", str(ours), "--out", str(out), "--context", "1"]) == 2
    assert "--context: does not go into our feature files" in capsys.readouterr().err
    assert not out.exists()
    read = read_features(ours)
    assert read.neighbourhood == NeighbourhoodConfig()
    with pytest.raises(FeatureError):
        save_features(replace(read, neighbourhood=SQUARE), out)
