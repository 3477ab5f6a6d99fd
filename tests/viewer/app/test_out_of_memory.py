"""Too small a memory: one line names the option, and what may fit."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_mcm.core.cells.config import ClassifyConfig, FitConfig
from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.errors import McmError
from napari_mcm.core.features.config import ExtractConfig
from napari_mcm.core.features.feature_set import PATCH_ALONE
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.mae.config import PretrainConfig, RecipeConfig
from napari_mcm.core.mcm.config import FinetuneConfig, OptimiserConfig
from napari_mcm.core.mil.config import MilConfig
from napari_mcm.core.runtime.jobs import Job, Progress, run
from napari_mcm.core.studies.ablation_config import AblationConfig
from napari_mcm.viewer.app import out_of_memory as memory
from napari_mcm.viewer.app.features import (
    FeatureRequest,
    LoadedFeatures,
    compute_features,
)
from napari_mcm.viewer.cells.controller import classify_boxes
from napari_mcm.viewer.cells.training_controller import (
    ablate_run,
    classify_run,
    resume_classifier,
)
from napari_mcm.viewer.features.jobs import extract_run
from napari_mcm.viewer.finetune.controller import finetune_run, resume_run
from napari_mcm.viewer.mae.controller import pretrain_run, resume_pretraining
from napari_mcm.viewer.mae.reconstruction import (
    ReconstructionModelCache,
    ReconstructionOptions,
)
from napari_mcm.viewer.mil import prediction as mil_look
from napari_mcm.viewer.mil.controller import resume_run as resume_mil_run
from napari_mcm.viewer.mil.controller import train_run

HERE = Path(__file__).parent
CUDA = RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB\n(more)")
CPU = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")
LACKS = (CUDA, CPU, MemoryError(), OSError(12, "Cannot allocate memory"))


def ready() -> None:
    """No mask is to be written."""


def request(out: Path) -> FeatureRequest:
    return FeatureRequest(HERE, 0.5, "random:test_vit", "", GridConfig(), out)


def finetuning(out: Path, **changes: Any) -> FinetuneConfig:
    optimiser = OptimiserConfig(batch_windows=8)
    return FinetuneConfig(slides=(HERE,), out=out, optimiser=optimiser, **changes)


def begun(run: Path, config: Any) -> Path:
    """Leave a run as a training that was broken off would."""
    (run / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    return run


def pretraining(out: Path) -> PretrainConfig:
    return PretrainConfig(
        pictures=(HERE,), out=out, chunk_images=32, recipe=RecipeConfig(batch_size=48)
    )


def classifying(out: Path) -> ClassifyConfig:
    return ClassifyConfig(
        data=HERE, out=out, chunk_images=64, fit=FitConfig(batch_size=24)
    )


CASES: dict[str, tuple[str, Callable[[Path], Job[Any]], str]] = {
    "fine-tuning": (
        "core.mcm.finetune:finetune",
        lambda out: finetune_run(finetuning(out, chunk_windows=6), ready),
        "6 context windows at once. Set Chunk windows (--chunk-windows) to 3 or less: "
        "the result stays the same",
    ),
    "resumed fine-tuning": (
        "core.mcm.finetune:resume_finetune",
        lambda out: resume_run(begun(out, finetuning(out, chunk_windows=4))),
        "4 context windows at once. Set Chunk windows (--chunk-windows) to 2 or less",
    ),
    "pre-training": (
        "core.mae.pretraining:pretrain",
        lambda out: pretrain_run(pretraining(out), ready),
        "32 images at once. Set Chunk images (--chunk-images) to 16 or less",
    ),
    "resumed pre-training": (
        "core.mae.pretraining:resume_pretrain",
        lambda out: resume_pretraining(begun(out, pretraining(out))),
        "32 images at once. Set Chunk images (--chunk-images) to 16 or less",
    ),
    "classifier": (
        "core.cells.training:classify",
        lambda out: classify_run(classifying(out)),
        "24 images at once. Set Chunk images (--chunk-images) to 12 or less. Or",
    ),
    "resumed classifier": (
        "core.cells.training:resume_classify",
        lambda out: resume_classifier(begun(out, classifying(out))),
        "24 images at once. Set Chunk images (--chunk-images) to 12 or less. Or",
    ),
    "ablation": (
        "core.studies.ablation:ablate",
        lambda out: ablate_run(AblationConfig(data=HERE, out=out, chunk_images=2)),
        "2 images at once. Set Chunk images (--chunk-images) to 1. Or",
    ),
    "slide classifier": (
        "core.mil.train:train",
        lambda out: train_run(MilConfig(features=HERE, out=out)),
        "10,000 patches of a slide at once. Set Patches per slide (--max-patches) to "
        "5,000 or less",
    ),
    "resumed slide classifier": (
        "core.mil.train:resume_train",
        lambda out: resume_mil_run(begun(out, MilConfig(features=HERE, out=out))),
        "Set Patches per slide (--max-patches) to 5,000 or less",
    ),
    "features of many": (
        "core.features.batch_extraction:extract_slides",
        lambda out: extract_run(
            ExtractConfig(slides=(HERE / "none.tif",), out=out, batch_size=64),
            None,
            "",
            ready,
        ),
        "64 patches at once. Set Patches per batch (--batch-size) to 32 or less",
    ),
    "features of one": (
        "core.features.batch_extraction:extract_slides",
        lambda out: compute_features(request(out)),
        "for the patches. Set Patches per batch (--batch-size) to 8 or less",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_job_names_its_option_and_the_half(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, make, expected = CASES[case]
    name, _, function = place.partition(":")

    def fails(_: Any) -> Job[Any]:
        yield Progress("Working", 0, None)
        raise CUDA

    monkeypatch.setattr(importlib.import_module(f"napari_mcm.{name}"), function, fails)
    monkeypatch.setattr(
        "napari_mcm.core.slides.find.find_slides", lambda slides: tuple(slides)
    )
    with pytest.raises(McmError) as caught:
        run(make(tmp_path))
    text = str(caught.value)
    assert text.startswith(str(tmp_path)) and expected in text and "\n" not in text


@pytest.mark.parametrize("lack", LACKS)
def test_a_lack_of_memory_is_known_by_all_its_names(lack: Exception) -> None:
    answered = memory.explain_out_of_memory(memory.PATCHES, {"batch_size": 2})
    with pytest.raises(McmError, match="memory is too small"), answered:
        raise lack


@pytest.mark.parametrize("other", [RuntimeError("shapes differ"), OSError(28, "full")])
def test_what_is_no_lack_of_memory_is_left_as_it_is(other: Exception) -> None:
    answered = memory.explain_out_of_memory(memory.PATCHES, {"batch_size": 2})
    with pytest.raises(type(other)) as caught, answered:
        raise other
    assert caught.value is other


def test_a_slide_that_a_run_looks_at_needs_fewer_patches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: LoadedFeatures
) -> None:
    class Fails:
        folds, classes, models = (), ("a", "b"), ()
        neighbourhood = PATCH_ALONE

        def check(self, *_: Any) -> None: ...

        def check_asked(self, *_: Any) -> None: ...

        def predict_with_attention(self, _: Any) -> Any:
            yield
            raise CPU

    ensemble = "napari_mcm.core.mil.slide_prediction"
    monkeypatch.setattr(f"{ensemble}.load_ensemble", lambda *_: Fails())
    monkeypatch.setattr(f"{ensemble}.find_trained_on", lambda *_: set())
    monkeypatch.setattr(mil_look, "features_of", lambda _: tmp_path / "s.zarr")
    monkeypatch.setattr(mil_look, "_read", lambda *_: loaded.index.features)
    request = mil_look.PredictionRequest(
        tmp_path / "run", "s", tmp_path / "s", None, ()
    )
    with pytest.raises(McmError, match="patches of the slide. Use features of a"):
        run(mil_look.predict_slide(request))


def test_what_is_one_already_has_no_half() -> None:
    text = str(memory.WINDOWS.error({"chunk_windows": 1}, None))
    assert "windows, even one at a time" in text and "--chunk-windows" not in text
    assert "Use a smaller student" in text


@pytest.mark.parametrize(("gpu", "least"), [(True, "to 8 or less"), (False, "to 1:")])
def test_what_is_automatic_is_the_whole_step_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, least: str
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    config = {"chunk_images": "auto", "recipe": {"batch_size": 16}}
    assert least in str(memory.IMAGES.error(config, None))
    # A CPU computes one window at a time already.
    config = {"chunk_windows": "auto", "optimiser": {"batch_windows": 16}}
    assert ("to 8 or less" in str(memory.WINDOWS.error(config, None))) == gpu


def test_cells_and_pictures_need_a_smaller_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_mcm.core.cells import annotated_slides as marked

    def fails(*_: Any) -> Any:
        raise CPU

    monkeypatch.setattr(marked, "load_classifier", fails)
    pixels = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(McmError, match="Use a smaller classifier"):
        run(classify_boxes(tmp_path, lambda _: pixels, [(0, 0, 8, 8)], ComputeConfig()))
    monkeypatch.setattr("napari_mcm.core.mae.reconstruction.load_autoencoder", fails)
    with pytest.raises(McmError, match="a pre-training of a smaller ViT"):
        ReconstructionModelCache().reconstruct(
            tmp_path, fails, ReconstructionOptions(0.75)
        )
