"""The jobs that the *Fine-tune* widget starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mcm.core.errors import TrainingError
from napari_mcm.core.jobs import Job
from napari_mcm.viewer.commands import beside_window
from napari_mcm.viewer.mil_tasks import LEARNING, start
from napari_mcm.viewer.run_folders import read_config
from napari_mcm.viewer.tasks import FeatureRequest, Loaded, _apart, compute_features

if TYPE_CHECKING:
    from napari_mcm.core.mcm.config import FinetuneConfig

# Seconds to import: apart, so that a cancel acts at once.
_TRAINING = (*LEARNING, "timm", "napari_mcm.core.mcm.finetune")
_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


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
    yield from _apart("Saving the mask", ready)
    slides = yield from _apart("Looking for slides", find_slides, config.slides)
    config = config.model_copy(update={"slides": slides})
    windows = config.optimiser.batch_windows
    return (
        yield from _told(module.finetune(beside_window(config)), config.out, windows)
    )


def resume_run(folder: Path) -> Job[Path]:
    """Go on with a run; returns its folder."""
    module = yield from start(_TRAINING)
    windows = read_config(folder).get("optimiser", {}).get("batch_windows", 1)
    return (yield from _told(module.resume_finetune(folder), folder, int(windows)))


def compute_several(requests: Sequence[FeatureRequest]) -> Job[list[Loaded]]:
    """Compute features by several encoders, one after the other."""
    found = []
    for request in requests:
        found.append((yield from compute_features(request)))
    return found


def _told(job: Job[Any], folder: Path | None, windows: int) -> Job[Path]:
    """Drive a training; what it needs more memory for is said in a line."""
    try:
        result = yield from job
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _is_memory(error):
            raise
        raise TrainingError(
            f"the memory is too small for a step of {windows} context windows",
            folder,
            "Set Windows computed at once (--chunk-windows) to "
            f"{max(windows // 2, 1)} or less: the result stays the same. Or take a "
            "smaller student, teacher or context window; in a new run folder",
        ) from error
    return Path(result.run_dir)


def _is_memory(error: Exception) -> bool:
    text = str(error).lower()
    return any(words in text for words in _NO_MEMORY)
