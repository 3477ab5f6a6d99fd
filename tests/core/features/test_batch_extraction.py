"""Several encoders in one pass, the next slide ahead, compiled and short of memory."""

from __future__ import annotations

import shutil
import threading
import time

import numpy as np
import pytest
import torch
import zarr
from numpy.testing import assert_array_equal

from napari_mcm.core.encoders import ComputeConfig, Encoder, load_encoder
from napari_mcm.core.errors import ConfigError, WeightsError
from napari_mcm.core.features import (
    ExtractConfig,
    extract,
    extract_slides,
    read_features,
)
from napari_mcm.core.features import batch_extraction as slides_module
from napari_mcm.core.features.extraction import write_features
from napari_mcm.core.grid import GridConfig, make_grid
from napari_mcm.core.runtime.jobs import Note, Progress, run
from napari_mcm.core.slides import Slide, open_slide
from napari_mcm.core.tissue import TissueConfig, find_tissue
from tests.core.conftest import stained_image

COMPUTE = ComputeConfig(device="cpu", precision="float32")
FIRST, SECOND = "random:test_resnet", "random:test_vit"


@pytest.fixture(scope="module")
def encoders() -> list[Encoder]:
    return [load_encoder(spec, COMPUTE) for spec in (FIRST, SECOND)]


@pytest.fixture
def slide(write_slide):
    with open_slide(write_slide(stained_image(1200, 1000))) as slide:
        yield slide


@pytest.fixture
def grid(slide, encoders):
    # The side that the transformer takes, so that nothing is resized.
    side = encoders[1].input_size or 64
    return make_grid(slide, find_tissue(slide), GridConfig(patch_size=side))


def config(tmp_path, slides, **given):
    grid = GridConfig(patch_size=64)
    settings = {"encoder": FIRST, "grid": grid, "tissue": TissueConfig(tissue_mpp=4)}
    settings |= {"compute": COMPUTE, "out": tmp_path / "out"}
    return ExtractConfig(slides=tuple(slides), **settings | given)


def write(slide, grid, targets, **given):
    counts = run(write_features(slide, grid, targets, **given))
    found = [read_features(path) for _, path in targets]
    for features in found:
        assert counts == {"ok": int(features.ok.sum())}
    return found


def test_several_encoders_read_each_patch_once(
    slide, grid, encoders, tmp_path, on_read
):
    alone = [
        run(extract(slide, grid, e, tmp_path / f"{i}")) for i, e in enumerate(encoders)
    ]
    read: list[tuple[int, int]] = []
    on_read(read.append)
    targets = [(e, tmp_path / f"together-{i}") for i, e in enumerate(encoders)]
    together = write(slide, grid, targets)
    assert len(read) == len(grid)
    for one, other in zip(alone, together, strict=True):
        assert_array_equal(one.features, other.features)
        assert_array_equal(one.status, other.status)


def test_files_that_are_differently_far_end_alike(slide, grid, encoders, tmp_path):
    targets = [(e, tmp_path / f"{i}") for i, e in enumerate(encoders)]
    whole = write(slide, grid, targets, block=16)
    shutil.rmtree(tmp_path / "1")
    zarr.open_group(tmp_path / "0").attrs["complete"] = False
    status = zarr.open_group(tmp_path / "0")["status"]
    status[20:] = 255  # within the second block
    again = write(slide, grid, targets, block=16)
    for one, other in zip(whole, again, strict=True):
        assert_array_equal(one.features, other.features)


def test_several_encoders_write_to_folders_of_their_own(write_slide, tmp_path):
    path = write_slide(stained_image(700, 600))
    done = run(extract_slides(config(tmp_path, [path], encoder=(FIRST, SECOND))))
    assert [f.relative_to(tmp_path / "out").parts[0] for f in done.files] == [
        "random-test_resnet",
        "random-test_vit",
    ]
    assert done.slides == 1
    assert read_features(done.files[1]).dim == load_encoder(SECOND, COMPUTE).dim
    with pytest.raises(ConfigError, match="several encoders have the folder name"):
        run(extract_slides(config(tmp_path, [path], encoder=(FIRST, FIRST))))


def test_the_next_slide_is_prepared_while_this_one_is_extracted(
    write_slide, tmp_path, monkeypatch
):
    paths = [write_slide(stained_image(700, 600), f"{name}.ome.tif") for name in "abc"]
    closed = []
    whole = Slide.close
    monkeypatch.setattr(
        Slide, "close", lambda self: (closed.append(self.name), whole(self))[1]
    )
    found: dict[str, float] = {}
    search = slides_module.SlidePrefetcher._prepare

    def prepare(self, path):
        ready = search(self, path)
        found[path.name[0]] = time.monotonic()
        return ready

    monkeypatch.setattr(slides_module.SlidePrefetcher, "_prepare", prepare)
    began = {}
    for event in extract_slides(config(tmp_path, paths)):
        if isinstance(event, Progress) and event.stage.startswith("Extracting"):
            began.setdefault(event.stage.split()[-1], time.monotonic())
            time.sleep(0.05)  # the encoder is slow
    assert found["b"] < began["b"] and found["c"] < began["c"]
    assert found["b"] > found["a"]
    # Each twice: it was looked at for its resolution first.
    assert sorted(closed) == sorted("abc" * 2)


def test_a_cancel_while_tissue_is_searched_is_heard_at_once(
    write_slide, tmp_path, monkeypatch
):
    path = write_slide(stained_image(700, 600))
    going, let_go, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(*_):
        going.set()
        let_go.wait(60)
        ended.set()
        raise AssertionError("nobody waits for this")

    monkeypatch.setattr("napari_mcm.core.features.slide_prefetch.find_tissue", slow)
    job = extract_slides(config(tmp_path, [path]))
    for event in job:
        if isinstance(event, Progress) and "tissue" in event.stage:
            break
    assert going.wait(60)
    job.close()
    assert not ended.is_set()
    let_go.set()


def test_an_encoder_short_of_memory_takes_fewer_patches(monkeypatch):
    encoder = load_encoder(FIRST, COMPUTE)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    expected, whole = encoder.encode(pixels), Encoder._encode_chunk
    tried = []

    def tight(self, part):
        tried.append(self.chunk)
        if self.chunk > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, part)

    monkeypatch.setattr(Encoder, "_encode_chunk", tight)
    features = encoder.encode(pixels)
    assert tried[:3] == [8, 4, 2]
    assert set(tried[3:]) == {2}
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_an_encoder_that_fits_nowhere_says_so(monkeypatch):
    encoder = load_encoder(FIRST, COMPUTE)

    def never(self, part):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Encoder, "_encode_chunk", never)
    with pytest.raises(WeightsError, match="even for one patch"):
        encoder.encode(np.zeros((3, 64, 64, 3), np.uint8))


def test_a_compiled_encoder_gives_the_same_features(encoders):
    compiled, problem = encoders[0].compiled()
    if problem:
        pytest.skip(f"no compiler for PyTorch here: {problem}")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 224, 224, 3), np.uint8)
    plain, fast = encoders[0].encode(pixels), compiled.encode(pixels)
    np.testing.assert_allclose(fast, plain, rtol=1e-4, atol=1e-5)
    assert_array_equal(compiled.encode(pixels[:5]), fast[:5])
    assert compiled.fingerprint == encoders[0].fingerprint
    assert compiled.describe() == encoders[0].describe()


def test_without_a_compiler_extraction_goes_on_and_says_so(
    write_slide, tmp_path, monkeypatch
):
    def none(*_, **__):
        raise RuntimeError("No working C++ compiler found\n(many lines)")

    monkeypatch.setattr(torch, "compile", none)
    path = write_slide(stained_image(700, 600))
    events = []
    done = run(extract_slides(config(tmp_path, [path], compile="on")), events.append)
    assert done.slides == 1
    told = [event.text for event in events if isinstance(event, Note)]
    assert any(
        "is not compiled: No working C++ compiler found" in text for text in told
    )


@pytest.mark.parametrize(("patches", "compiles"), [(10, True), (10**6, False)])
def test_only_large_slides_are_worth_compiling_for(
    write_slide, tmp_path, monkeypatch, patches, compiles
):
    asked = []

    def compiled(self):
        asked.append(self)
        return self, ""

    monkeypatch.setattr(Encoder, "compiled", compiled)
    monkeypatch.setattr(slides_module, "WORTH_COMPILING", patches)
    run(extract_slides(config(tmp_path, [write_slide(stained_image(700, 600))])))
    assert bool(asked) is compiles
