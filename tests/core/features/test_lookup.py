"""Feature files are found by what their attributes say, and nothing else is read."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from napari_mcm.core.encoders import ComputeConfig
from napari_mcm.core.features import ExtractConfig, extract_slides
from napari_mcm.core.features.lookup import (
    find_feature_files,
    find_finished_file,
    newest_per_encoder,
)
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import TissueConfig
from tests.core.conftest import stained_image

FIRST, SECOND = "random:test_resnet", "random:test_vit"
COMPUTE = ComputeConfig(device="cpu", precision="float32")


def config(out, slide, **given):
    settings = {"encoder": FIRST, "grid": GridConfig(patch_size=48)}
    settings |= {"tissue": TissueConfig(tissue_mpp=4), "compute": COMPUTE}
    return ExtractConfig(slides=(slide,), out=out, **settings | given)


@pytest.fixture
def slide(write_slide):
    return write_slide(stained_image(400, 360, 1), "one.ome.tif")


@pytest.fixture
def made(slide, tmp_path):
    """Files of two encoders, in folders beside each other; the second is newer."""
    files = []
    for name, encoder in (("a", FIRST), ("b", SECOND)):
        asked = config(tmp_path / "out" / name, slide, encoder=encoder)
        files += run(extract_slides(asked)).files
        os.utime(files[-1] / "zarr.json", (1e9 + len(files), 1e9 + len(files)))
    return files


def found(slide, *folders, files=(), mpp=None):
    with open_slide(slide, mpp) as opened:
        return find_feature_files(opened, folders, files)


def change(file, **attributes):
    described = json.loads((file / "zarr.json").read_text())
    described["attributes"] |= attributes
    (file / "zarr.json").write_text(json.dumps(described))


def test_the_files_of_a_slide_are_found_the_newest_first(slide, made, tmp_path):
    first, second = made
    files = found(slide, tmp_path / "out", tmp_path / "missing")
    assert [one.path for one in files] == [second, first]
    assert [one.spec for one in files] == [SECOND, FIRST]
    assert files[0].encoder != files[1].encoder
    assert files[0].patch_um == pytest.approx(48 * 0.5)
    described = json.loads((second / "zarr.json").read_text())["attributes"]
    assert files[0].patches == sum(described["provenance"]["counts"].values()) > 0
    # In its own folder, and named by its path, it is found as well; once.
    assert found(slide, first.parent, files=[first, second]) == files


def test_the_newest_of_an_encoder_counts(slide, made, tmp_path):
    older = tmp_path / "older" / made[0].name
    shutil.copytree(made[0], older)
    os.utime(older / "zarr.json", (1e9 - 5, 1e9 - 5))
    files = found(slide, tmp_path / "out", tmp_path / "older")
    assert len(files) == 3
    assert [one.path for one in newest_per_encoder(files)] == [made[1], made[0]]


def test_files_of_another_slide_or_resolution_are_not(
    slide, made, tmp_path, write_slide
):
    folder = write_slide(stained_image(400, 360, 2), "other.ome.tif").parent / "same"
    folder.mkdir()
    other = write_slide(stained_image(400, 360, 2), "same/one.ome.tif")
    assert found(other, tmp_path / "out", files=made) == ()
    assert found(slide, tmp_path / "out", mpp=0.25) == ()
    # A moved slide is known by its fingerprint.
    moved = shutil.copy(slide, tmp_path / "renamed.ome.tif")
    assert len(found(moved, files=made)) == 2


@pytest.mark.parametrize(
    "broken",
    [
        {"complete": False},
        {"version": 99},
        {"schema": "other"},
        {"identity": None},
        {"grid": {}},
    ],
)
def test_files_that_cannot_be_used_are_not_found(slide, made, tmp_path, broken):
    change(made[0], **broken)
    files = found(slide, tmp_path / "out")
    assert [one.path for one in files] == [made[1]]


def test_a_finished_file_is_known_without_its_encoder(slide, made, tmp_path):
    asked = config(tmp_path / "out" / "a", slide)
    assert find_finished_file(asked) == made[0]
    auto = asked.model_copy(update={"compute": ComputeConfig(device="cpu")})
    assert find_finished_file(auto) == made[0]
    others = (
        {"encoder": SECOND},
        {"grid": GridConfig(patch_size=64)},
        {"tissue": TissueConfig(tissue_mpp=4, min_object_um=90)},
        {"compute": ComputeConfig(device="cpu", precision="bfloat16")},
    )
    for other in others:
        assert (
            find_finished_file(config(tmp_path / "out" / "a", slide, **other)) is None
        )
    change(made[0], complete=False)
    assert find_finished_file(asked) is None


def test_weights_that_changed_since_are_noticed(slide, made, tmp_path, monkeypatch):
    weights = tmp_path / "run"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"")
    described = json.loads((made[0] / "zarr.json").read_text())["attributes"]
    change(made[0], encoder=described["encoder"] | {"spec": str(weights)})
    asked = config(tmp_path / "out" / "a", slide, encoder=str(weights))
    written = (made[0] / "zarr.json").stat().st_mtime
    os.utime(weights / "model.safetensors", (written - 9, written - 9))
    assert find_finished_file(asked) == made[0]
    os.utime(weights / "model.safetensors", (written + 9, written + 9))
    assert find_finished_file(asked) is None


def test_neither_needs_pytorch(slide, made, tmp_path):
    script = """
import sys
from pathlib import Path
from napari_mcm.core.features.config import ExtractConfig
from napari_mcm.core.features.lookup import *
from napari_mcm.core.slides import open_slide
config = ExtractConfig.model_validate_json(sys.argv[1])
with open_slide(config.slides[0]) as slide:
    assert len(find_feature_files(slide, [config.out.parent])) == 2
assert find_finished_file(config) is not None
assert not {"torch", "timm", "pandas", "sklearn"} & set(sys.modules)
"""
    text = config(tmp_path / "out" / "a", slide).model_dump_json()
    subprocess.run([sys.executable, "-c", script, text], check=True, timeout=240)
