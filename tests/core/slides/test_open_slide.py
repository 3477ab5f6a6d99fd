"""A slide opens, says what it is, and reads at any physical resolution."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_mcm.core.errors import SlideError, TileError, TruncatedError
from napari_mcm.core.slides import open_slide


@pytest.fixture
def noise() -> np.ndarray:
    """Pixels that differ everywhere, so that any shift shows."""
    return np.random.default_rng(1).integers(0, 256, (700, 900, 3), np.uint8)


def test_levels_resolution_and_size(write_slide, noise):
    slide = open_slide(write_slide(noise, mpp=0.25))
    assert slide.size == (900, 700)
    assert slide.mpp == (0.25, 0.25)
    assert [level.size for level in slide.levels] == [
        (900, 700),
        (450, 350),
        (225, 175),
    ]
    assert slide.levels[2].downsample == (4.0, 4.0)


def test_native_read_is_the_file_s_pixels(write_slide, noise):
    slide = open_slide(write_slide(noise))
    pixels = slide.read((230, 250), (300, 40), 0.5)
    np.testing.assert_array_equal(pixels, noise[250:290, 230:530])


def test_outside_the_slide_is_white(write_slide, noise):
    slide = open_slide(write_slide(noise))
    pixels = slide.read((-10, 690), (20, 20), 0.5)
    assert (pixels[:, :10] == 255).all()
    assert (pixels[10:] == 255).all()
    np.testing.assert_array_equal(pixels[:10, 10:], noise[690:700, :10])


@pytest.mark.parametrize("mpp", [0.5 * 1.37, 1.0, 1.3, 2.0, 3.7])
def test_a_resampled_read_shows_the_same_place_at_any_resolution(write_slide, mpp):
    # A plane of light: its value at a point does not depend on the resolution, so an
    # area average must give the value at each pixel's centre.
    y, x = np.mgrid[:800, :1000]
    plane = np.stack([x / 5, y / 5, (x + y) / 10], axis=2)
    slide = open_slide(write_slide(np.rint(plane).astype(np.uint8)))
    size, corner = (60, 50), (101, 57)
    step = mpp / 0.5
    got = slide.read(corner, size, mpp).astype(float)
    rows, columns = np.mgrid[:50, :60]
    at_x = corner[0] - 0.5 + (columns + 0.5) * step
    at_y = corner[1] - 0.5 + (rows + 0.5) * step
    expected = np.stack([at_x / 5, at_y / 5, (at_x + at_y) / 10], axis=2)
    assert np.abs(got - expected).max() < 1.6


def test_reads_come_from_the_next_finer_level(write_slide, noise):
    slide = open_slide(write_slide(noise))
    assert slide.plan(0.5).level == 0 and slide.plan(0.5).exact
    assert slide.plan(0.9).level == 0
    assert slide.plan(1.0).level == 1 and slide.plan(1.0).exact
    assert slide.plan(1.9).level == 1
    assert slide.plan(8.0).level == 2


def test_a_single_level_file_gets_coarser_levels_lazily(write_slide):
    image = np.random.default_rng(2).integers(0, 256, (1500, 2300, 3), np.uint8)
    slide = open_slide(write_slide(image, levels=1))
    assert [(level.size, level.stored) for level in slide.levels] == [
        ((2300, 1500), True),
        ((1150, 750), False),
        ((575, 375), False),
    ]
    made = slide.read_level(1, 500, 200, 100, 80).astype(float)
    block = image[400:560, 1000:1200].reshape(80, 2, 100, 2, 3).mean(axis=(1, 3))
    assert np.abs(made - block).max() <= 0.5


def test_as_dask_is_lazy_square_and_equal(write_slide, noise):
    slide = open_slide(write_slide(noise))
    lazy = slide.as_dask(0, chunk=256)
    assert lazy.chunksize == (256, 256, 3)
    np.testing.assert_array_equal(lazy.compute(), noise)


def test_a_missing_resolution_is_never_guessed(write_slide, noise):
    path = write_slide(noise, mpp=None)
    with pytest.raises(SlideError, match="--mpp-override"):
        _ = open_slide(path).mpp
    assert open_slide(path, mpp=0.25).mpp == (0.25, 0.25)


def test_screen_resolution_tags_are_not_a_slide_s_resolution(tmp_path, noise):
    path = tmp_path / "scan.tif"
    tifffile.imwrite(path, noise, tile=(256, 256), resolution=(72, 72))
    assert open_slide(path).stated_mpp is None
    tifffile.imwrite(
        path, noise, tile=(256, 256), resolution=(40_000, 20_000), resolutionunit=3
    )
    assert open_slide(path).mpp == pytest.approx((0.25, 0.5))


@pytest.mark.parametrize(
    "bad", [b"", b"II*\0", b"no picture at all", b"II*\0" + b"\xff" * 99]
)
def test_what_is_no_slide_is_refused_in_one_line(tmp_path, bad):
    path = tmp_path / "bad.svs"
    path.write_bytes(bad)
    with pytest.raises(SlideError) as error:
        open_slide(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SlideError, match="no such file"):
        open_slide(tmp_path / "nowhere.svs")


def test_sixteen_bit_images_are_refused_by_what_they_hold(tmp_path):
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, np.zeros((300, 300), np.uint16))
    with pytest.raises(SlideError, match="16 bits"):
        open_slide(path)


def test_a_damaged_tile_is_an_error_of_that_tile_alone(write_slide, noise):
    path = write_slide(noise, compression="jpeg")
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, length = page.dataoffsets[0], page.databytecounts[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + length] = b"\0" * length
    path.write_bytes(content)
    slide = open_slide(path)
    with pytest.raises(TileError, match="tile 0, 0"):
        slide.read((10, 10), (50, 50), 0.5)
    assert slide.read((300, 300), (50, 50), 0.5).shape == (50, 50, 3)
    # A viewer goes on: grey where the tile was.
    assert (slide.as_dask(0, 256)[:256, :256].compute() == 128).all()


def test_a_truncated_file_reads_as_far_as_it_goes(write_slide, noise):
    path = write_slide(noise, levels=1)
    content = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        end = tiff.pages[0].dataoffsets[5]
    path.write_bytes(content[:end])
    # The resolution stood at the end, in the OME-XML, and is gone with it.
    slide = open_slide(path, mpp=0.5)
    np.testing.assert_array_equal(
        slide.read((0, 0), (200, 200), 0.5), noise[:200, :200]
    )
    with pytest.raises(TileError):
        slide.read((850, 650), (50, 50), 0.5)


def test_a_truncated_file_says_how_much_is_missing(write_slide):
    image = np.random.default_rng(2).integers(0, 255, (1400, 2200, 3), np.uint8)
    path = write_slide(image, levels=1)
    whole = open_slide(path, mpp=0.5)
    assert whole.truncation == "" and whole.warnings == ()
    coarsest = len(whole.levels) - 1
    expected = whole.thumbnail(2.0)[0]
    with tifffile.TiffFile(path) as tiff:
        starts = tiff.pages[0].dataoffsets
    content = path.read_bytes()
    # Three of the six rows of nine tiles are there.
    path.write_bytes(content[: starts[27] + 5])
    slide = open_slide(path, mpp=0.5)
    assert slide.truncation == "is truncated: 27 of 54 tiles are missing"
    assert slide.warnings[0].startswith("is truncated: 27 of 54")
    # What is there is seen in computed levels, too: 768 rows of level 0.
    found = slide.thumbnail(2.0)[0]
    np.testing.assert_array_equal(found[:192], expected[:192])
    assert (found[192:] == 128).all()
    size = slide.levels[coarsest].size
    assert size == (550, 350) and found.shape == (350, 550, 3)

    path.write_bytes(content[: starts[0] + 5])
    with pytest.raises(TruncatedError, match="all of its 54 tiles are missing"):
        open_slide(path, mpp=0.5)


def test_threads_read_the_same_pixels(write_slide, noise):
    slide = open_slide(write_slide(noise))
    corners = [(x, y) for y in range(0, 600, 97) for x in range(0, 800, 91)]
    with ThreadPoolExecutor(8) as pool:
        patches = list(pool.map(lambda xy: slide.read(xy, (100, 100), 0.5), corners))
    for (x, y), patch in zip(corners, patches, strict=True):
        np.testing.assert_array_equal(patch, noise[y : y + 100, x : x + 100])


def test_a_slide_travels_between_processes_by_path(write_slide, noise):
    slide = open_slide(write_slide(noise), mpp=0.7)
    copy = pickle.loads(pickle.dumps(slide))
    assert copy.mpp == (0.7, 0.7)
    assert copy.fingerprint == slide.fingerprint


def test_fingerprint_follows_content_not_name(write_slide, noise, tmp_path):
    path = write_slide(noise)
    first = open_slide(path).fingerprint
    moved = path.rename(tmp_path / "renamed.ome.tif")
    assert open_slide(moved).fingerprint == first
    other = write_slide(255 - noise, "other.ome.tif")
    assert open_slide(other).fingerprint != first


def test_name_drops_every_ending(write_slide, noise):
    assert open_slide(write_slide(noise, "a.b.ome.tif")).name == "a.b"


REAL = ["her2st/her2st_C2.svs", "her2st/her2st_C3.tiff", "cmu1/CMU-1-Small-Region.svs"]


@pytest.mark.parametrize("name", [*REAL, "luna/1065626.svs"])
def test_real_slides_equal_openslide(shared_data: Path, name):
    openslide = pytest.importorskip("openslide", reason="openslide is not installed")
    slide = open_slide(shared_data / "slides" / name)
    other = openslide.OpenSlide(str(slide.path))
    assert slide.size == other.dimensions
    assert slide.mpp[0] == pytest.approx(float(other.properties["openslide.mpp-x"]))
    # JPEG 2000 decoders differ by a rounding.
    tolerance = 1 if "luna" in name else 0
    for corner in [(500, 400), (slide.size[0] // 2, slide.size[1] // 2)]:
        theirs = np.asarray(other.read_region(corner, 0, (300, 300)))[..., :3]
        mine = slide.read(corner, (300, 300), slide.mpp[0])
        assert np.abs(mine.astype(int) - theirs).max() <= tolerance


def test_real_ome_tiff_shows_all_levels(shared_data: Path):
    slide = open_slide(shared_data / "slides/her2st/her2st_C4.ome.tiff")
    assert [level.stored for level in slide.levels] == [True] * 5
    assert slide.mpp == pytest.approx((0.688, 0.688))
