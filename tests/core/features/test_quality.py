"""Focus and artefacts of patches are measured, stored and read back."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage

from napari_mcm.core.encoders import load_encoder
from napari_mcm.core.errors import FeatureError, TileError
from napari_mcm.core.features import Status, extract, read_features
from napari_mcm.core.features.patches import artefact, blur, measure
from napari_mcm.core.grid import GridConfig, make_grid
from napari_mcm.core.runtime.jobs import Progress, run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import find_tissue
from tests.core.features.test_extract import ENCODER


def tissue(side=448, seed=0):
    """Nuclei on stroma at 0.25 µm per pixel, with a camera's optics and noise."""
    rng = np.random.default_rng(seed)
    nuclei = ndimage.gaussian_filter(rng.random((side, side)), 7)
    nuclei = nuclei > np.quantile(nuclei, 0.75)
    fibres = ndimage.gaussian_filter(rng.random((side, side)), (1, 6)) - 0.5
    density = nuclei[..., None] * (0.55, 0.6, 0.25) + 0.12 * np.array((0.1, 1, 0.3))
    image = 240 * 10 ** -(density + 0.8 * fibres[..., None])
    image = ndimage.gaussian_filter(image, (1, 1, 0)) + rng.normal(0, 1, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def out_of_focus(image, sigma):
    return ndimage.gaussian_filter(image.astype(float), (sigma, sigma, 0)).astype(
        np.uint8
    )


def halved(image):
    height, width, _ = image.shape
    parts = image.reshape(height // 2, 2, width // 2, 2, 3)
    return np.rint(parts.mean(axis=(1, 3))).astype(np.uint8)


def test_blur_grows_as_the_focus_is_lost():
    measured = [blur(out_of_focus(tissue(), s), 0.25) for s in (0, 1, 2, 4, 8, 16)]
    assert measured == sorted(measured)
    assert measured[0] < 0.5 and measured[-1] > 0.8
    assert min(np.diff(measured)[:4]) > 0.02


def test_blur_depends_little_on_resolution_and_size():
    image = tissue()
    for sigma in (0, 4):
        fine = out_of_focus(image, sigma)
        coarse = halved(fine)
        assert blur(coarse, 0.5) == pytest.approx(blur(fine, 0.25), abs=0.01)
        assert blur(halved(coarse), 1.0) == pytest.approx(blur(fine, 0.25), abs=0.15)
        assert blur(fine[:200, :150], 0.25) == pytest.approx(blur(fine, 0.25), abs=0.05)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))),
    st.floats(0.05, 60),
)
def test_measures_of_any_patch_are_from_0_to_1(pixels, mpp):
    before = pixels.copy()
    values = measure(pixels, mpp)
    assert set(values) == {"blur", "artefact"}
    assert all(0 <= value <= 1 for value in values.values())
    np.testing.assert_array_equal(pixels, before)


INKS = {
    "blue": (2.1, 1.35, 0.42),
    "green": (1.75, 0.62, 1.25),
    "black": (1.9, 1.85, 1.7),
    "red": (0.1, 1.2, 1.0),
}


@pytest.mark.parametrize("ink", INKS)
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_ink_is_an_artefact_by_its_share(ink, share):
    image = tissue()
    rows = round(len(image) * share)
    image[:rows] = image[:rows] * 10 ** -np.array(INKS[ink])
    # Nuclei under blue and red ink make it look like very dark tissue.
    assert 0.65 * share < artefact(image, 0.25) < share + 0.02


def test_tissue_and_glass_are_no_artefacts_but_folds_and_dust_are():
    assert artefact(tissue(), 0.25) < 0.005
    assert artefact(np.full((224, 224, 3), 243, np.uint8), 0.5) == 0
    assert artefact(np.full((224, 224, 3), (245, 240, 250), np.uint8), 0.5) == 0
    assert artefact(np.full((224, 224, 3), 20, np.uint8), 0.5) == 1
    assert artefact(np.full((224, 224, 3), (140, 138, 141), np.uint8), 0.5) == 1


def test_real_patches_are_clean_and_in_focus(shared_data):
    folder = shared_data / "patches"
    for path in sorted((folder / "monuseg").glob("*.jpg"))[::5]:
        image = np.asarray(Image.open(path).convert("RGB"))
        assert artefact(image, 0.25) < 0.01
        sharp, lost = blur(image, 0.25), blur(out_of_focus(image, 8), 0.25)
        assert sharp < 0.45 and lost > sharp + 0.3
    tiles = folder / "histolab_tiles"
    inked = np.asarray(Image.open(tiles / "medium-nuclei-score-green-pen-level1.jpg"))
    assert artefact(inked, 0.5) > 0.2


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(ENCODER)


@pytest.fixture
def slide(tissue_slide):
    with open_slide(tissue_slide) as slide:
        yield slide


@pytest.fixture
def grid(slide):
    return make_grid(slide, find_tissue(slide), GridConfig(patch_size=48))


def test_each_patch_keeps_its_measures(slide, grid, encoder, tmp_path, on_read):
    bad = tuple(grid.xy[3])

    def read(corner):
        if corner == bad:
            raise TileError("cannot be decoded", "tile 7")

    on_read(read)
    features = run(extract(slide, grid, encoder, tmp_path / "a", block=32))
    for name, values in features.quality.items():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(np.isfinite(values), features.ok, name)
    assert features.status[3] == Status.DECODE_ERROR
    for row in (0, 40, len(grid) - 1):
        pixels = slide.read(grid.xy[row], (48, 48), grid.mpp)
        for name, value in measure(pixels, grid.mpp).items():
            assert features.quality[name][row] == np.float32(value)


def test_measures_survive_a_broken_off_extraction(slide, grid, encoder, tmp_path):
    expected = run(extract(slide, grid, encoder, tmp_path / "whole", block=32))
    job = extract(slide, grid, encoder, tmp_path / "part", block=32)
    for event in job:
        if isinstance(event, Progress) and event.done >= 70:
            break
    job.close()
    part = run(extract(slide, grid, encoder, tmp_path / "part", block=32))
    for name, values in expected.quality.items():
        np.testing.assert_array_equal(part.quality[name], values)


def test_a_block_that_cannot_be_decoded_is_no_damage_to_the_file(
    slide, grid, encoder, tmp_path, on_read
):
    def read(_):
        raise TileError("cannot be decoded", "tile 7")

    path = tmp_path / "a.features.zarr"
    job = extract(slide, grid, encoder, path, block=32, workers=0)
    for event in job:
        if isinstance(event, Progress) and event.done >= 40:
            break
    job.close()
    on_read(read)
    features = run(extract(slide, grid, encoder, path, block=32))
    assert features.ok[:32].all() and not features.ok[32:].any()
    assert np.isnan(features.features[32:]).all()


def test_files_without_measures_are_read_and_gone_on_with(
    slide, grid, encoder, tmp_path
):
    path = tmp_path / "a.features.zarr"
    job = extract(slide, grid, encoder, path, block=32)
    for event in job:
        if isinstance(event, Progress) and event.done >= 70:
            break
    job.close()
    for name in ("blur", "artefact"):
        shutil.rmtree(path / name)
    features = run(extract(slide, grid, encoder, path, block=32))
    assert features.ok.all()
    for values in features.quality.values():
        assert values.shape == (len(grid),) and np.isnan(values).all()


def test_damaged_measures_are_refused(slide, grid, encoder, tmp_path):
    path = tmp_path / "a.features.zarr"
    run(extract(slide, grid, encoder, path, block=32))
    group = zarr.open_group(path, mode="r+")
    group["blur"][5] = 1.5
    with pytest.raises(FeatureError, match="blur is not from 0 to 1"):
        read_features(path)
    group["blur"][5] = 0.5
    (path / "artefact" / "c" / "1").unlink()
    with pytest.raises(FeatureError, match="1 chunk"):
        read_features(path)
    shutil.rmtree(path / "artefact")
    group.create_array("artefact", shape=(len(grid), 2), dtype="float32")
    with pytest.raises(FeatureError, match="artefact is float32 with 2"):
        read_features(path)
