"""Files with the structure of scanners' formats: levels, resolution, pixels, privacy.

OpenSlide is the independent reader wherever it takes the file; tifffile's plain decode
of the page elsewhere.
"""

from __future__ import annotations

import json

import numpy as np
import openslide
import pytest
import tifffile
from numpy.testing import assert_array_equal

from napari_mcm.core.errors import SlideError
from napari_mcm.core.slides import open_slide
from tests.core.conftest import stained_image
from tests.core.slides import scanner_files as files

# A multiple of 8: of a JPEG's last block, OpenSlide leaves out what is cut off.
IMAGE = stained_image(1024, 704)
FORMATS = {
    "aperio": (files.write_svs, "slide.svs", [1, 4], "20"),
    "hamamatsu": (files.write_ndpi, "slide.ndpi", [1, 4], "20"),
    "leica": (files.write_scn, "slide.scn", [1, 4], "20"),
    "ventana": (files.write_bif, "slide.bif", [1, 2, 4], "40"),
    "akoya": (files.write_qptiff, "slide.qptiff", [1, 2, 4], "20"),
    "philips": (files.write_philips, "slide.tiff", [1, 2, 4], None),
}


@pytest.fixture(params=FORMATS)
def scanned(request, tmp_path):
    """Give the vendor, a file, and what is known of it."""
    write, name, downsamples, objective = FORMATS[request.param]
    return request.param, write(tmp_path / name, IMAGE, 0.4), downsamples, objective


def test_vendor_levels_and_resolution_are_read(scanned):
    vendor, path, downsamples, objective = scanned
    with open_slide(path) as slide:
        stored = [level.downsample[0] for level in slide.levels if level.stored]
        assert slide.backend == "tifffile"
        assert slide.properties["vendor"] == vendor
        assert slide.properties.get("objective") == objective
        assert slide.mpp == pytest.approx((0.4, 0.4), rel=1e-4)
        assert stored == pytest.approx(downsamples, rel=0.01)
        assert slide.size[0] == 1024


def test_pixels_are_those_of_an_independent_reader(scanned):
    vendor, path, _, _ = scanned
    with open_slide(path) as slide:
        mine = slide.read_level(0, 0, 0, 1024, 704)
        if vendor == "ventana":
            # OpenSlide wants stitching data that only a scanner writes.
            with tifffile.TiffFile(path) as tiff:
                page = next(p for p in tiff.pages if "level=0" in p.description)
                theirs = page.asarray()
        else:
            with openslide.OpenSlide(path) as other:
                start = [
                    int(other.properties.get(f"openslide.bounds-{a}", 0)) for a in "xy"
                ]
                region = other.read_region(tuple(start), 0, (1024, 704))
                theirs = np.asarray(region.convert("RGB"))
        assert_array_equal(mine, theirs[:704, :1024])


def test_coarser_levels_show_the_same_place(scanned):
    _, path, _, _ = scanned
    with open_slide(path) as slide:
        coarse = slide.read((0, 0), (100, 100), 1.6)
        fine = slide.read_level(0, 0, 0, 400, 400).reshape(100, 4, 100, 4, 3)
        # Chroma is subsampled in the file: shapes agree, colours nearly.
        assert abs(coarse - fine.mean(axis=(1, 3))).mean() < 4


def test_nothing_that_names_a_patient_is_given_out(scanned):
    _, path, _, _ = scanned
    with open_slide(path) as slide:
        told = json.dumps([dict(slide.properties), slide.warnings, slide.associated])
        for secret in ("Doe", "1950", "01/02", "0f3c", "Sm9", "UGF0"):
            assert secret not in told


def test_labels_are_images_of_their_own(scanned):
    vendor, path, _, _ = scanned
    with open_slide(path) as slide:
        names = {
            "aperio": {"thumbnail", "label", "macro"},
            "hamamatsu": {"macro"},
            "leica": {"macro"},
            "ventana": {"label"},
            "akoya": {"thumbnail", "macro", "label"},
            "philips": {"label"},
        }
        assert set(slide.associated) == names[vendor]
        for name in slide.associated:
            assert slide.associated_image(name).ndim == 3
        with pytest.raises(SlideError, match="has no map image"):
            slide.associated_image("map")


def test_the_ending_of_the_name_decides_nothing(scanned, tmp_path):
    vendor, path, _, _ = scanned
    other = path.rename(tmp_path / "slide.dat")
    with open_slide(other) as slide:
        assert slide.properties["vendor"] == vendor


def test_an_ndpi_is_read_in_restart_intervals(tmp_path):
    path = files.write_ndpi(tmp_path / "slide.ndpi", IMAGE)
    with open_slide(path) as slide:
        assert slide.levels[0].source.tile_size == (64, 8)
        assert slide.as_dask(0).chunksize == (512, 512, 3)


def test_overlapping_tiles_are_not_read_as_if_they_were_not(tmp_path):
    path = files.write_bif(tmp_path / "slide.bif", IMAGE, overlap=12)
    with pytest.raises(SlideError, match="overlap and must be stitched"):
        open_slide(path, backend="tifffile")


def test_padding_of_a_philips_level_is_not_part_of_it(tmp_path):
    path = files.write_philips(tmp_path / "slide.tiff", IMAGE)
    with open_slide(path) as slide:
        assert slide.levels[1].size == (512, 384)
        assert slide.levels[1].downsample == (2, 2)


def test_jpeg_2000_of_aperio_is_read(tmp_path):
    path = files.write_svs(tmp_path / "slide.svs", IMAGE, compression=33005)
    with open_slide(path) as slide, openslide.OpenSlide(path) as other:
        mine = slide.read_level(0, 0, 0, 1024, 704)
        theirs = np.asarray(other.read_region((0, 0), 0, (1024, 704)).convert("RGB"))
        assert_array_equal(mine, theirs)


def test_jpeg_2000_in_ycbcr_is_read(shared_data):
    path = shared_data / "slides" / "luna" / "1065626.svs"
    with open_slide(path) as slide, openslide.OpenSlide(path) as other:
        for corner in ((0, 0), (5000, 5000), (8000, 3000)):
            mine = slide.read(corner, (500, 500), slide.mpp[0]).astype(int)
            theirs = other.read_region(corner, 0, (500, 500)).convert("RGB")
            # Two libraries round the change of colour space by one grey level.
            assert abs(mine - np.asarray(theirs)).max() <= 1
