"""What extraction does when files, disks and people get in its way."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tifffile
import zarr

from napari_mcm.core.encoders import ComputeConfig, Encoder, load_encoder
from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features import (
    ExtractConfig,
    Status,
    extract,
    extract_slides,
    patches,
    read_features,
)
from napari_mcm.core.features import extraction as outputs
from napari_mcm.core.features.patches import is_blank
from napari_mcm.core.grid import GridConfig, PatchGrid, make_grid
from napari_mcm.core.runtime.jobs import Progress, run
from napari_mcm.core.slides import ReadConfig, open_slide
from napari_mcm.core.tissue import find_tissue
from tests.core.conftest import stained_image

ENCODER = "random:test_resnet"
BLOCK = 32


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(ENCODER, ComputeConfig(precision="float32"))


@pytest.fixture
def jpeg_slide(write_slide):
    return write_slide(stained_image(1200, 1000), "jpeg.ome.tif", compression="jpeg")


@pytest.fixture
def slide(jpeg_slide):
    with open_slide(jpeg_slide) as slide:
        yield slide


@pytest.fixture
def grid(slide):
    return make_grid(slide, find_tissue(slide), GridConfig(patch_size=48))


def spoil_tile(path, number):
    """Overwrite the start of a level-0 tile, which holds what a decoder needs."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, count = page.dataoffsets[number], page.databytecounts[number]
        columns = -(-page.imagewidth // page.tilewidth)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\x00" * count)
    x, y = number % columns * 256, number // columns * 256
    return x, y, x + 256, y + 256


def steps(job, until):
    """Drive a job until so many patches are done, then close it."""
    for event in job:
        if isinstance(event, Progress) and event.done >= until:
            break
    job.close()


def test_patches_on_a_damaged_tile_are_told_and_no_others(
    jpeg_slide, encoder, tmp_path
):
    left, top, right, bottom = spoil_tile(jpeg_slide, 7)
    with open_slide(jpeg_slide) as slide:
        grid = make_grid(slide, find_tissue(slide), GridConfig(patch_size=48))
        features = run(extract(slide, grid, encoder, tmp_path / "a.features.zarr"))
    x, y = grid.xy[:, 0], grid.xy[:, 1]
    over = (x + 48 > left) & (x < right) & (y + 48 > top) & (y < bottom)
    assert 4 < over.sum() < len(grid) / 2
    np.testing.assert_array_equal(features.status == Status.DECODE_ERROR, over)
    np.testing.assert_array_equal(np.isnan(features.features).all(axis=1), over)
    assert len(features.provenance["problems"]) == over.sum()
    assert not any(str(tmp_path) in line for line in features.provenance["problems"])


def test_a_truncated_slide_is_refused_as_such(write_slide, tmp_path):
    path = write_slide(stained_image(1200, 1000), "cut.ome.tif", levels=1)
    with tifffile.TiffFile(path) as tiff:
        end = tiff.pages[0].dataoffsets[15]
    path.write_bytes(path.read_bytes()[:end])
    config = ExtractConfig(
        slides=(path,),
        read=ReadConfig(mpp_override=0.5),
        encoder=(ENCODER,),
        grid=GridConfig(patch_size=48),
        out=tmp_path / "features",
    )
    result = run(extract_slides(config))
    assert not result.files
    assert "is truncated: 5 of 20 tiles are missing" in result.failed[0]
    assert not list((tmp_path / "features").glob("*.zarr"))


def test_problems_of_a_run_that_was_stopped_are_kept(jpeg_slide, encoder, tmp_path):
    spoil_tile(jpeg_slide, 1)  # in the first rows of patches
    path = tmp_path / "a.features.zarr"
    with open_slide(jpeg_slide) as slide:
        grid = make_grid(slide, find_tissue(slide), GridConfig(patch_size=48))
        steps(extract(slide, grid, encoder, path, block=BLOCK), 2 * BLOCK)
        features = run(extract(slide, grid, encoder, path, block=BLOCK))
    lost = np.flatnonzero(features.status == Status.DECODE_ERROR)
    assert len(lost) > 0 and lost.max() < 2 * BLOCK
    assert len(features.provenance["problems"]) == len(lost)


def test_committed_blocks_are_not_computed_again(
    slide, grid, encoder, tmp_path, monkeypatch
):
    path = tmp_path / "a.features.zarr"
    steps(extract(slide, grid, encoder, path, block=BLOCK), 2 * BLOCK + 1)
    kept = {f: f.stat().st_mtime_ns for f in path.glob("features/c/*/*")}
    assert len(kept) == 2
    encoded, whole = [], Encoder.encode

    def encode(self, pixels):
        encoded.append(len(pixels))
        return whole(self, pixels)

    monkeypatch.setattr(Encoder, "encode", encode)
    run(extract(slide, grid, encoder, path, block=BLOCK))
    assert sum(encoded) == len(grid) - 2 * BLOCK
    assert all(file.stat().st_mtime_ns == then for file, then in kept.items())


def test_a_cancel_finishes_only_the_reads_under_way_and_ends_all_threads(
    slide, grid, encoder, tmp_path, on_read
):
    reads = []

    def slow_disk(_):
        reads.append(threading.current_thread())
        time.sleep(0.03)

    on_read(slow_disk)
    before = set(threading.enumerate())
    job = extract(slide, grid, encoder, tmp_path / "a.features.zarr", block=BLOCK)
    for event in job:
        if isinstance(event, Progress) and event.done:
            break
    assert set(threading.enumerate()) - before
    begun, workers = len(reads), len(set(reads))
    job.close()
    # Threads read eight patches at a time, and each may have begun eight more.
    assert len(reads) - begun <= 2 * 8 * workers
    assert len(reads) < len(grid)
    assert not set(threading.enumerate()) - before


def test_reading_ahead_is_bounded(slide, grid, monkeypatch, on_read):
    read = []
    on_read(read.append)
    monkeypatch.setattr(patches, "_AHEAD_BYTES", 0)
    stream = patches.stream_patches(slide, grid, workers=2)
    next(stream)
    time.sleep(0.3)
    stream.close()
    assert 8 <= len(read) <= 8 * 6 < len(grid)


def test_a_slow_encoder_gets_small_batches(slide, grid, encoder, tmp_path, monkeypatch):
    clock = [0.0]
    whole, sizes = Encoder.encode, []

    def encode(self, pixels):
        sizes.append(len(pixels))
        clock[0] += 0.06 * len(pixels)
        return whole(self, pixels)

    monkeypatch.setattr(Encoder, "encode", encode)
    monkeypatch.setattr(outputs.time, "monotonic", lambda: clock[0])
    run(extract(slide, grid, encoder, tmp_path / "slow.features.zarr"))
    assert max(sizes) == encoder.chunk
    sizes.clear()
    monkeypatch.setattr(outputs, "_SLOW_BATCH", 1e9)
    run(extract(slide, grid, encoder, tmp_path / "fast.features.zarr"))
    assert max(sizes) == 16


@pytest.mark.parametrize("array", ["features", "status"])
def test_a_lost_chunk_is_noticed(slide, grid, encoder, tmp_path, array):
    path = tmp_path / "a.features.zarr"
    run(extract(slide, grid, encoder, path, block=BLOCK))
    next(file for file in path.glob(f"{array}/c/1*") if file.exists())
    chunk = path / array / "c" / ("1/0" if array == "features" else "1")
    chunk.unlink()
    with pytest.raises(FeatureError, match="1 chunk"):
        read_features(path)


def test_rows_that_were_never_written_are_noticed(slide, grid, encoder, tmp_path):
    path = tmp_path / "a.features.zarr"
    run(extract(slide, grid, encoder, path))
    zarr.open_group(path, mode="r+")["status"][5] = int(Status.PENDING)
    with pytest.raises(FeatureError, match="rows are missing"):
        read_features(path)


def test_another_precision_is_another_file(slide, grid, encoder, tmp_path):
    path = tmp_path / "a.features.zarr"
    steps(extract(slide, grid, encoder, path, block=BLOCK), BLOCK)
    rough = load_encoder(ENCODER, ComputeConfig(precision="bfloat16"))
    with pytest.raises(FeatureError, match="float32 there, bfloat16 now"):
        run(extract(slide, grid, rough, path))


def test_a_file_that_claims_to_be_huge_is_not_read(slide, grid, encoder, tmp_path):
    path = tmp_path / "a.features.zarr"
    run(extract(slide, grid, encoder, path))
    group = zarr.open_group(path, mode="r+")
    for name in group.array_keys():
        group[name].resize((2**40, *group[name].shape[1:]))
    with pytest.raises(FeatureError, match="larger than any"):
        read_features(path)


def test_a_damaged_file_is_refused_and_can_be_replaced(slide, grid, encoder, tmp_path):
    path = tmp_path / "a.features.zarr"
    expected = run(extract(slide, grid, encoder, path, block=BLOCK))
    (path / "zarr.json").write_text("{")
    for attempt in (
        lambda: read_features(path),
        lambda: run(extract(slide, grid, encoder, path)),
    ):
        with pytest.raises(FeatureError) as error:
            attempt()
        assert "\n" not in str(error.value)
    again = run(extract(slide, grid, encoder, path, overwrite=True))
    np.testing.assert_array_equal(again.features, expected.features)


def test_a_folder_of_other_things_is_never_removed(slide, grid, encoder, tmp_path):
    precious = tmp_path / "holiday" / "photo.jpg"
    precious.parent.mkdir()
    precious.write_text("sea")
    with pytest.raises(FeatureError):
        run(extract(slide, grid, encoder, precious.parent, overwrite=True))
    assert precious.read_text() == "sea"


def test_a_grid_of_another_slide_is_refused(slide, grid, encoder, tmp_path):
    other = dataclasses.replace(grid, slide={**grid.slide, "fingerprint": "0" * 16})
    with pytest.raises(FeatureError, match="another slide"):
        run(extract(slide, other, encoder, tmp_path / "a.features.zarr"))


def test_patches_beyond_the_slide_have_no_features(slide, grid, encoder, tmp_path):
    xy = grid.xy[:5].copy()
    xy[1], xy[3] = (-1, 100), (1200 - 40, 100)
    odd = PatchGrid.from_description(grid.describe(), xy, grid.lattice[:5])
    features = run(extract(slide, odd, encoder, tmp_path / "a.features.zarr"))
    assert np.flatnonzero(features.status == Status.OUTSIDE).tolist() == [1, 3]
    assert np.isnan(features.features[[1, 3]]).all()
    assert features.ok.sum() == 3


def test_names_of_the_package_are_what_they_say_in_any_order():
    code = (
        "from napari_mcm.core.features import extract_slides, extract\n"
        "assert callable(extract_slides) and callable(extract)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_blank_means_one_colour():
    rng = np.random.default_rng(0)
    white = rng.integers(244, 248, (64, 64, 3)).astype(np.uint8)
    assert is_blank(white)
    assert is_blank(np.full((64, 64, 3), (250, 10, 90), np.uint8))
    white[33, 35, 1] = 200  # beside what a sample sees
    assert not is_blank(white)


def test_what_was_there_already_does_not_count_as_speed(jpeg_slide, tmp_path):
    config = ExtractConfig(
        slides=(jpeg_slide,),
        encoder=ENCODER,
        out=tmp_path / "out",
        grid=GridConfig(patch_size=48),
    )
    first, again = run(extract_slides(config)), run(extract_slides(config))
    assert first.patches_per_s > 1
    assert again.patches_per_s == 0
    assert (again.files, again.patches) == (first.files, first.patches)


def test_damaged_patches_are_told_also_when_nothing_is_left_to_do(jpeg_slide, tmp_path):
    spoil_tile(jpeg_slide, 7)
    config = ExtractConfig(
        slides=(jpeg_slide,),
        encoder=ENCODER,
        out=tmp_path / "out",
        grid=GridConfig(patch_size=48),
    )
    first, again = run(extract_slides(config)), run(extract_slides(config))
    assert first.failed == again.failed
    assert len(first.failed) == 1 and "could not be decoded" in first.failed[0]


def test_slides_of_several_resolutions_are_read_at_one(write_slide, tmp_path):
    fine = write_slide(stained_image(1200, 1000), "fine.ome.tif", mpp=0.4)
    coarse = write_slide(stained_image(800, 700, 1), "coarse.ome.tif", mpp=0.8)
    config = ExtractConfig(
        slides=(fine, coarse),
        encoder=ENCODER,
        out=tmp_path / "out",
        grid=GridConfig(patch_size=48),
    )
    result = run(extract_slides(config))
    assert [read_features(file).grid.mpp for file in result.files] == [0.8, 0.8]
    asked = config.model_copy(
        update={
            "grid": GridConfig(patch_size=48, mpp=0.5),
            "out": tmp_path / "asked",
        }
    )
    result = run(extract_slides(asked))
    assert [read_features(file).grid.mpp for file in result.files] == [0.5]
    assert len(result.failed) == 1 and "coarse.ome.tif" in result.failed[0]
