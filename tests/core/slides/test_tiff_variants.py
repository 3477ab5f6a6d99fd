"""TIFFs as programs write them: planes, palettes, strips, stacks; and as attackers do."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal

from napari_mcm.core.errors import SlideError, TileError
from napari_mcm.core.slides import open_slide
from tests.core.conftest import stained_image

IMAGE = stained_image(700, 500)


def pixels_of(path):
    with open_slide(path) as slide:
        return slide.read_level(0, 0, 0, *slide.size)


@pytest.mark.parametrize(
    "options",
    [
        {"tile": (128, 128), "compression": "lzw", "predictor": True},
        {"tile": (128, 128), "compression": "zstd"},
        {"tile": (128, 128), "compression": "webp", "compressionargs": {"lossless": 1}},
        {"tile": (128, 128), "bigtiff": True, "byteorder": ">"},
        {"rowsperstrip": 16},
        {"rowsperstrip": 500},
        {"rowsperstrip": 7, "compression": "deflate"},
        {"compression": "packbits", "rowsperstrip": 500},
    ],
    ids=str,
)
def test_lossless_pixels_come_back_as_they_were(tmp_path, options):
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, IMAGE, photometric="rgb", metadata=None, **options)
    assert_array_equal(pixels_of(path), IMAGE)


def test_channels_stored_apart_are_put_together(tmp_path):
    path = tmp_path / "planar.tif"
    planes = np.moveaxis(IMAGE, 2, 0)
    tifffile.imwrite(
        path, planes, photometric="rgb", planarconfig="separate", tile=(128, 128)
    )
    assert_array_equal(pixels_of(path), IMAGE)


def test_three_pages_of_an_ome_tiff_are_red_green_and_blue(tmp_path):
    path = tmp_path / "channels.ome.tif"
    tifffile.imwrite(
        path,
        np.moveaxis(IMAGE, 2, 0),
        photometric="minisblack",
        tile=(128, 128),
        metadata={"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
    )
    assert_array_equal(pixels_of(path), IMAGE)
    with open_slide(path) as slide:
        assert slide.mpp == (0.5, 0.5)


def test_four_fluorescence_channels_are_refused(tmp_path):
    path = tmp_path / "channels.ome.tif"
    stack = np.zeros((4, 300, 300), np.uint8)
    tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": "CYX"})
    with pytest.raises(SlideError, match="4 channels, not red, green, blue"):
        open_slide(path)


def test_of_focal_planes_the_middle_one_is_read(tmp_path):
    path = tmp_path / "stack.ome.tif"
    stack = np.stack([IMAGE, 255 - IMAGE, IMAGE])
    tifffile.imwrite(path, stack, photometric="rgb", metadata={"axes": "ZYXS"})
    assert_array_equal(pixels_of(path), 255 - IMAGE)
    with open_slide(path) as slide:
        assert slide.warnings == ("holds 3 focal planes; the middle one is read",)


def test_a_palette_is_looked_up(tmp_path):
    path = tmp_path / "palette.tif"
    colours = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)
    index = np.arange(300 * 300).reshape(300, 300).astype(np.uint8)
    tifffile.imwrite(path, index, photometric="palette", colormap=colours << 8)
    assert_array_equal(pixels_of(path), colours.T[index])


@pytest.mark.parametrize(
    ("photometric", "value"), [("minisblack", 40), ("miniswhite", 215)]
)
def test_grey_is_grey_whichever_way_it_is_counted(tmp_path, photometric, value):
    path = tmp_path / "grey.tif"
    tifffile.imwrite(path, np.full((300, 300), 40, np.uint8), photometric=photometric)
    assert (pixels_of(path) == value).all()


def test_a_pyramid_of_pages_is_found(tmp_path):
    path = tmp_path / "pages.tif"
    with tifffile.TiffWriter(path) as tiff:
        for step in (1, 3, 9):
            level = np.ascontiguousarray(IMAGE[::step, ::step])
            tiff.write(level, tile=(64, 64), subfiletype=int(step > 1), metadata=None)
    with open_slide(path) as slide:
        assert [level.size[0] for level in slide.levels if level.stored] == [
            700,
            234,
            78,
        ]


def test_of_several_images_the_largest_is_read_and_the_user_is_told(tmp_path):
    path = tmp_path / "regions.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(IMAGE[:300], photometric="rgb")
        tiff.write(IMAGE, photometric="rgb")
    with open_slide(path) as slide:
        assert slide.size == (700, 500)
        assert slide.warnings == ("holds 2 images; the largest is read",)


def test_a_wide_gap_between_levels_is_filled_with_made_ones(tmp_path):
    path = tmp_path / "gap.tif"
    image = stained_image(2048, 2048)
    with tifffile.TiffWriter(path) as tiff:
        for step in (1, 16):
            level = np.ascontiguousarray(image[::step, ::step])
            tiff.write(level, tile=(256, 256), subfiletype=int(step > 1), metadata=None)
    with open_slide(path, mpp=0.5) as slide:
        assert [(lv.downsample[0], lv.stored) for lv in slide.levels] == [
            (1, True),
            (2, False),
            (4, False),
            (16, True),
        ]


def test_an_impossible_resolution_is_none(tmp_path):
    path = tmp_path / "nano.ome.tif"
    metadata = {"axes": "YXS", "PhysicalSizeX": 1e-9, "PhysicalSizeY": 1e-9}
    tifffile.imwrite(path, IMAGE, photometric="rgb", metadata=metadata)
    with open_slide(path) as slide:
        assert slide.stated_mpp is None


def jpeg_tile(width, height):
    """A JPEG header that promises a picture of that size, and nothing after it."""
    frame = struct.pack(">BHHB", 8, height, width, 3) + bytes.fromhex(
        "011100021101031101"
    )
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9"


def test_a_tile_that_promises_gigabytes_is_not_decoded(tmp_path):
    path = tmp_path / "bomb.tif"
    tiles = iter([jpeg_tile(65000, 65000)] * 4)
    tifffile.imwrite(
        path,
        tiles,
        shape=(256, 256, 3),
        dtype=np.uint8,
        tile=(128, 128),
        photometric="ycbcr",
        compression="jpeg",
    )
    with open_slide(path) as slide, pytest.raises(TileError, match="65000 x 65000 px"):
        slide.read_level(0, 0, 0, 128, 128)


def test_entities_in_xml_are_refused_unread(tmp_path):
    path = tmp_path / "laughs.ome.tif"
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
    xml = (
        f'<?xml version="1.0"?><!DOCTYPE O [<!ENTITY l0 "ha">{laughs}]><OME>&l11;</OME>'
    )
    tifffile.imwrite(path, IMAGE, photometric="rgb", description=xml, metadata=None)
    with pytest.raises(SlideError, match="defines entities"):
        open_slide(path, backend="tifffile")


def test_directories_that_point_at_each_other_end(tmp_path):
    path = tmp_path / "circle.tif"
    with tifffile.TiffWriter(path) as tiff:
        for _ in range(2):
            tiff.write(IMAGE, photometric="rgb", tile=(128, 128), metadata=None)
    with tifffile.TiffFile(path) as tiff:
        first, second = (page.offset for page in tiff.pages)
    data = bytearray(path.read_bytes())
    count = struct.unpack_from("<H", data, second)[0]
    struct.pack_into("<I", data, second + 2 + 12 * count, first)
    path.write_bytes(data)
    assert_array_equal(pixels_of(path), IMAGE)


def test_an_absurd_size_is_refused(tmp_path):
    path = tmp_path / "absurd.tif"
    tifffile.imwrite(path, IMAGE, photometric="rgb", tile=(128, 128), metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages.first.tags["ImageWidth"].overwrite(2**31)
    with pytest.raises(SlideError, match="absurd size"):
        open_slide(path, backend="tifffile")
