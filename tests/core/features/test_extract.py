"""Extraction gives each patch its features, survives damage, cancel and kill."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import zarr

from napari_mcm.core.encoders import ComputeConfig, load_encoder
from napari_mcm.core.errors import ConfigError, FeatureError, TileError
from napari_mcm.core.features import (
    ExtractConfig,
    Status,
    extract,
    extract_slides,
    read_features,
)
from napari_mcm.core.grid import GridConfig, make_grid
from napari_mcm.core.runtime.jobs import Note, Progress, run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import TissueConfig, find_tissue
from tests.core.conftest import stained_image

ENCODER = "random:test_efficientnet"


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


def arrays(path):
    group = zarr.open_group(path, mode="r")
    names = ("coords", "lattice", "features", "status", "blur", "artefact")
    return {name: group[name][:] for name in names}


def assert_same(one, two):
    for name, values in arrays(one).items():
        np.testing.assert_array_equal(values, arrays(two)[name])
    a, b = (dict(zarr.open_group(p, mode="r").attrs) for p in (one, two))
    a.pop("provenance"), b.pop("provenance")
    assert a == b


def test_each_patch_gets_its_own_features(slide, grid, encoder, tmp_path):
    events = []
    features = run(
        extract(slide, grid, encoder, tmp_path / "a.features.zarr"), events.append
    )
    assert len(features) == len(grid) > 100
    assert features.ok.all()
    for row in (0, 57, len(grid) - 1):
        pixels = slide.read(grid.xy[row], (48, 48), grid.mpp)
        np.testing.assert_array_equal(
            features.features[row], encoder.encode(pixels[None])[0]
        )
    last = [e for e in events if isinstance(e, Progress)][-1]
    assert last.done == last.total == len(grid)


def test_batch_workers_and_block_do_not_change_the_result(
    slide, grid, encoder, tmp_path
):
    one = run(
        extract(slide, grid, encoder, tmp_path / "1", batch_size=7, workers=0, block=50)
    )
    two = run(extract(slide, grid, encoder, tmp_path / "2", batch_size=64, workers=3))
    np.testing.assert_array_equal(one.features, two.features)


def test_a_file_says_what_made_it(slide, grid, encoder, tmp_path):
    run(extract(slide, grid, encoder, tmp_path / "a"))
    again = read_features(tmp_path / "a")
    assert again.grid.fingerprint == grid.fingerprint
    assert again.grid.slide["fingerprint"] == slide.fingerprint
    assert again.encoder["fingerprint"] == encoder.fingerprint
    assert again.provenance["software"].startswith("napari-mcm")


def test_a_cancelled_extraction_goes_on_at_its_next_block(
    slide, grid, encoder, tmp_path
):
    run(extract(slide, grid, encoder, tmp_path / "whole", block=32))
    job = extract(slide, grid, encoder, tmp_path / "part", block=32)
    for event in job:
        if isinstance(event, Progress) and event.done >= 70:
            break
    job.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]
    with pytest.raises(FeatureError, match="to resume it"):
        read_features(tmp_path / "part")
    events = []
    run(extract(slide, grid, encoder, tmp_path / "part", block=32), events.append)
    first = next(e for e in events if isinstance(e, Progress))
    assert first.done == 64
    assert_same(tmp_path / "whole", tmp_path / "part")


_CHILD = """
import sys, time
from pathlib import Path
from napari_mcm.core.features import ExtractConfig, extract_slides
for event in extract_slides(ExtractConfig.model_validate_json(Path(sys.argv[1]).read_text())):
    time.sleep(0.05)
"""


def test_kill_9_loses_no_block(tissue_slide, tmp_path):
    config = ExtractConfig(
        slides=(tissue_slide,),
        encoder=ENCODER,
        out=tmp_path / "killed",
        block=32,
        grid=GridConfig(patch_size=48),
    )
    whole = run(extract_slides(config.model_copy(update={"out": tmp_path / "whole"})))
    file = tmp_path / "config.json"
    file.write_text(config.model_dump_json())
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(file)])
    path = tmp_path / "killed" / whole.files[0].name
    deadline = time.monotonic() + 120
    while len(list(path.glob("status/c/*"))) < 2:
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    with pytest.raises(FeatureError, match="not complete"):
        read_features(path)
    events = []
    run(extract_slides(config), events.append)
    assert any("resuming at patch" in e.text for e in events if isinstance(e, Note))
    assert_same(whole.files[0], path)


def test_a_complete_file_is_not_made_again(slide, grid, encoder, tmp_path, monkeypatch):
    run(extract(slide, grid, encoder, tmp_path / "a"))
    monkeypatch.setattr(
        type(encoder), "encode", lambda *a: pytest.fail("encoded again")
    )
    assert run(extract(slide, grid, encoder, tmp_path / "a")).ok.all()


def test_another_recipe_is_refused_with_what_differs(slide, grid, encoder, tmp_path):
    run(extract(slide, grid, encoder, tmp_path / "a"))
    other = load_encoder("random:test_resnet")
    with pytest.raises(FeatureError, match=f"encoder {encoder.fingerprint} there"):
        run(extract(slide, grid, other, tmp_path / "a"))
    replaced = run(extract(slide, grid, other, tmp_path / "a", overwrite=True))
    assert replaced.dim == other.dim


def test_undecodable_patches_get_a_status_not_a_white_square(
    slide, grid, encoder, tmp_path, on_read
):
    bad = {tuple(grid.xy[3]), tuple(grid.xy[90])}

    def read(corner):
        if corner in bad:
            raise TileError("cannot be decoded", "tile 7")

    on_read(read)
    events = []
    features = run(extract(slide, grid, encoder, tmp_path / "a"), events.append)
    rows = np.flatnonzero(features.status == Status.DECODE_ERROR)
    assert rows.tolist() == [3, 90]
    assert np.isnan(features.features[rows]).all()
    assert np.isfinite(features.features[features.ok]).all()
    assert "tile 7" in features.provenance["problems"][0]
    warnings = [e.text for e in events if isinstance(e, Note) and e.level == "warning"]
    assert "2 of" in warnings[0]


def test_blank_patches_have_no_features(write_slide, encoder, tmp_path):
    image = stained_image(600, 600)
    image[200:300, 200:300] = 250
    with open_slide(write_slide(image)) as slide:
        tissue = find_tissue(slide, TissueConfig(tissue_mpp=4))
        grid = make_grid(slide, tissue, GridConfig(patch_size=50, min_tissue=0.01))
        features = run(extract(slide, grid, encoder, tmp_path / "a"))
    blank = features.status == Status.BLANK
    inside = (grid.xy >= 200).all(axis=1) & (grid.xy <= 250).all(axis=1)
    np.testing.assert_array_equal(blank, inside)


def test_a_slide_without_tissue_is_a_defined_outcome(write_slide, tmp_path):
    path = write_slide(np.full((700, 700, 3), 243, np.uint8))
    config = ExtractConfig(slides=(path,), encoder=ENCODER, out=tmp_path / "out")
    result = run(extract_slides(config))
    features = read_features(result.files[0])
    assert features.features.shape == (0, load_encoder(ENCODER).dim)
    assert not result.failed


def test_a_bad_slide_is_told_and_the_others_go_on(tissue_slide, tmp_path):
    bad = tmp_path / "bad.svs"
    bad.write_bytes(b"nothing")
    config = ExtractConfig(
        slides=(bad, tissue_slide),
        encoder=ENCODER,
        out=tmp_path / "out",
        grid=GridConfig(patch_size=48),
    )
    result = run(extract_slides(config))
    assert len(result.files) == 1
    assert len(result.failed) == 1 and "bad.svs" in result.failed[0]


def test_two_slides_of_one_name_are_refused(tissue_slide, tmp_path):
    config = ExtractConfig(slides=(tissue_slide,) * 2, encoder=ENCODER, out=tmp_path)
    with pytest.raises(ConfigError, match="named"):
        run(extract_slides(config))


def test_an_unwritable_folder_is_said_in_one_line(slide, grid, encoder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FeatureError, match="cannot be written"):
        run(extract(slide, grid, encoder, tmp_path / "file" / "a"))


@pytest.fixture
def finished(slide, grid, encoder, tmp_path):
    path = tmp_path / "a.features.zarr"
    run(extract(slide, grid, encoder, path))
    return path


def test_damaged_files_are_refused_in_one_line(finished, tmp_path):
    group = zarr.open_group(finished, mode="r+")
    grid = dict(group.attrs["grid"])
    for attributes, message in (
        ({"version": 99}, "version 99"),
        ({"version": 1, "schema": "other"}, "not a feature file"),
        ({"schema": "napari-mcm/features", "grid": {}}, "damaged"),
        ({"grid": {**grid, "shape": [1, 1]}}, "outside the lattice"),
    ):
        group.attrs.update(attributes)
        with pytest.raises(FeatureError, match=message) as error:
            read_features(finished)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["features", "status", "coords"])
def test_missing_arrays_are_refused(finished, name):
    import shutil

    shutil.rmtree(finished / name)
    with pytest.raises(FeatureError, match="damaged"):
        read_features(finished)


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(FeatureError, match="no such"):
        read_features(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FeatureError, match="zarr"):
        read_features(tmp_path / "empty")


def test_threads_option_is_honoured():
    import torch

    before = torch.get_num_threads()
    try:
        load_encoder(ENCODER, ComputeConfig(threads=1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
