"""The jobs that the *MAE & cells* widget starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.core.background import apart
from napari_mcm.core.jobs import Job
from napari_mcm.viewer.commands import beside_window
from napari_mcm.viewer.memory import IMAGES, LABELLED, answered
from napari_mcm.viewer.mil_tasks import LEARNING, start
from napari_mcm.viewer.run_folders import read_config

if TYPE_CHECKING:
    from napari_mcm.core.mae.classifier.config import ClassifyConfig
    from napari_mcm.core.mae.config import PretrainConfig
    from napari_mcm.core.studies.ablation_config import AblationConfig

# Seconds to import: apart, so that a cancel acts at once.
_FIRST = (*LEARNING, "timm")
_PRETRAINING = (*_FIRST, "napari_mcm.core.mae.pretraining")
_CLASSIFIER = (*_FIRST, "sklearn.metrics", "napari_mcm.core.mae.classifier.training")
_ABLATION = (*_CLASSIFIER, "napari_mcm.core.studies.ablation")


def pretrain_run(config: PretrainConfig, ready: Callable[[], None]) -> Job[Path]:
    """Pre-train on pictures and slides; returns the run's folder.

    Parameters
    ----------
    config : PretrainConfig
        All options; of slides folders, too.
    ready : callable
        Waits until masks that were drawn are written.
    """
    from napari_mcm.core.slides.find import find_slides

    module = yield from start(_PRETRAINING)
    if config.images.slides:
        yield from apart("Saving the mask", ready)
        found = yield from apart(
            "Looking for slides", find_slides, config.images.slides
        )
        images = config.images.model_copy(update={"slides": found})
        config = config.model_copy(update={"images": images})
    with answered(IMAGES, config, config.out):
        result = yield from module.pretrain(beside_window(config))
    return Path(result.run_dir)


def resume_pretraining(folder: Path) -> Job[Path]:
    """Go on with a pre-training; returns its folder."""
    module = yield from start(_PRETRAINING)
    with answered(IMAGES, read_config(folder), folder):
        result = yield from module.resume_pretrain(folder)
    return Path(result.run_dir)


def classify_run(config: ClassifyConfig) -> Job[Path]:
    """Train a classifier; returns the run's folder."""
    module = yield from start(_CLASSIFIER)
    with answered(LABELLED, config, config.out):
        result = yield from module.classify(beside_window(config))
    return Path(result.run_dir)


def resume_classifier(folder: Path) -> Job[Path]:
    """Go on with a classifier; returns its folder."""
    module = yield from start(_CLASSIFIER)
    with answered(LABELLED, read_config(folder), folder):
        result = yield from module.resume_classify(folder)
    return Path(result.run_dir)


def ablate_run(config: AblationConfig) -> Job[Path]:
    """Run what is not done yet of an ablation; returns its folder."""
    module = yield from start(_ABLATION)
    with answered(LABELLED, config, config.out):
        result = yield from module.ablate(beside_window(config))
    return Path(result.out)
