"""The same asked again: finished slides are known at once, here and where published."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import numpy as np
import pytest

from napari_mcm.core.encoders import ComputeConfig, Encoder, load_encoder
from napari_mcm.core.errors import ConfigError, OutputError
from napari_mcm.core.features import ExtractConfig, extract_slides, read_features
from napari_mcm.core.features import slide_prefetch as ahead
from napari_mcm.core.features.remote_store import RemoteFeatureStore
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.runtime.jobs import Note, run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import TissueConfig, TissueMask, write_mask
from tests.core.conftest import stained_image

ENCODER = "random:test_resnet"
COMPUTE = ComputeConfig(device="cpu", precision="float32")


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(ENCODER, COMPUTE)


@pytest.fixture
def slides(write_slide):
    return [write_slide(stained_image(400, 360, n), f"{n}.ome.tif") for n in (1, 2)]


def config(out, slides, **given):
    settings = {"encoder": ENCODER, "grid": GridConfig(patch_size=48)}
    settings |= {"tissue": TissueConfig(tissue_mpp=4), "compute": COMPUTE}
    return ExtractConfig(slides=tuple(slides), out=out, **settings | given)


@pytest.fixture
def searched(monkeypatch):
    """Slides that tissue is searched for on."""
    names, whole = [], ahead.find_tissue

    def find_tissue(slide, tissue):
        names.append(slide.name)
        return whole(slide, tissue)

    monkeypatch.setattr(ahead, "find_tissue", find_tissue)
    return names


def test_what_is_finished_is_not_searched_for_tissue_again(
    slides, encoder, tmp_path, searched
):
    asked = config(tmp_path, slides)
    first = run(extract_slides(asked, [encoder]))
    assert searched == ["1", "2"]
    events: list[object] = []
    again = run(extract_slides(asked, [encoder]), events.append)
    assert searched == ["1", "2"]
    assert (again.files, again.patches) == (first.files, first.patches)
    assert again.patches_per_s == 0
    notes = [event.text for event in events if isinstance(event, Note)]
    assert sum("complete already" in note for note in notes) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"grid": GridConfig(patch_size=64)},
        {"tissue": TissueConfig(tissue_mpp=4, min_object_um=90)},
    ],
)
def test_what_is_asked_otherwise_is_looked_at(
    slides, encoder, tmp_path, searched, other
):
    run(extract_slides(config(tmp_path, slides[:1]), [encoder]))
    asked = config(tmp_path, slides[:1], **other)
    run(extract_slides(asked))
    assert searched == ["1", "1"]


def test_tissue_is_searched_once_for_all_encoders(slides, encoder, tmp_path, searched):
    first, second = (
        config(tmp_path / "a", slides),
        config(tmp_path / "b", slides, encoder="random:test_vit"),
    )
    run(extract_slides(first, [encoder]))
    result = run(extract_slides(second))
    assert searched == ["1", "2"]
    for file in result.files:
        grid, other = (
            read_features(f / file.name).grid for f in (first.out, second.out)
        )
        assert grid.fingerprint == other.fingerprint
        np.testing.assert_array_equal(grid.xy, other.xy)


def test_a_damaged_grid_of_another_encoder_is_not_used(
    slides, encoder, tmp_path, searched
):
    first = config(tmp_path / "a", slides[:1])
    (file,) = run(extract_slides(first, [encoder])).files
    described = json.loads((file / "zarr.json").read_text())
    described["attributes"]["grid"]["origin"] = [1.0, 0.0]
    (file / "zarr.json").write_text(json.dumps(described))
    second = config(tmp_path / "b", slides[:1], encoder="random:test_vit")
    (other,) = run(extract_slides(second)).files
    assert searched == ["1", "1"]
    assert read_features(other).grid.origin == (0.0, 0.0)


def test_a_mask_that_was_drawn_anew_is_noticed(slides, encoder, tmp_path, searched):
    masks = tmp_path / "masks"
    masks.mkdir()
    asked = config(tmp_path / "out", slides[:1], tissue=TissueConfig(masks=masks))
    patches = []
    for columns in (10, 5):
        with open_slide(slides[0]) as slide:
            mask = np.zeros((10, 10), bool)
            mask[:, :columns] = True
            scale = (slide.size[0] / 10, slide.size[1] / 10)
            write_mask(masks / "1.geojson", TissueMask(mask, scale), slide)
        result = run(
            extract_slides(asked.model_copy(update={"overwrite": True}), [encoder])
        )
        patches.append(result.patches)
    assert searched == ["1", "1"]
    assert patches[0] > 1.5 * patches[1] > 0


def test_damage_counts_are_told_again(slides, encoder, tmp_path, on_read):
    from napari_mcm.core.errors import TileError

    spoilt: list[tuple[int, int]] = []

    def spoil(corner):
        if not spoilt:
            spoilt.append(corner)
            raise TileError("cannot be decoded")

    on_read(spoil)
    asked = config(tmp_path, slides[:1])
    first = run(extract_slides(asked, [encoder]))
    again = run(extract_slides(asked, [encoder]))
    assert first.failed == again.failed
    assert "1 patches could not be decoded" in again.failed[0]


# Published --------------------------------------------------------------------


@pytest.fixture
def url():
    files = fsspec.filesystem("memory")
    yield "memory://bucket/features"
    files.rm("/bucket", recursive=True)


def parts(folder: Path):
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def published(url):
    files = fsspec.filesystem("memory")
    root = "/bucket/features/"
    return {p.removeprefix(root): files.cat_file(p) for p in files.find(root)}


def test_finished_files_are_published_whole(slides, encoder, tmp_path, url):
    result = run(
        extract_slides(config(tmp_path / "out", slides, publish=url), [encoder])
    )
    assert result.slides == 2
    assert published(url) == parts(tmp_path / "out")


def test_another_machine_does_not_extract_what_is_published(
    slides, encoder, tmp_path, url, monkeypatch
):
    here = run(extract_slides(config(tmp_path / "a", slides, publish=url), [encoder]))
    monkeypatch.setattr(Encoder, "encode", None)
    there = run(extract_slides(config(tmp_path / "b", slides, publish=url), [encoder]))
    assert (there.slides, there.patches) == (2, here.patches)
    assert there.files == () and not list((tmp_path / "b").glob("*"))


def test_a_copy_that_was_broken_off_is_made_again(
    slides, encoder, tmp_path, url, monkeypatch
):
    asked = config(tmp_path / "out", slides[:1], publish=url)
    store = type(fsspec.filesystem("memory"))

    def fail(self, *args, **kwargs):
        raise ConnectionError("Connection reset by peer")

    with monkeypatch.context() as patch:
        patch.setattr(store, "put_file", fail)
        with pytest.raises(OutputError, match=r"bucket/features.*Connection reset"):
            run(extract_slides(asked, [encoder]))
    assert "1.features.zarr/zarr.json" not in published(url)
    (file,) = (tmp_path / "out").glob("*.features.zarr")
    read_features(file)  # nothing is lost
    monkeypatch.setattr(Encoder, "encode", None)
    assert run(extract_slides(asked, [encoder])).slides == 1
    assert published(url) == parts(tmp_path / "out")


def test_other_features_take_the_place_of_published_ones(
    slides, encoder, tmp_path, url
):
    for side in (48, 64):
        grid = GridConfig(patch_size=side)
        asked = config(tmp_path / str(side), slides[:1], publish=url, grid=grid)
        run(extract_slides(asked, [encoder]))
    assert published(url) == parts(tmp_path / "64")


def test_a_name_with_brackets_replaces_its_own_copy_only(tmp_path, url):
    names = ("S12 [A].features.zarr", "S12 A.features.zarr")
    store = RemoteFeatureStore(url)
    for identity in ("old", "new"):
        for name in names[: 1 if identity == "new" else 2]:
            file = tmp_path / identity / name
            (file / "features" / "c").mkdir(parents=True)
            (file / "features" / "c" / identity).write_text(identity)
            marker = {"attributes": {"identity": identity, "complete": True}}
            (file / "zarr.json").write_text(json.dumps(marker))
            run(store.put(file, name))
    (tmp_path / "old" / names[1]).rename(tmp_path / "new" / names[1])
    assert published(url) == parts(tmp_path / "new")


def test_a_place_that_cannot_be_reached_is_said_before_any_work(slides, tmp_path):
    asked = config(tmp_path, slides, publish="nonsense://bucket/features")
    with pytest.raises(ConfigError, match="cannot be reached"):
        run(extract_slides(asked))
