"""The jobs that the *Fine-tune* widget starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.core.background import apart
from napari_mcm.core.jobs import Job
from napari_mcm.viewer.commands import beside_window
from napari_mcm.viewer.memory import WINDOWS, answered
from napari_mcm.viewer.mil_tasks import LEARNING, start
from napari_mcm.viewer.run_folders import read_config
from napari_mcm.viewer.tasks import FeatureRequest, Loaded, compute_features

if TYPE_CHECKING:
    from napari_mcm.core.mcm.config import FinetuneConfig

# Seconds to import: apart, so that a cancel acts at once.
_TRAINING = (*LEARNING, "timm", "napari_mcm.core.mcm.finetune")


def finetune_run(config: FinetuneConfig, ready: Callable[[], None]) -> Job[Path]:
    """Fine-tune on slides, or on those in folders; returns the run's folder.

    Parameters
    ----------
    config : FinetuneConfig
        All options.
    ready : callable
        Waits until masks that were drawn are written.
    """
    from napari_mcm.core.slides.find import find_slides

    module = yield from start(_TRAINING)
    yield from apart("Saving the mask", ready)
    slides = yield from apart("Looking for slides", find_slides, config.slides)
    config = config.model_copy(update={"slides": slides})
    with answered(WINDOWS, config, config.out):
        result = yield from module.finetune(beside_window(config))
    return Path(result.run_dir)


def resume_run(folder: Path) -> Job[Path]:
    """Go on with a run; returns its folder."""
    module = yield from start(_TRAINING)
    with answered(WINDOWS, read_config(folder), folder):
        result = yield from module.resume_finetune(folder)
    return Path(result.run_dir)


def compute_several(requests: Sequence[FeatureRequest]) -> Job[list[Loaded]]:
    """Compute features by several encoders, one after the other."""
    found = []
    for request in requests:
        found.append((yield from compute_features(request)))
    return found
