"""The teacher's features of an extraction, shared with fine-tunings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from napari_mcm.core.encoders import Encoder, load_encoder
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.features import extract, read_features
from napari_mcm.core.features.interchange import save_features
from napari_mcm.core.grid import make_grid
from napari_mcm.core.mcm import teacher as teacher_files
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mcm.finetune import finetune
from napari_mcm.core.mcm.teacher import TeacherCache
from napari_mcm.core.runtime.jobs import Note, run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import find_tissue
from napari_mcm.core.training import Run
from tests.core.mcm.conftest import TEACHER


@pytest.fixture
def aligned(config, tmp_path):
    """Give a function that makes a config with patches as an extraction has them."""

    def make(name: str, **options) -> FinetuneConfig:
        given = config.model_dump(mode="json", exclude_unset=True)
        given["optimiser"] |= {"aligned": True, "flips": False, "placements": 2}
        return FinetuneConfig.model_validate(
            given | {"out": str(tmp_path / name), **options}
        )

    return make


@pytest.fixture
def extracted(config, tissue_slide, tmp_path):
    """A folder with the teacher's features."""
    folder = tmp_path / "features"
    with open_slide(tissue_slide) as slide:
        tissue = find_tissue(slide, config.tissue)
        grid = make_grid(slide, tissue, config.grid)
        path = folder / f"{slide.name}.features.zarr"
        found = run(extract(slide, grid, load_encoder(TEACHER), path))
    return folder, path, found


def losses(config, events=None):
    result = run(finetune(config), [].append if events is None else events.append)
    return Run.open(result.run_dir).metrics()["loss"]


def test_the_teacher_sees_no_patch_that_is_there(aligned, extracted, monkeypatch):
    plain = losses(aligned("plain"))
    folder, _, found = extracted
    teacher, seen = found.encoder["fingerprint"], []
    encode = Encoder.encode

    def watched(self, pixels):
        seen.append(self.fingerprint)
        return encode(self, pixels)

    monkeypatch.setattr(Encoder, "encode", watched)
    events = []
    shared = losses(aligned("shared", teacher_features=str(folder)), events)
    assert seen and teacher not in seen
    np.testing.assert_allclose(shared, plain, rtol=1e-5)
    said = [event.text for event in events if isinstance(event, Note)]
    assert any(
        f"teacher features of {int(found.ok.sum())} patches read" in t for t in said
    )


def test_what_the_files_say_is_what_is_learned(aligned, extracted):
    folder, path, found = extracted
    plain = losses(aligned("plain", teacher_features=str(folder)))
    rng = np.random.default_rng(0)
    other = rng.standard_normal(found.features.shape).astype(np.float32)
    changed = folder.with_name("changed") / path.name
    changed.parent.mkdir()
    save_features(replace(found, features=other), changed)
    made_up = losses(aligned("made-up", teacher_features=str(changed.parent)))
    assert not np.allclose(made_up, plain, rtol=1e-3)


@pytest.mark.parametrize("what", ["another encoder", "another grid", "nothing"])
def test_what_does_not_fit_is_left_to_the_teacher(aligned, extracted, tmp_path, what):
    folder, path, found = extracted
    other = tmp_path / "other"
    other.mkdir()
    if what == "another encoder":
        encoder = found.encoder | {"fingerprint": "0" * 16}
        save_features(replace(found, encoder=encoder), other / path.name)
    elif what == "another grid":
        finer = replace(found.grid, mpp=0.9)
        save_features(replace(found, grid=finer), other / path.name)
    events = []
    there = losses(aligned("there", teacher_features=str(other)), events)
    np.testing.assert_allclose(there, losses(aligned("plain")), rtol=1e-5)
    warned = [e.text for e in events if isinstance(e, Note) and e.level == "warning"]
    assert any(text.startswith("no matching teacher features for ") for text in warned)


def test_a_folder_that_is_not_there_is_told(aligned, tmp_path):
    with pytest.raises(ConfigError, match="folder of teacher features does not exist"):
        losses(aligned("run", teacher_features=str(tmp_path / "nowhere")))


@pytest.mark.parametrize(
    "wrong", [{"aligned": False}, {"flips": True}, {"jitter": 0.1}]
)
def test_patches_shown_otherwise_are_refused(aligned, wrong):
    how = aligned("run").optimiser.model_dump() | wrong
    with pytest.raises(ValidationError, match="--aligned --no-flips"):
        aligned("run", teacher_features="features", optimiser=how)


def test_the_arms_of_a_study_read_a_file_once(aligned, extracted, monkeypatch):
    folder, _, found = extracted
    megabytes = 1.5 * found.features.nbytes / 10**6
    monkeypatch.setattr(teacher_files, "MOST_MB", megabytes)
    reads = []
    monkeypatch.setattr(
        teacher_files,
        "read_features",
        lambda path: reads.append(path) or read_features(path),
    )
    cache, warned = TeacherCache(0), []
    for name in ("first arm", "second arm"):
        config = aligned(name, teacher_features=str(folder))
        run(finetune(config, cache=cache), warned.append)
    assert len(reads) == 1
    assert cache.known_bytes == int(found.ok.sum()) * found.features[0].nbytes
    assert not [
        e.text
        for e in warned
        if isinstance(e, Note) and "no matching teacher features" in e.text
    ]


def test_features_beyond_the_memory_are_not_even_read(aligned, extracted, monkeypatch):
    folder, _, found = extracted
    megabytes = 0.9 * found.features.nbytes / 10**6
    monkeypatch.setattr(teacher_files, "MOST_MB", megabytes)
    monkeypatch.setattr(
        teacher_files, "read_features", lambda path: pytest.fail(f"{path} was read")
    )
    events = []
    losses(aligned("run", teacher_features=str(folder)), events)
    assert any(
        isinstance(e, Note) and "no matching teacher features" in e.text for e in events
    )
