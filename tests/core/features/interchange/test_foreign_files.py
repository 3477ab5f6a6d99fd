"""Files written as each tool's own code writes them are read right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features import FeatureSet
from napari_mcm.core.features.interchange import detect, read_foreign, write_foreign
from napari_mcm.core.slides import open_slide
from tests.core.conftest import WriteSlide, stained_image
from tests.core.features.interchange import foreign_files as files
from tests.core.features.interchange.foreign_files import MPP, corners, numbers

XY = corners()
FEATURES = numbers(len(XY))


def same(found: FeatureSet, xy: Any = XY, features: Any = FEATURES) -> bool:
    """Tell whether corners and features are these, to the bit."""
    return np.array_equal(found.grid.xy, xy) and np.array_equal(
        found.features, features
    )


def test_trident(tmp_path: Path) -> None:
    path = files.trident(tmp_path / "case 1.h5", XY, FEATURES)
    assert detect(path) == "trident"
    found = read_foreign(path)
    assert same(found)
    grid = found.grid
    assert grid.patch_size == 256 and grid.patch_size_level0 == (512, 512)
    assert grid.mpp == 0.5 and grid.slide["mpp"] == [0.25, 0.25]
    assert grid.slide["size"] == list(files.SIZE) and grid.slide["fingerprint"] == ""
    assert grid.lattice[0].tolist() == [1, 2]
    assert grid.shape == (files.SIZE[1] // 512, files.SIZE[0] // 512)
    assert found.encoder["spec"] == "uni_v1"
    magnification, slide = found.provenance["notes"]
    assert "40x" in magnification and "--slide" in slide


@pytest.mark.parametrize("overlap", [64, 128])
def test_overlapping_patches_are_shown_by_their_middle(
    tmp_path: Path, overlap: int
) -> None:
    step = 512 - 2 * overlap
    xy = corners(step=step)
    path = files.trident(tmp_path / "a.h5", xy, FEATURES, overlap=overlap)
    found = read_foreign(path)
    assert found.grid.patch_size_level0 == (step, step)
    assert np.array_equal(found.grid.xy, xy + overlap)
    assert np.array_equal(found.grid.centres, xy + 256)
    assert found.grid.patch_size == 256 - overlap and found.grid.mpp == 0.5
    assert any("overlap" in note for note in found.provenance["notes"])
    for i in (0, 30):
        assert found.grid.index_at(*(xy[i] + 256)) == i
    # They go out as they came in.
    write_foreign(found, tmp_path / "b.h5", "trident")
    again = read_foreign(tmp_path / "b.h5")
    assert again.grid.fingerprint == found.grid.fingerprint


def test_clam_features_need_what_clam_does_not_say(tmp_path: Path) -> None:
    path = files.clam(tmp_path / "case 1.h5", XY, FEATURES)
    assert detect(path) == "clam"
    with pytest.raises(FeatureError, match="--mpp"):
        read_foreign(path)
    with pytest.raises(FeatureError, match="--patch-size-level0"):
        read_foreign(path, mpp=MPP)
    found = read_foreign(path, mpp=MPP, patch_size_level0=512, encoder="resnet50")
    assert same(found)
    assert found.grid.mpp == MPP and found.grid.patch_size == 512
    assert found.encoder["spec"] == "resnet50"


@pytest.mark.parametrize("leading", [False, True])
def test_clam_folders(tmp_path: Path, leading: bool) -> None:
    files.clam_patches(tmp_path / "patches" / "case 1.h5", XY)
    h5 = tmp_path / "h5_files" / "case 1.h5"
    files.clam(h5, XY, FEATURES, leading)
    pt = files.clam_pt(tmp_path / "pt_files" / "case 1.pt", FEATURES)
    for path in (h5, pt):
        found = read_foreign(path, mpp=MPP)
        assert same(found)
        # 256 px of a level that is half as fine.
        assert found.grid.patch_size_level0 == (512, 512)
        assert found.grid.patch_size == 256 and found.grid.mpp == 0.5


def test_clam_patches_may_lie_anywhere(tmp_path: Path) -> None:
    pt = files.clam_pt(tmp_path / "a" / "case 1.pt", FEATURES)
    with pytest.raises(FeatureError, match="--coords"):
        read_foreign(pt, mpp=MPP)
    patches = files.clam_patches(tmp_path / "b" / "case 1.h5", XY, level=0)
    found = read_foreign(pt, mpp=MPP, coords=patches)
    assert found.grid.slide["size"] == list(files.SIZE)
    other = files.clam(tmp_path / "case 1.h5", XY[::-1], FEATURES)
    with pytest.raises(FeatureError, match="other coordinates"):
        read_foreign(other, mpp=MPP, coords=patches)


def test_clam_pieces_of_tissue_have_a_lattice_each(tmp_path: Path) -> None:
    piece = corners(6, 5, left=9137, top=6001)
    xy = np.concatenate([XY, piece])
    features = numbers(len(xy))
    path = files.clam(tmp_path / "case 1.h5", xy, features)
    found = read_foreign(path, mpp=MPP, patch_size_level0=512)
    assert same(found, xy, features)
    raster = found.grid.raster(np.arange(len(xy)))
    assert np.isfinite(raster).sum() == len(xy)
    (note,) = [n for n in found.provenance["notes"] if "lattices" in n]
    # The larger piece is where it is, the other within half a patch.
    placed = found.grid.lattice[:, ::-1] * 512 + np.asarray(found.grid.origin)
    assert np.array_equal(placed[: len(XY)], XY)
    worst = np.abs(placed - xy).max()
    assert 0 < worst <= 256 and f"{worst:.0f} level-0 px" in note


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("mpp", [0.25, 0.2527, 0.4991])
def test_stamp(tmp_path: Path, old: bool, mpp: float) -> None:
    path = files.stamp(tmp_path / "case 1.h5", XY, FEATURES, mpp, old)
    assert detect(path) == "stamp"
    with pytest.raises(FeatureError, match="--slide.*--mpp"):
        read_foreign(path)
    found = read_foreign(path, mpp=mpp)
    assert same(found, features=FEATURES.astype(np.float16).astype(np.float32))
    assert found.grid.patch_size_level0 == pytest.approx((512, 512))
    assert found.grid.patch_size == (512 if old else 224)
    assert found.grid.patch_um == pytest.approx(512 * mpp)
    assert found.encoder["spec"] == "ctranspath"
    assert found.encoder["precision"] == "float16"


def test_stamp_of_before_units_is_refused(tmp_path: Path) -> None:
    path = files.clam(tmp_path / "a.h5", XY, FEATURES)
    import h5py

    with h5py.File(path, "r+") as file:
        file.move("features", "feats")
    with pytest.raises(FeatureError, match="STAMP 2"):
        read_foreign(path, mpp=MPP)


def test_atlaspatch(tmp_path: Path) -> None:
    two = {"uni_v1": FEATURES, "resnet50": numbers(len(XY), 5)}
    path = files.atlaspatch(tmp_path / "case 1.h5", XY, two)
    assert detect(path) == "atlaspatch"
    with pytest.raises(FeatureError, match="--encoder: resnet50, uni_v1"):
        read_foreign(path)
    with pytest.raises(FeatureError, match="no features of phikon"):
        read_foreign(path, encoder="phikon")
    found = read_foreign(path, encoder="uni_v1")
    assert same(found) and found.encoder["spec"] == "uni_v1"
    assert found.grid.mpp == 0.5 and found.grid.slide["size"] == list(files.SIZE)
    one = files.atlaspatch(tmp_path / "one.h5", XY, {"uni_v1": FEATURES})
    assert same(read_foreign(one))


def test_anndata_of_somebody_else(tmp_path: Path) -> None:
    path = files.anndata(tmp_path / "case 1.h5ad", XY + 256, FEATURES)
    assert detect(path) == "anndata"
    with pytest.raises(FeatureError, match="--patch-size-level0"):
        read_foreign(path, mpp=MPP)
    assert same(read_foreign(path, mpp=MPP, patch_size_level0=512))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_raw2features(tmp_path: Path, zarr_format: int) -> None:
    path = tmp_path / "case 1.embeddings.zarr"
    files.raw2features(path, XY, ["uni", "phikon"], zarr_format)
    assert detect(path) == "raw2features"
    with pytest.raises(FeatureError, match="--encoder: .*phikon"):
        read_foreign(path)
    found = read_foreign(path, encoder="uni")
    assert same(found, features=FEATURES.astype(np.float16).astype(np.float32))
    assert found.grid.slide["mpp"] == [MPP, MPP] and found.grid.patch_size == 256


def test_a_slide_gives_identity_and_checks(
    tmp_path: Path, write_slide: WriteSlide
) -> None:
    xy = corners(4, 3, step=128, left=0, top=0)
    features = numbers(len(xy))
    path = files.trident(tmp_path / "x.h5", xy, features, 64, 128)
    with open_slide(write_slide(stained_image(600, 500))) as slide:
        found = read_foreign(path, slide=slide)
        assert found.grid.slide == {
            "name": "slide",
            "fingerprint": slide.fingerprint,
            "size": [600, 500],
            "mpp": [0.5, 0.5],
        }
        assert found.provenance["notes"] == []
        assert found.grid.mpp == 1.0 and found.grid.shape == (3, 4)
        far = files.trident(tmp_path / "far.h5", XY, FEATURES)
        with pytest.raises(FeatureError, match="outside the slide of 600x500"):
            read_foreign(far, slide=slide)


def test_a_scan_that_is_a_part_of_the_stage_has_its_own_origin(
    tmp_path: Path, write_slide: WriteSlide
) -> None:
    xy = corners(4, 3, step=128, left=0, top=0)
    features = numbers(len(xy))
    path = files.trident(tmp_path / "x.h5", xy + (3001, 704), features, 64, 128)
    with open_slide(write_slide(stained_image(600, 500))) as slide:
        stated = {"bounds": "x 3001, y 704, width 600, height 500"}
        cropped = replace(slide, file=replace(slide.file, properties=stated))
        assert same(read_foreign(path, slide=cropped), xy, features)


def test_patches_of_another_size_are_told(tmp_path: Path) -> None:
    path = files.trident(tmp_path / "x.h5", XY, FEATURES, level0=1024)
    found = read_foreign(path, patch_size_level0=512)
    assert found.grid.patch_size_level0 == (512, 512)
    assert any("states patches of 1024" in n for n in found.provenance["notes"])
