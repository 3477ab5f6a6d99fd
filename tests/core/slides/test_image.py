"""Ordinary pictures open as slides of one level and no resolution."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from napari_mcm.core.errors import SlideError, TileError
from napari_mcm.core.slides import backend_for, open_slide
from tests.core.slides.vendor_samples import write_vms
from tests.core.slides.zarr_samples import write_ome_zarr, zip_of


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (600, 700, 3), np.uint8)


def whole(slide) -> np.ndarray:
    return slide.read_level(0, 0, 0, *slide.size)


@pytest.mark.parametrize("kind", ["png", "bmp", "webp"])
def test_pictures_show_their_pixels_whatever_their_ending(tmp_path, noise, kind):
    path = tmp_path / "cells.tif"
    Image.fromarray(noise).save(path, format=kind, lossless=True, dpi=(300, 300))
    slide = open_slide(path)
    assert slide.backend == backend_for(path) == "picture"
    np.testing.assert_array_equal(whole(slide), noise)
    # Dots per inch are no microns.
    assert slide.stated_mpp is None
    assert slide.properties == {"compression": kind}
    assert open_slide(path, mpp=0.1).mpp == (0.1, 0.1)


def test_jpeg_is_as_stored_whatever_its_orientation(tmp_path, noise):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(noise).save(path, quality=100, subsampling=0, exif=exif)
    slide = open_slide(path)
    assert slide.size == (700, 600)
    assert np.abs(whole(slide).astype(int) - noise).max() <= 4


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA"])
def test_all_8_bit_pictures_become_rgb(tmp_path, noise, mode):
    image = Image.fromarray(noise).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    pixels = whole(open_slide(path))
    assert pixels.shape == noise.shape
    if mode != "CMYK":
        np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))


def test_what_is_transparent_is_white(tmp_path, noise):
    alpha = np.zeros((600, 700, 1), np.uint8)
    alpha[:300] = 255
    Image.fromarray(np.dstack([noise, alpha])).save(tmp_path / "a.png")
    pixels = whole(open_slide(tmp_path / "a.png"))
    np.testing.assert_array_equal(pixels[:300], noise[:300])
    assert (pixels[300:] == 255).all()


def test_16_bits_are_refused_or_said(tmp_path, noise):
    Image.fromarray(noise[..., 0].astype(np.uint16)).save(tmp_path / "a.png")
    assert_refused(tmp_path / "a.png", "holds 16-bit")
    (tmp_path / "b.png").write_bytes(png(2, 2, depth=16))
    assert open_slide(tmp_path / "b.png").warnings == (
        "its 16 bits per channel are read as 8",
    )


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(SlideError, match=message) as error:
        open_slide(path, backend="picture")
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def png(width: int, height: int, depth: int = 8, data: bytes = b"") -> bytes:
    """Write a PNG's header, and whatever data."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    for name, content in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(name + content))
        parts.append(struct.pack(">I", len(content)) + name + content + check)
    return b"".join(parts)


@pytest.mark.parametrize("side", [18_800, 2**31 - 1])
def test_a_huge_picture_is_refused_by_its_header(tmp_path, side):
    (tmp_path / "a.png").write_bytes(png(side, side))
    assert_refused(tmp_path / "a.png", "more than 350 megapixels")


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "bmp"])
def test_a_truncated_picture_is_an_error_not_grey(tmp_path, noise, kind):
    path = tmp_path / "a.bin"
    Image.fromarray(noise).save(path, format=kind)
    path.write_bytes(path.read_bytes()[:-20_000])
    try:
        slide = open_slide(path)
    except SlideError:
        # WebP is checked as a whole when it is opened.
        assert kind == "webp"
        return
    for _ in range(2):
        with pytest.raises(TileError, match="cannot be decoded") as error:
            whole(slide)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_scanner_s_large_profile_is_kept(tmp_path, noise, monkeypatch):
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 2**20)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile += bytes(2**21)
    Image.fromarray(noise).save(tmp_path / "a.png", icc_profile=profile)
    slide = open_slide(tmp_path / "a.png")
    assert slide.icc_profile == profile
    np.testing.assert_array_equal(whole(slide), noise)


def test_a_closed_picture_is_an_error(tmp_path, noise):
    Image.fromarray(noise).save(tmp_path / "a.png")
    slide = open_slide(tmp_path / "a.png")
    slide.close()
    with pytest.raises(TileError, match="closed"):
        whole(slide)


def test_each_file_is_taken_by_its_content(tmp_path, noise, write_slide):
    image = np.tile(noise, (2, 2, 1))[:640, :1024]
    Image.fromarray(image).save(tmp_path / "really-png.svs", format="png")
    write_slide(image).rename(tmp_path / "really-tiff.jpg")
    zarr = write_ome_zarr(tmp_path / "really-zarr.dcm", image)
    zip_of(zarr, tmp_path / "really-zip.tif")
    (tmp_path / "vms").mkdir()
    vms = write_vms(tmp_path / "vms", image, "really-vms.zarr")
    expected = {
        "really-png.svs": "picture",
        "really-tiff.jpg": "tifffile",
        "really-zarr.dcm": "OME-Zarr",
        "really-zip.tif": "OME-Zarr",
        f"vms/{vms.name}": "OpenSlide",
    }
    for name, backend in expected.items():
        slide = open_slide(tmp_path / name)
        assert slide.backend == backend_for(tmp_path / name) == backend
        assert np.abs(whole(slide).astype(int) - image).mean() < 30
