"""A feature file beside one that was made differently."""

from __future__ import annotations

import pytest
from numpy.testing import assert_array_equal
from pydantic import ValidationError

from napari_mcm.core.encoders import ComputeConfig, load_encoder
from napari_mcm.core.errors import ConfigError, FeatureError
from napari_mcm.core.evaluation.dataset import _given
from napari_mcm.core.features import ExtractConfig, extract_slides, read_features
from napari_mcm.core.features import slide_prefetch as ahead
from napari_mcm.core.features.format import files_of, slide_of
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.mil.bags import find_files
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.tissue import TissueConfig
from tests.core.conftest import stained_image

COMPUTE = ComputeConfig(device="cpu", precision="float32")


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("random:test_resnet", COMPUTE)


@pytest.fixture
def slide(write_slide):
    return write_slide(stained_image(400, 360), "a.ome.tif")


def asked(slide, tmp_path, patch_size, **given):
    return ExtractConfig(
        slides=(slide,),
        out=tmp_path / "out",
        encoder="random:test_resnet",
        grid=GridConfig(patch_size=patch_size),
        tissue=TissueConfig(tissue_mpp=4),
        compute=COMPUTE,
        **given,
    )


def extracted(config, encoder):
    done = run(extract_slides(config, [encoder]))
    return done, [file.name for file in done.files]


def test_what_was_made_in_another_way_stays_and_the_new_lies_beside(
    slide, encoder, tmp_path, monkeypatch
):
    _, names = extracted(asked(slide, tmp_path, 48, beside=True), encoder)
    assert names == ["a.features.zarr"]
    plain = tmp_path / "out" / "a.features.zarr"
    before = read_features(plain).features
    refused, _ = extracted(asked(slide, tmp_path, 64), encoder)
    assert not refused.files and "--keep-incompatible" in refused.failed[0]

    done, (name,) = extracted(asked(slide, tmp_path, 64, beside=True), encoder)
    assert not done.failed and name != "a.features.zarr"
    assert name.startswith("a.") and len(name) == len("a.12345678.features.zarr")
    assert_array_equal(read_features(plain).features, before)
    assert read_features(done.files[0]).grid.patch_size == 64
    assert files_of(plain) == [plain, done.files[0]]

    # Asked again, each is known at once, without a search for tissue.
    monkeypatch.setattr(ahead, "find_tissue", lambda *_: pytest.fail("searched"))
    for size, expected in ((48, "a.features.zarr"), (64, name)):
        _, names = extracted(asked(slide, tmp_path, size, beside=True), encoder)
        assert names == [expected]


def test_one_beside_that_was_broken_off_is_gone_on_with(slide, encoder, tmp_path):
    extracted(asked(slide, tmp_path, 48), encoder)
    config = asked(slide, tmp_path, 32, beside=True, block=16)
    job = extract_slides(config, [encoder])
    for event in job:
        if getattr(event, "done", 0) >= 32:
            break
    job.close()
    events = []
    done = run(extract_slides(config, [encoder]), events.append)
    assert any("resuming at patch" in getattr(e, "text", "") for e in events)
    assert len(list((tmp_path / "out").glob("*.zarr"))) == 2
    assert read_features(done.files[0]).grid.patch_size == 32


def test_another_slide_s_file_is_none_beside(tmp_path):
    for name in ("a", "a.b", "a.0123abcd", "a.0123ABCD", "[a]", "[a].0123abcd"):
        (tmp_path / f"{name}.features.zarr").mkdir()
    found = [file.name for file in files_of(tmp_path / "a.features.zarr")]
    assert found == ["a.features.zarr", "a.0123abcd.features.zarr"]
    assert len(files_of(tmp_path / "[a].features.zarr")) == 2


def test_to_replace_and_to_write_beside_exclude_each_other(slide, tmp_path):
    with pytest.raises(ValidationError, match="overwrite"):
        asked(slide, tmp_path, 48, overwrite=True, beside=True)


def test_a_file_beside_is_known_by_its_slide(slide, encoder, tmp_path):
    extracted(asked(slide, tmp_path, 48), encoder)
    done, (name,) = extracted(asked(slide, tmp_path, 64, beside=True), encoder)
    (file,) = done.files
    assert slide_of(file) == "a"
    out = tmp_path / "out"
    with pytest.raises(FeatureError, match="both of slide a"):
        find_files(out)
    with pytest.raises(ConfigError, match="both of slide a"):
        _given((str(out),))
    (out / "a.features.zarr").rename(tmp_path / "gone")
    assert find_files(out) == {"a": file}
    assert list(_given((str(out),))["out"]) == ["a"]
    # A slide may be called so itself.
    assert slide_of(file.rename(out / "b.0123abcd.features.zarr")) == "b.0123abcd"
