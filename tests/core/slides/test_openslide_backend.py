"""What OpenSlide reads becomes a slide; its handle outlives damaged tiles."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_mcm.core.errors import SlideError, TileError
from napari_mcm.core.slides import backend_for, open_slide
from tests.core.slides.vendor_samples import (
    damage_tile,
    write_scn,
    write_svs,
    write_vms,
)

pytest.importorskip("openslide", reason="openslide is not installed")


@pytest.fixture
def blocks() -> np.ndarray:
    """Blocks of one colour, which JPEG keeps; 1,024 × 640 px."""
    small = np.random.default_rng(4).integers(0, 256, (40, 64, 3), np.uint8)
    return small.repeat(16, axis=0).repeat(16, axis=1)


def whole(slide, level: int = 0) -> np.ndarray:
    return slide.read_level(level, 0, 0, *slide.levels[level].size)


def stored(path: Path, page: int) -> np.ndarray:
    with tifffile.TiffFile(path) as tiff:
        return tiff.pages[page].asarray()


def assert_close(a: np.ndarray, b: np.ndarray, tolerance: int) -> None:
    assert a.shape == b.shape
    assert np.abs(a.astype(int) - b).max() <= tolerance


def test_vms_is_known_by_its_text_and_read(tmp_path, blocks):
    path = write_vms(tmp_path, blocks, "renamed.txt")
    assert backend_for(path) == "OpenSlide"
    slide = open_slide(path)
    assert slide.backend == "OpenSlide"
    assert slide.size == (1024, 640) and slide.mpp == (0.5, 0.25)
    assert slide.properties == {"vendor": "hamamatsu", "objective": "20"}
    assert_close(whole(slide), blocks, 1)
    assert slide.levels[1].downsample == (2.0, 2.0) and slide.levels[1].stored
    assert slide.associated_image("macro").shape == (160, 256, 3)
    assert slide.icc_profile is None


def test_vms_slides_differ_by_the_files_beside(tmp_path, blocks):
    prints = []
    for name, image in (("a", blocks), ("b", 255 - blocks)):
        (tmp_path / name).mkdir()
        prints.append(open_slide(write_vms(tmp_path / name, image)).fingerprint)
    assert prints[0] != prints[1]


def test_svs_equals_what_tifffile_reads(tmp_path, blocks):
    path = write_svs(tmp_path / "a.svs", blocks)
    slide = open_slide(path, backend="OpenSlide")
    assert slide.levels[0].source.tile_size == (128, 128)
    assert slide.mpp == (0.5, 0.5)
    for level in (0, 1):
        np.testing.assert_array_equal(whole(slide, level), stored(path, level))


def test_only_what_was_scanned_is_the_slide(tmp_path, blocks):
    path = write_scn(tmp_path / "a.scn", blocks, corner=(101, 203), glass=(2000, 1500))
    slide = open_slide(path, backend="OpenSlide")
    assert slide.size == (1024, 640)
    assert slide.properties["bounds"] == "x 101, y 203, width 1024, height 640"
    np.testing.assert_array_equal(whole(slide), stored(path, 0))
    assert slide.levels[1].size == (512, 320)
    # Half a pixel off the level's own lattice: what lies inside the blocks stays.
    inside = (slice(4, None, 8), slice(4, None, 8))
    assert_close(whole(slide, 1)[inside], stored(path, 1)[inside], 8)


def test_where_nothing_was_scanned_is_white(tmp_path, blocks):
    import openslide

    from napari_mcm.core.slides.backends.openslide.tiles import Handle

    path = write_scn(tmp_path / "a.scn", blocks, corner=(101, 203), glass=(2000, 1500))
    pixels = Handle(path, openslide).region((91, 203), 0, (20, 20))
    assert (pixels[:, :9] == 255).all()
    np.testing.assert_array_equal(pixels[:, 10:], stored(path, 0)[:20, :10])


def test_a_damaged_tile_spoils_neither_its_neighbours_nor_later_reads(tmp_path, blocks):
    path = write_svs(tmp_path / "a.svs", blocks)
    good = open_slide(path, backend="OpenSlide")
    expected = whole(good)
    good.close()
    damage_tile(path, 2 * 8 + 3)
    slide = open_slide(path, backend="OpenSlide")
    tiles = slide.levels[0].source
    places = [(row, column) for row in range(5) for column in range(8)] * 3

    def read(place: tuple[int, int]) -> np.ndarray | str:
        try:
            return slide.file.levels[0].decode(*place)
        except TileError as error:
            return str(error)

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(read, places))
    for (row, column), tile in zip(places, found, strict=True):
        if (row, column) == (2, 3):
            assert "at level-0 pixel 384, 256" in tile and "\n" not in tile
        else:
            part = np.s_[row * 128 : row * 128 + 128, column * 128 : column * 128 + 128]
            np.testing.assert_array_equal(tile, expected[part])
    assert tiles.decode(0, 0).shape == (128, 128, 3)


def test_reading_a_closed_slide_is_an_error(tmp_path, blocks):
    slide = open_slide(write_vms(tmp_path, blocks))
    slide.close()
    with pytest.raises(TileError, match="is closed"):
        slide.read_level(0, 0, 0, 10, 10)


def test_mrxs_is_told_from_a_photograph_by_its_folder(tmp_path, blocks):
    path = tmp_path / "a.mrxs"
    Image.fromarray(blocks).save(path, format="jpeg")
    assert backend_for(path) != "OpenSlide"
    (tmp_path / "a").mkdir()
    (tmp_path / "a/Slidedat.ini").write_text("[GENERAL]\n")
    assert backend_for(path) == "OpenSlide"


def test_a_database_is_no_slide(tmp_path):
    path = tmp_path / "a.svslide"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE other (x)")
    assert backend_for(path) is None
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE DataManagerSQLiteConfigXPO (x)")
    assert backend_for(path) == "OpenSlide"
    assert_refused(path, "OpenSlide")


def test_a_vms_whose_pictures_are_missing_is_one_line(tmp_path, blocks):
    path = write_vms(tmp_path, blocks)
    (tmp_path / "slide.jpg").unlink()
    assert_refused(path, "cannot be opened by OpenSlide")


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(SlideError, match=message) as error:
        open_slide(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_without_openslide_the_extra_is_named(tmp_path, blocks, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "openslide", None)
    assert_refused(
        write_vms(tmp_path, blocks), r'pip install "napari-mcm\[openslide\]"'
    )


def test_a_real_slide_equals_tifffile(shared_data):
    slide = open_slide(
        shared_data / "slides/cmu1/CMU-1-Small-Region.svs", backend="OpenSlide"
    )
    np.testing.assert_array_equal(whole(slide), tifffile.imread(slide.path))
    assert slide.mpp == (0.499, 0.499)
    assert set(slide.associated) == {"label", "macro", "thumbnail"}
    assert slide.associated_image("macro").shape == (431, 1280, 3)


def test_a_real_profile_is_kept(shared_data):
    path = shared_data / "slides/luna/1065626.svs"
    theirs = open_slide(path, backend="OpenSlide").icc_profile
    assert theirs is not None and theirs[36:40] == b"acsp"
