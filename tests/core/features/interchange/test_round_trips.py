"""Out to another tool's format and back: the same patches, the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features import FeatureSet, read_features
from napari_mcm.core.features.interchange import (
    WRITABLE,
    detect,
    read_foreign,
    save_features,
    write_foreign,
)
from tests.core.features.interchange.foreign_files import MPP, ours

ENDINGS = {"trident": "h5", "clam": "h5", "stamp": "h5", "anndata": "h5ad"}
HALF = 2.0**-10


def missing(kind: str) -> dict[str, float]:
    """What a format does not state and a user must."""
    return {
        "clam": {"patch_size_level0": 448.0, "mpp": MPP},
        "stamp": {"mpp": MPP},
    }.get(kind, {})


@pytest.mark.parametrize("kind", ENDINGS)
@pytest.mark.parametrize("step", [448.0, 448.5, 391.3])
def test_patches_and_features_come_back(tmp_path: Path, kind: str, step: float) -> None:
    before = ours(step)
    path = tmp_path / f"case 1.{ENDINGS[kind]}"
    written = write_foreign(before, path, kind)
    ok = before.ok
    assert (written.patches, written.left_out) == (int(ok.sum()), 2)
    assert all(file.is_file() for file in written.files)
    given = missing(kind) | ({"patch_size_level0": step} if kind == "clam" else {})
    after = read_foreign(path, slide=None, **given)
    assert np.array_equal(after.grid.xy, before.grid.xy[ok])
    assert np.array_equal(after.grid.lattice, before.grid.lattice[ok])
    assert after.grid.patch_size_level0 == pytest.approx((step, step), abs=0.51)
    assert after.ok.all()
    tolerance = HALF if kind == "stamp" else 0
    np.testing.assert_allclose(after.features, before.features[ok], rtol=tolerance)
    assert detect(path) == kind


@pytest.mark.parametrize("kind", ["trident", "anndata"])
@pytest.mark.parametrize("step", [448.0, 391.3])
def test_what_a_format_states_comes_back(
    tmp_path: Path, kind: str, step: float
) -> None:
    before = ours(step)
    path = tmp_path / f"other name.{ENDINGS[kind]}"
    write_foreign(before, path, kind)
    after = read_foreign(path)
    found, expected = after.grid.describe(), before.grid.describe()
    for key in ("patch_size_level0", "mpp", "origin"):
        assert found.pop(key) == pytest.approx(expected.pop(key))
    assert found == expected
    assert after.encoder["spec"] == "timm/resnet18"
    assert after.provenance["notes"] == []


@pytest.mark.parametrize("kind", ENDINGS)
def test_what_was_read_is_a_feature_file_of_ours(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"case 1.{ENDINGS[kind]}"
    write_foreign(ours(), path, kind)
    read = read_foreign(path, **missing(kind))
    file = save_features(read, tmp_path / "case 1.features.zarr")
    again = read_features(file)
    assert detect(file) == "napari-mcm"
    assert np.array_equal(again.features, read.features)
    assert again.grid.fingerprint == read.grid.fingerprint
    assert again.encoder == read.encoder
    assert again.provenance["notes"] == read.provenance["notes"]
    raster = again.grid.raster(np.arange(len(again)))
    assert np.isfinite(raster).sum() == len(again)


def test_other_features_are_not_written_over(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.h5" for name in "ab"]
    write_foreign(ours(), paths[0], "trident")
    write_foreign(ours(dim=5), paths[1], "trident")
    file = tmp_path / "case 1.features.zarr"
    first, other = (read_foreign(path) for path in paths)
    for _ in range(2):
        save_features(first, file)
    with pytest.raises(FeatureError, match="made differently"):
        save_features(other, file)
    save_features(other, file, overwrite=True)
    assert read_features(file).dim == 5


def test_trident_names_and_kinds(tmp_path: Path) -> None:
    before = ours()
    write_foreign(before, tmp_path / "x.h5", "trident")
    with h5py.File(tmp_path / "x.h5") as file:
        features, coords = file["features"], file["coords"]
        assert features.dtype == np.float32 and coords.dtype == np.int64
        assert features.chunks == (min(len(features), 4096), before.dim)
        assert features.maxshape == (None, before.dim)
        assert {"name", "savetodir", "encoder"} <= set(features.attrs)
        said = dict(coords.attrs)
    expected = {"patch_size": 224, "patch_size_level0": 448, "overlap": 0}
    expected |= {"level0_magnification": 40, "target_magnification": 20}
    expected |= {"level0_width": 20_000, "level0_height": 15_000, "name": "case 1"}
    assert {key: said[key] for key in expected} == expected
    assert "savetodir" in said


def test_trident_folders(tmp_path: Path) -> None:
    written = write_foreign(ours(), tmp_path, "trident")
    names = [str(file.relative_to(tmp_path)) for file in written.files]
    base = "20x_224px_0px_overlap"
    assert names == [
        f"{base}/features_timm_resnet18/case 1.h5",
        f"{base}/patches/case 1_patches.h5",
    ]
    with h5py.File(written.files[1]) as file:
        assert list(file) == ["coords"]


def test_clam_names_and_kinds(tmp_path: Path) -> None:
    before = ours()
    h5, pt = write_foreign(before, tmp_path / "x.h5", "clam").files
    with h5py.File(h5) as file:
        assert file["coords"].dtype == np.int32
        assert not file["coords"].attrs and not file["features"].attrs
    tensor = torch.load(pt, weights_only=True)
    assert np.array_equal(tensor.numpy(), before.features[before.ok])


def test_clam_folders_state_what_the_features_do_not(tmp_path: Path) -> None:
    before = ours()
    h5, pt, _ = write_foreign(before, tmp_path, "clam").files
    for path in (h5, pt):
        after = read_foreign(path, mpp=MPP)
        assert np.array_equal(after.grid.xy, before.grid.xy[before.ok])
        assert after.grid.patch_size_level0 == (448.0, 448.0)
        assert after.grid.slide["size"] == [20_000, 15_000]
        assert after.grid.slide["name"] == "case 1"


def test_stamp_names_and_kinds(tmp_path: Path) -> None:
    write_foreign(ours(), tmp_path / "x.h5", "stamp")
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["coords"].dtype == np.float32 and file["feats"].dtype == np.float16
        said = dict(file.attrs)
    assert said["tile_size_um"] == 112.0 and said["tile_size_px"] == 224
    assert said["unit"] == "um" and said["feat_type"] == "tile"
    assert {"stamp_version", "extractor", "code_hash"} <= set(said)


def test_stamp_refuses_what_half_precision_cannot_hold(tmp_path: Path) -> None:
    before = ours()
    before.features[0, 0] = 1e5
    with pytest.raises(FeatureError, match="half precision"):
        write_foreign(before, tmp_path / "x.h5", "stamp")
    assert not list(tmp_path.iterdir())


def test_geojson_is_what_qupath_wants(tmp_path: Path) -> None:
    before = ours()
    write_foreign(before, tmp_path / "x.geojson", "geojson")
    tiles = json.loads((tmp_path / "x.geojson").read_text(encoding="utf-8"))["features"]
    ok = np.flatnonzero(before.ok)
    assert len(tiles) == len(ok) == len({tile["id"] for tile in tiles})
    for tile, i in zip(tiles, ok, strict=True):
        ring = tile["geometry"]["coordinates"][0]
        x, y = before.grid.xy[i]
        assert ring[0] == ring[-1] == [x, y] and ring[2] == [x + 448, y + 448]
        assert "objectType" not in tile
        measured = tile["properties"]["measurements"]
        assert tile["properties"]["objectType"] == "tile"
        values = [measured[f"feature {k}"] for k in range(before.dim)]
        assert np.array_equal(np.float32(values), before.features[i])
        assert measured["blur"] == pytest.approx(before.quality["blur"][i], abs=1e-6)


def test_geojson_of_many_leaves_features_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "napari_mcm.core.features.interchange.geojson.MOST_NUMBERS", 100
    )
    write_foreign(ours(), tmp_path / "x.geojson", "geojson")
    first = json.loads((tmp_path / "x.geojson").read_text())["features"][0]
    assert list(first["properties"]["measurements"]) == ["blur"]


def empty() -> FeatureSet:
    """A slide without tissue."""
    full = ours()
    grid = type(full.grid).from_description(
        full.grid.describe(), np.empty((0, 2)), np.empty((0, 2))
    )
    none = np.empty((0, full.dim), np.float32)
    return FeatureSet(none, grid, np.empty(0, np.uint8), full.encoder)


@pytest.mark.parametrize("kind", WRITABLE)
def test_a_slide_without_tissue_goes_out_and_back(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x.{ENDINGS.get(kind, 'geojson')}"
    assert write_foreign(empty(), path, kind).patches == 0
    if kind == "geojson":
        assert json.loads(path.read_text())["features"] == []
        return
    after = read_foreign(path, **missing(kind))
    assert after.features.shape == (0, 12) and after.grid.xy.shape == (0, 2)
    save_features(after, tmp_path / "x.features.zarr")
    assert len(read_features(tmp_path / "x.features.zarr")) == 0


def test_a_format_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="trident, clam, stamp"):
        write_foreign(ours(), tmp_path / "x.h5", "matlab")
