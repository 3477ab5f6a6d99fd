"""Rows of patches, mended levels, pictures of damaged slides, colour profiles, URLs."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image, ImageCms

from napari_mcm.core.errors import SlideError, TileError
from napari_mcm.core.slides import backend_for, open_slide, pyramid
from napari_mcm.core.slides.levels import LONGEST_ROW, Level, rows_of
from napari_mcm.core.slides.paths import shown, url_of
from napari_mcm.core.slides.resample import area_average, area_averages
from tests.core.conftest import stained_image

IMAGE = stained_image(1200, 900)


def damage(path: Path, level: int, tiles: list[int]) -> None:
    """Overwrite the middle of some tiles of a level."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.series[0].levels[level].keyframe
        places = [(page.dataoffsets[i], page.databytecounts[i]) for i in tiles]
    with path.open("r+b") as file:
        for offset, length in places:
            file.seek(offset)
            file.write(bytes([255]) * length)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31),
    st.floats(0.4, 7.3),
    st.floats(0, 3),
    st.integers(1, 25),
    st.integers(1, 25),
)
def test_each_pixel_is_the_mean_over_its_area(seed, factor, start, width, height):
    rng = np.random.default_rng(seed)
    side = int(np.ceil(start + 25 * factor)) + 1
    image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    box = (start, start, start + width * factor, start + height * factor)
    result = area_average(image, box, (width, height))
    # The same by integrals: what lies under each pixel, from the sums up to its edges.
    sums = np.zeros((side + 1, side + 1, 3))
    sums[1:, 1:] = image.cumsum(0, dtype=float).cumsum(1)

    def upto(y, x):
        j, i = np.minimum(y.astype(int), side - 1), np.minimum(x.astype(int), side - 1)
        v, u = (y - j)[:, None, None], (x - i)[None, :, None]
        a, b = sums[j][:, i], sums[j][:, i + 1]
        c, d = sums[j + 1][:, i], sums[j + 1][:, i + 1]
        return a * (1 - v) * (1 - u) + b * (1 - v) * u + c * v * (1 - u) + d * v * u

    y = start + np.arange(height + 1) * factor
    x = start + np.arange(width + 1) * factor
    exact = np.diff(np.diff(upto(y, x), axis=0), axis=1) / factor**2
    assert abs(result - exact).max() <= 0.5 + 1e-3


def test_neighbours_are_resampled_to_the_bit_as_they_are_alone():
    spans = [(0.0, 100.5), (100.0, 200.5), (201.25, 301.75)]
    together = area_averages(IMAGE, (10.5, 90.5), spans, (60, 40))
    for (left, right), part in zip(spans, together, strict=True):
        alone = area_average(IMAGE, (left, 10.5, right, 90.5), (60, 40))
        assert_array_equal(part, alone)


@pytest.mark.parametrize("mpp", [0.5, 0.9, 1.0, 1.7])
def test_patches_of_a_row_are_those_read_one_by_one(write_slide, mpp):
    with open_slide(write_slide(IMAGE, mpp=0.5)) as slide:
        step = 64 * mpp / 0.5
        corners = [
            (round(column * step), round(row * step))
            for row in range(-1, 5)
            for column in range(-1, 9)
        ]
        together = list(slide.read_many(corners, (64, 64), mpp))
        assert len(together) == len(corners)
        for corner, part in zip(corners, together, strict=True):
            assert_array_equal(part, slide.read(corner, (64, 64), mpp))


def test_rows_are_runs_of_neighbours():
    corners = [(x, 0) for x in range(0, 100, 10)] + [(0, 10), (10, 10), (40, 10)]
    found = [list(row) for row in rows_of(corners, 10)]
    assert [len(row) for row in found] == [LONGEST_ROW, 2, 2, 1]
    assert sum(found, []) == corners


def test_a_damaged_tile_costs_its_own_patches_only(write_slide):
    path = write_slide(IMAGE, compression="jpeg")
    damage(path, 0, [6])  # the second tile of the second row
    with open_slide(path) as slide:
        corners = [(x, 300) for x in range(0, 1100, 64)]
        parts = list(slide.read_many(corners, (64, 64), 0.5))
        hit = [isinstance(part, TileError) for part in parts]
        assert hit == [x + 64 > 256 and x < 512 for x, _ in corners]
        assert "tile 1, 1" in str(parts[hit.index(True)])


def test_a_damaged_tile_of_a_coarse_level_is_made_from_the_finer_one(
    write_slide, caplog
):
    path = write_slide(IMAGE, compression="jpeg")
    with open_slide(path) as slide:
        whole = slide.read_level(1, 0, 0, 600, 450).astype(int)
    damage(path, 1, [1])
    with open_slide(path) as slide, caplog.at_level(logging.WARNING):
        mended = slide.read_level(1, 0, 0, 600, 450)
        assert_array_equal(mended[:, :256], whole[:, :256])
        # JPEG at one scale is not JPEG at another.
        assert abs(mended - whole)[:256, 256:512].mean() < 6
    assert "computed from the next finer level" in caplog.text


def test_a_picture_of_a_damaged_slide_is_grey_where_it_is_damaged(write_slide):
    path = write_slide(IMAGE, compression="jpeg", levels=1)
    damage(path, 0, [0])
    with open_slide(path) as slide:
        picture, mpp = slide.thumbnail(2.0)
        assert mpp == 2.0
        assert (picture[:60, :60] == 128).all()
        assert (picture[70:, 70:] != 128).any()
        lazy = np.asarray(slide.as_dask(0)[:300, :300])
        assert (lazy[:256, :256] == 128).all()
        assert not (lazy[256:, 256:] == 128).all()


def test_a_thumbnail_in_bands_is_the_same_as_in_one_piece(write_slide):
    with open_slide(write_slide(IMAGE, levels=1)) as slide:
        picture, mpp = slide.thumbnail(1.3)
        height, width = picture.shape[:2]
        whole = slide.read((0, 0), (width, height), mpp)
        assert abs(picture.astype(int) - whole).max() <= 1


def test_threads_share_a_slide(write_slide):
    with open_slide(write_slide(IMAGE, compression="jpeg")) as slide:
        corners = [(x, y) for y in range(0, 800, 60) for x in range(0, 1100, 60)]
        alone = [slide.read(corner, (60, 60), 0.7) for corner in corners]
        slide.cache.clear()
        wrong: list[object] = []

        def work(start: int) -> None:
            for i in range(start, len(corners), 4):
                if (slide.read(corners[i], (60, 60), 0.7) != alone[i]).any():
                    wrong.append(corners[i])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_a_slide_travels_with_what_it_was_opened_with(write_slide):
    with open_slide(write_slide(IMAGE), mpp=0.3, backend="tifffile") as slide:
        twin = pickle.loads(pickle.dumps(slide))
        assert (twin.mpp, twin.opened_with) == ((0.3, 0.3), slide.opened_with)


def write_with_profile(path: Path, profile: bytes) -> Path:
    tifffile.imwrite(
        path,
        IMAGE,
        photometric="rgb",
        tile=(256, 256),
        metadata=None,
        iccprofile=profile,
    )
    return path


def test_a_profile_is_applied_on_request_only(tmp_path):
    # A display's profile with red and blue changed over shows what it does.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    at = {name: profile.index(name, 128) for name in (b"rXYZ", b"bXYZ")}
    swapped = bytearray(profile)
    swapped[at[b"rXYZ"] : at[b"rXYZ"] + 4] = b"bXYZ"
    swapped[at[b"bXYZ"] : at[b"bXYZ"] + 4] = b"rXYZ"
    path = write_with_profile(tmp_path / "slide.tif", bytes(swapped))
    with open_slide(path) as plain, open_slide(path, icc=True) as managed:
        stored = plain.read_level(0, 0, 0, 1200, 900)
        assert_array_equal(stored, IMAGE)
        assert plain.icc_profile == bytes(swapped)
        shown = managed.read_level(0, 0, 0, 1200, 900).astype(int)
        assert abs(shown - IMAGE[:, :, ::-1]).mean() < 2


def test_asking_for_a_profile_that_is_not_there_is_one_line(write_slide, tmp_path):
    with pytest.raises(SlideError, match="holds no ICC profile to apply"):
        open_slide(write_slide(IMAGE), icc=True)
    path = write_with_profile(tmp_path / "slide.tif", b"\0" * 200)
    with pytest.raises(SlideError, match="its ICC profile cannot be used"):
        open_slide(path, icc=True)


def test_a_slide_with_a_damaged_profile_opens_and_says_so(tmp_path, monkeypatch):
    sound = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert open_slide(write_with_profile(tmp_path / "a.tif", sound)).warnings == ()
    slide = open_slide(write_with_profile(tmp_path / "b.tif", sound[:100] + b"\0" * 99))
    (warning,) = slide.warnings
    assert warning.startswith("its ICC profile cannot be used (")
    assert warning.endswith("; colours are as stored")
    assert_array_equal(slide.read_level(0, 0, 0, 1200, 900), IMAGE)

    def fail(page):
        raise ValueError("tag is\ndamaged")

    monkeypatch.setattr("napari_mcm.core.slides.backends.tiff.backend._profile", fail)
    slide = open_slide(tmp_path / "a.tif")
    assert slide.icc_profile is None and "(tag is damaged)" in slide.warnings[0]
    with pytest.raises(SlideError, match=r"cannot be used \(tag is damaged\)\. Leave"):
        open_slide(tmp_path / "a.tif", icc=True)


@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.EACCES, "Ask for permission"), (errno.ESTALE, "network drive")],
)
def test_a_file_that_cannot_be_read_is_not_called_damaged(
    write_slide, monkeypatch, number, hint
):
    path = write_slide(IMAGE)

    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(tifffile, "TiffFile", fail)
    with pytest.raises(SlideError) as error:
        open_slide(path, backend="tifffile")
    message = str(error.value)
    assert f"cannot be read ({os.strerror(number)}). " in message and hint in message
    assert "copy it again" not in message and "TIFF" not in message


def test_a_folder_that_cannot_be_listed_is_one_line(tmp_path, monkeypatch):
    def fail(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (tmp_path / "a.zarr").mkdir()
    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(
        SlideError, match=r"a\.zarr: cannot be read \(Permission denied"
    ):
        open_slide(tmp_path / "a.zarr")


def test_a_backend_that_cannot_look_into_a_file_reports_it(tmp_path, monkeypatch):
    def fail(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", fail)
    assert backend_for(tmp_path) is None
    with pytest.raises(SlideError, match=r"cannot be read \(Permission denied\)\. Ask"):
        open_slide(tmp_path)


def test_what_is_no_slide_says_what_was_looked_for(tmp_path):
    path = tmp_path / "letter.svs"
    path.write_text("Dear Sir")
    assert backend_for(path) is None
    assert backend_for(tmp_path / "nothing") is None
    with pytest.raises(SlideError) as raised:
        open_slide(path)
    for name in ("tifffile", "OME-Zarr", "DICOM", "OpenSlide"):
        assert name in str(raised.value)


def test_a_picture_needs_a_resolution_and_gets_one(tmp_path):
    path = tmp_path / "cells.png"
    Image.fromarray(IMAGE).save(path, dpi=(300, 300))
    with open_slide(path) as slide:
        assert slide.stated_mpp is None
    with open_slide(path, mpp=0.25) as slide:
        assert slide.read((0, 0), (50, 50), 0.5).shape == (50, 50, 3)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://host.org/a/b.zarr", "https://host.org/a/b.zarr"),
        ("https:/host.org/a/b.zarr", "https://host.org/a/b.zarr"),
        ("s3:\\bucket\\key.zarr", "s3://bucket/key.zarr"),
        ("/data/https/a.svs", None),
        ("C:/slides/a.svs", None),
    ],
)
def test_urls_survive_being_paths(given, url):
    assert url_of(Path(given)) == url_of(given) == url
    assert shown(given) == (url or given)


def test_what_signs_somebody_in_is_not_shown():
    url = "https://user:secret@host.org/a/b.zarr?signature=abc"
    assert shown(Path(url)) == "https://host.org/a/b.zarr"
    assert url_of(Path(url)) == url


class _Stored:
    """Pixels as tiles of any size; without pixels, none can be decoded."""

    def __init__(self, size, tile_size, pixels=None):
        self.size, self.tile_size, self._pixels = size, tile_size, pixels
        self.decoded = 0

    def decode(self, row, column):
        if self._pixels is None:
            raise TileError("cannot be decoded")
        self.decoded += 1
        width, height = self.tile_size
        x, y = column * width, row * height
        return self._pixels[y : y + height, x : x + width]


def test_a_damaged_tile_as_large_as_its_level_is_made_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    finer = rng.integers(0, 256, (1750, 2531, 3), np.uint8)
    size, factor = (1260, 871), (2531 / 1260, 1750 / 871)
    level = Level(_Stored((2531, 1750), (256, 256), finer), (1.0, 1.0))
    asked = []

    def average(image, box, part):
        asked.append(image.shape[0] * image.shape[1])
        return area_average(image, box, part)

    monkeypatch.setattr(pyramid, "area_average", average)
    made = pyramid.BlankFilledTiles(_Stored(size, size), level, factor).decode(0, 0)
    whole = area_average(finer, (0, 0, 2531, 1750), size)
    # Where a boundary falls within a rounding error of a half, either side is right.
    difference = np.abs(made.astype(int) - whole.astype(int))
    assert made.shape == whole.shape and difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
    assert max(asked) < 1.1e6
