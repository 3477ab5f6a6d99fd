"""Tissue is found, pale or fat; pens, dirt, haze and damage are not tissue."""

from __future__ import annotations

import csv
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from napari_mcm.core.grid import make_grid
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import TissueConfig, TissueMask, find_tissue
from napari_mcm.core.tissue.search import glass_colour, search

HAEMATOXYLIN, EOSIN, DAB = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)
INKS = {
    "blue": (2.1, 1.35, 0.42),
    "green": (1.75, 0.62, 1.25),
    "black": (1.9, 1.85, 1.7),
    "red": (0.1, 1.2, 1.0),
}
CONFIG = TissueConfig()


def glass(side=200, colour=(243, 240, 242), seed=0):
    """Empty glass at 8 µm per pixel, with a camera's noise."""
    noise = np.random.default_rng(seed).normal(0, 1, (side, side, 3))
    return noise + np.asarray(colour, float)


def paint(image, where, stain, amount):
    """Absorb light by a stain."""
    density = np.where(where, amount, 0)[..., None] * np.asarray(stain)
    return image * 10**-density


def cells(side=200, seed=1):
    """Density of stain in tissue at 8 µm per pixel: cells give it texture."""
    rng = np.random.default_rng(seed)
    return 1 + 0.6 * rng.standard_normal((side, side)).clip(-1.5, 1.5)


def disk(side, x, y, radius):
    yy, xx = np.mgrid[:side, :side]
    return (xx - x) ** 2 + (yy - y) ** 2 < radius**2


def uint8(image):
    return np.clip(image, 0, 255).astype(np.uint8)


def overlap(mask, truth):
    return (mask & truth).sum() / (mask | truth).sum()


def test_tissue_is_the_stained_disk(tissue_slide):
    slide = open_slide(tissue_slide)
    tissue = find_tissue(slide, TissueConfig(tissue_mpp=4))
    y, x = (np.indices(tissue.mask.shape).T + 0.5).T * 8
    truth = (x - 600) ** 2 + (y - 500) ** 2 < 420**2
    assert overlap(tissue.mask, truth) > 0.94
    assert tissue.source == "found"


def test_blank_glass_holds_no_tissue(write_slide):
    noise = np.random.default_rng(0).normal(242, 2, (800, 800, 3))
    slide = open_slide(write_slide(uint8(noise)))
    tissue = find_tissue(slide)
    assert tissue.fraction == 0
    assert len(make_grid(slide, tissue)) == 0


@pytest.mark.parametrize(
    ("stain", "amount"),
    [(HAEMATOXYLIN, 0.06), (EOSIN, 0.08), (DAB, 0.07), (HAEMATOXYLIN, 0.5)],
)
def test_tissue_is_found_however_pale(stain, amount):
    truth = disk(200, 90, 110, 50)
    image = uint8(paint(glass(), truth, stain, amount * cells()))
    assert overlap(search(image, 8, CONFIG), truth) > 0.88


def test_brown_and_blue_side_by_side_are_not_grey():
    truth = disk(200, 90, 110, 50)
    brown = np.random.default_rng(3).random((200, 200)) < 0.5
    image = paint(glass(), truth & brown, DAB, 0.12 * cells())
    image = paint(image, truth & ~brown, HAEMATOXYLIN, 0.12 * cells())
    assert overlap(search(uint8(image), 8, CONFIG), truth) > 0.9


def test_fat_is_tissue_between_its_walls():
    truth = disk(200, 100, 100, 60)
    seeds = np.zeros((200, 200), bool)
    seeds[4::9, 4::9] = True
    walls = ndimage.distance_transform_edt(~seeds) >= 4
    image = uint8(paint(glass(), truth & walls, EOSIN, 0.12))
    assert walls[truth].mean() < 0.5
    assert search(image, 8, CONFIG)[disk(200, 100, 100, 50)].mean() > 0.95


def test_haze_shading_spots_and_dust_are_glass():
    image = glass(300)
    y, x = np.mgrid[:300, :300]
    image *= (1 - 0.06 * x / 300)[..., None]
    haze = np.exp(-((x - 220) ** 2 + (y - 150) ** 2) / 2 / 40**2)
    image = paint(image, True, EOSIN, 0.06 * haze)
    spots = ((x % 32 - 16) ** 2 + (y % 32 - 16) ** 2) < 25
    image = paint(image, spots, HAEMATOXYLIN, 0.012)
    dust = np.exp(-((x - 60) ** 2 + (y - 240) ** 2) / 2 / 5**2)
    image = paint(image, True, (1, 1, 1), 0.15 * dust)
    assert not search(uint8(image), 8, CONFIG).any()
    tissue = disk(300, 90, 90, 40)
    image = uint8(paint(image, tissue, HAEMATOXYLIN, 0.2 * cells(300)))
    assert overlap(search(image, 8, CONFIG), tissue) > 0.88


@pytest.mark.parametrize("ink", INKS)
@pytest.mark.parametrize("amount", [1.0, 0.5])
def test_pen_marks_are_not_tissue(ink, amount):
    truth = disk(240, 150, 150, 60)
    image = paint(glass(240), truth, HAEMATOXYLIN, 0.3 * cells(240))
    stroke = np.zeros((240, 240), bool)
    stroke[20:220, 20:60] = stroke[20:60, 20:220] = True
    streaks = ndimage.gaussian_filter(cells(240, 5), 3)
    mask = search(uint8(paint(image, stroke, INKS[ink], amount * streaks)), 8, CONFIG)
    assert mask[stroke].mean() < 0.01
    assert mask[truth].mean() > 0.97


def test_a_grey_line_that_touches_tissue_is_left_out():
    truth = disk(200, 60, 100, 40)
    image = paint(glass(), truth, HAEMATOXYLIN, 0.3 * cells())
    line = np.zeros((200, 200), bool)
    line[96:104, 90:] = True
    mask = search(uint8(paint(image, line, (1, 1, 1), 0.3)), 8, CONFIG)
    assert mask[truth & ~line].mean() > 0.97
    assert not mask[:, 110:].any()


@pytest.mark.parametrize("ink", INKS)
def test_tissue_under_a_pen_is_left_out(ink):
    image = paint(glass(), True, HAEMATOXYLIN, 0.2 * cells())
    stroke = np.zeros((200, 200), bool)
    stroke[80:120] = True
    mask = search(uint8(paint(image, stroke, INKS[ink], 1.0)), 8, CONFIG)
    assert mask[stroke].mean() < 0.1
    assert mask[:60].all() and mask[140:].all()


def test_damaged_and_unscanned_parts_are_glass():
    truth = disk(200, 90, 110, 50)
    image = uint8(paint(glass(), truth, HAEMATOXYLIN, 0.3 * cells()))
    image[:32, :64] = 128
    image[:, 110:] = 0
    mask = search(image, 8, CONFIG)
    truth[:, 110:] = False
    assert overlap(mask, truth) > 0.9
    # Black that nobody inked takes nothing of the tissue beside it.
    assert mask[100:120, 107:110].mean() > 0.9


def test_tissue_near_the_border_is_not_drawn_out_to_it():
    truth = disk(120, 60, 60, 56)
    image = uint8(paint(glass(120), truth, HAEMATOXYLIN, 0.3 * cells(120)))
    mask = search(image, 8, CONFIG)
    assert not mask[:2].any() and not mask[:, -2:].any()
    assert overlap(mask, truth) > 0.95


def test_a_crop_without_glass_is_all_tissue():
    pixels = np.full((60, 60, 3), 245.0)
    image = paint(pixels, True, HAEMATOXYLIN, 0.2 * cells(60))
    image = paint(image, True, EOSIN, 0.15 * cells(60, 7))
    assert search(uint8(image), 8, CONFIG).all()


@pytest.mark.parametrize("colour", [(226, 224, 235), (216, 216, 215), (236, 219, 234)])
def test_glass_has_a_colour_of_its_own(colour):
    image = paint(glass(colour=colour), disk(200, 90, 90, 60), EOSIN, 0.3 * cells())
    assert np.abs(glass_colour(uint8(image)) - colour).max() < 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (700, 2), (3, 3)])
@pytest.mark.parametrize("colour", [0, 128, 255, (220, 140, 190), (10, 200, 30)])
def test_odd_pictures_have_a_defined_mask(shape, colour):
    image = np.full((*shape, 3), colour, np.uint8)
    for mpp in (0.5, 8, 100):
        mask = search(image, mpp, CONFIG)
        assert mask.shape == shape and mask.dtype == bool
    if colour in (0, 128, 255):
        assert not mask.any()


@settings(max_examples=30, deadline=None)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3))),
    st.floats(0.1, 200),
)
def test_any_picture_has_a_mask_of_its_shape(image, mpp):
    assert search(image, mpp, CONFIG).shape == image.shape[:2]


def test_pieces_and_holes_below_their_sizes_go():
    image = glass()
    for x, radius in ((30, 4), (120, 40)):
        image = paint(image, disk(200, x, 100, radius), HAEMATOXYLIN, 0.3 * cells())
    image[disk(200, 120, 100, 8)] = 243
    holds = {}
    for name, config in {
        "all": TissueConfig(min_object_um=0, max_hole_um=0),
        "large": TissueConfig(min_object_um=120, max_hole_um=200),
    }.items():
        mask = search(uint8(image), 8, config)
        holds[name] = (bool(mask[100, 30]), bool(mask[100, 120]))
    assert holds == {"all": (True, False), "large": (False, True)}


def test_options_of_grids_need_no_image_libraries():
    code = (
        "import sys, napari_mcm.core.grid; "
        "print({'skimage', 'scipy', 'shapely', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


REAL = {"C2": "her2st_C2.svs", "C3": "her2st_C3.tiff", "C4": "her2st_C4.ome.tiff"}


@pytest.mark.parametrize("section", REAL)
def test_annotated_tissue_is_found_among_printed_spots(shared_data, section):
    folder = shared_data / "slides" / "her2st"
    with (folder / f"{section}_spots.csv").open() as file:
        rows = list(csv.DictReader(file))
    centres = np.array([[float(r["pixel_x"]), float(r["pixel_y"])] for r in rows])
    with open_slide(folder / REAL[section]) as slide:
        tissue = find_tissue(slide)
        xy = np.rint(centres - 73).astype(np.int64)
        assert tissue.coverage(xy, (146, 146)).mean() > 0.97
        # Everything outside the section is printed spots, haze and dust.
        pieces, count = ndimage.label(tissue.mask)
        assert 0.14 < tissue.fraction < 0.19
        assert np.bincount(pieces.ravel())[1:].max() > 0.99 * tissue.mask.sum()


def test_little_and_pale_tissue_is_all_that_is_found(shared_data):
    with open_slide(shared_data / "slides" / "luna" / "1065626.svs") as slide:
        tissue = find_tissue(slide)
    assert 0.006 < tissue.fraction < 0.014
    _, count = ndimage.label(tissue.mask)
    assert count <= 6


def test_coverage_is_exact_to_a_mask_pixel_s_edge():
    mask = np.zeros((4, 4), bool)
    mask[1, 1] = True
    tissue = TissueMask(mask, (10.0, 10.0))
    corners = np.array([[10, 10], [5, 10], [15, 15], [30, 30]])
    assert tissue.coverage(corners, (10, 10)) == pytest.approx([1, 0.5, 0.25, 0])


@settings(max_examples=50, deadline=None)
@given(
    arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))),
    st.integers(1, 5),
    st.integers(1, 7),
)
def test_coverage_of_tiles_adds_up_to_the_mask(mask, columns, rows):
    height, width = mask.shape
    tissue = TissueMask(mask, (columns * 3.0, rows * 2.0))
    size = (width * 3.0, height * 2.0)
    y, x = np.indices((rows, columns)).reshape(2, -1)
    xy = np.stack([x * width * 3, y * height * 2], axis=1)
    assert tissue.coverage(xy, size).mean() == pytest.approx(tissue.fraction)
