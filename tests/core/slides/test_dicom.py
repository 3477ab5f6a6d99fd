"""A series of DICOM files is a slide, whichever of its files one points at."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ImageCms

from napari_mcm.core.errors import SlideError, TileError
from napari_mcm.core.slides import backend_for, open_slide

pytest.importorskip("wsidicom", reason="wsidicom is not installed")

from pydicom.uid import generate_uid

from tests.core.slides.dicom_samples import write_dicom_slide


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (300, 420, 3), np.uint8)


@pytest.fixture
def blocks() -> np.ndarray:
    small = np.random.default_rng(6).integers(0, 256, (20, 30, 3), np.uint8)
    return small.repeat(16, axis=0).repeat(16, axis=1)


def whole(slide, level: int = 0) -> np.ndarray:
    return slide.read_level(level, 0, 0, *slide.levels[level].size)


def finest(folder: Path) -> Path:
    return next(folder.glob("*.0.dcm"))


def test_a_folder_is_a_slide_with_its_levels_and_pictures(tmp_path, noise):
    path = write_dicom_slide(tmp_path / "d.case", noise)
    slide = open_slide(path)
    assert slide.backend == backend_for(path) == "DICOM" and slide.name == "d.case"
    np.testing.assert_array_equal(whole(slide), noise)
    np.testing.assert_array_equal(whole(slide, 1), noise[::4, ::4])
    assert slide.mpp == (0.5, 0.25) and slide.warnings == ()
    assert slide.levels[1].downsample == (4.0, 4.0) and slide.levels[1].stored
    np.testing.assert_array_equal(slide.associated_image("overview"), noise[::4, ::4])
    assert set(slide.associated) == {"label", "overview"}
    assert slide.icc_profile is None


def test_a_file_of_the_series_that_cannot_be_read_is_named(
    tmp_path, noise, monkeypatch
):
    path = write_dicom_slide(tmp_path / "d", noise)
    coarse, read = next(path.glob("*.1.dcm")), Path.open

    def refuse(self, *args, **kwargs):
        if self == coarse:
            raise PermissionError(13, "Permission denied", str(self))
        return read(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    slide = open_slide(path)
    assert f"{coarse.name} cannot be read (Permission denied)" in slide.warnings
    np.testing.assert_array_equal(whole(slide), noise)


def test_nothing_of_the_patient_is_kept(tmp_path, noise):
    slide = open_slide(write_dicom_slide(tmp_path / "d", noise))
    assert slide.properties == {
        "vendor": "Maker",
        "model": "Model",
        "objective": "20",
        "compression": "Explicit VR Little Endian",
    }


def test_one_file_stands_for_its_series(tmp_path, noise):
    path = write_dicom_slide(tmp_path / "d", noise)
    expected = open_slide(path).fingerprint
    for file in sorted(path.iterdir()):
        lying = file.rename(file.with_suffix(".tif"))
        slide = open_slide(lying)
        assert slide.backend == "DICOM"
        assert slide.fingerprint == expected
        np.testing.assert_array_equal(whole(slide), noise)


def test_slides_of_one_study_are_not_mixed(tmp_path, noise):
    study = generate_uid()
    write_dicom_slide(tmp_path / "d", noise, study=study)
    small = 255 - noise[:200, :300]
    write_dicom_slide(tmp_path / "e", small, study=study)
    for file in (tmp_path / "e").iterdir():
        file.rename(tmp_path / "d" / file.name)
    slide = open_slide(tmp_path / "d")
    np.testing.assert_array_equal(whole(slide), noise)
    assert any("2 slides" in warning for warning in slide.warnings)
    other = open_slide(
        next(f for f in (tmp_path / "d").glob("*.1.dcm") if f not in slide.file.files)
    )
    np.testing.assert_array_equal(whole(other), small)
    assert other.fingerprint != slide.fingerprint


def test_a_profile_is_kept(tmp_path, noise):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = write_dicom_slide(tmp_path / "d", noise, profile=profile)
    assert open_slide(path).icc_profile[: len(profile)] == profile
    assert open_slide(path, icc=True).size == (420, 300)


@pytest.fixture
def many_switches():
    """Let threads take turns often, so that what they share is found out."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_threads_read_the_same_pixels(tmp_path, noise, many_switches):
    slide = open_slide(write_dicom_slide(tmp_path / "d", noise))
    tiles = slide.file.levels[0]
    places = [(row, column) for row in range(3) for column in range(4)] * 150
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda place: tiles.decode(*place), places))
    for (row, column), tile in zip(places, found, strict=True):
        y, x = row * 128, column * 128
        np.testing.assert_array_equal(tile, noise[y : y + 128, x : x + 128])


def damage(file: Path, tile: int, how: str) -> None:
    """Damage the JPEG frame of one tile, which keeps its place and length."""
    content = bytearray(file.read_bytes())
    start = -1
    for _ in range(tile + 1):
        start = content.index(b"\xff\xd8\xff", start + 1)
    end = content.index(b"\xff\xd9", start) + 2
    if how == "cut":
        start = (start + end) // 2
    if how == "huge":
        at = content.index(b"\xff\xc0", start)
        content[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    else:
        content[start:end] = bytes(end - start)
    file.write_bytes(content)


@pytest.mark.parametrize("how", ["gone", "cut", "huge"])
def test_a_damaged_frame_is_an_error_of_that_tile(tmp_path, blocks, how):
    path = write_dicom_slide(tmp_path / "d", blocks, jpeg=True)
    expected = whole(open_slide(path))
    assert np.abs(expected.mean() - blocks.mean()) < 1
    damage(finest(path), 5, how)
    slide = open_slide(path)
    with pytest.raises(TileError, match=r"tile 1, 1, level 480 px wide") as error:
        slide.read_level(0, 130, 130, 10, 10)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    np.testing.assert_array_equal(slide.read_level(0, 0, 0, 480, 128), expected[:128])


@pytest.mark.parametrize("content", [b"", bytes(128) + b"DICM" + b"\xa5" * 5000])
def test_a_damaged_file_is_left_out_and_said(tmp_path, noise, content):
    path = write_dicom_slide(tmp_path / "d", noise)
    coarse = next(path.glob("*.1.dcm"))
    coarse.write_bytes(content)
    slide = open_slide(path)
    np.testing.assert_array_equal(whole(slide), noise)
    assert not any(level.stored for level in slide.levels[1:])
    assert any(coarse.name in warning for warning in slide.warnings)


def test_a_file_that_is_cut_short_is_refused_or_read_as_far(tmp_path, noise):
    path = write_dicom_slide(tmp_path / "d", noise, jpeg=True)
    file = finest(path)
    file.write_bytes(file.read_bytes()[:-40_000])
    assert_refused(path, "is truncated or damaged")
    plain = write_dicom_slide(tmp_path / "p", noise)
    file = finest(plain)
    file.write_bytes(file.read_bytes()[:-100_000])
    slide = open_slide(plain)
    np.testing.assert_array_equal(slide.read_level(0, 0, 0, 99, 99), noise[:99, :99])
    with pytest.raises(TileError):
        whole(slide)


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(SlideError, match=message) as error:
        open_slide(path, backend="DICOM")
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_slide_is_refused(tmp_path, noise):
    path = write_dicom_slide(tmp_path / "d", noise)
    for file in path.glob("*.?.dcm"):
        file.unlink()
    assert_refused(path, "holds no whole-slide image in DICOM")
    assert_refused(next(path.iterdir()), "is a label or overview")
    (tmp_path / "empty").mkdir()
    assert backend_for(tmp_path / "empty") is None


def test_without_wsidicom_the_extra_is_named(tmp_path, noise, monkeypatch):
    path = write_dicom_slide(tmp_path / "d", noise)
    monkeypatch.setitem(sys.modules, "wsidicom", None)
    assert_refused(path, r'pip install "napari-mcm\[dicom\]"')


def test_real_slides_equal_openslide(shared_data):
    openslide = pytest.importorskip("openslide", reason="openslide is not installed")
    slide = open_slide(shared_data / "slides/cmu1/CMU-1-Small-Region_dicom")
    other = openslide.OpenSlide(slide.file.files[0])
    theirs = np.asarray(other.read_region((0, 0), 0, slide.size))[..., :3]
    np.testing.assert_array_equal(whole(slide), theirs)
    # The same slide as SVS, compressed once less.
    svs = tifffile.imread(shared_data / "slides/cmu1/CMU-1-Small-Region.svs")
    assert np.abs(svs.astype(int) - theirs).mean() < 3
    assert slide.mpp == (0.499, 0.499)
    assert set(slide.associated) == {"label", "overview"}


def test_real_levels_and_overviews(shared_data):
    slides = shared_data / "slides"
    slide = open_slide(slides / "her2st/her2st_C5_dicom")
    assert slide.mpp == pytest.approx((0.688, 0.688))
    assert [level.size for level in slide.levels if level.stored] == [
        (9272, 9901),
        (2318, 2475),
        (579, 618),
    ]
    for file in (slides / "camelyon_dicom").iterdir():
        coarse = open_slide(file)
        assert coarse.mpp == (28.969, 28.968)
        assert whole(coarse).std() > 5
