"""Pre-train masked autoencoders, and keep their curves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.core.runtime.jobs import Job
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.viewer.app.commands import reserve_gui_core
from napari_mcm.viewer.app.imports import LEARNING_TIMM, import_modules
from napari_mcm.viewer.app.out_of_memory import IMAGES, explain_out_of_memory
from napari_mcm.viewer.training.controller import TrainingController
from napari_mcm.viewer.training.run_folder import PRETRAININGS, read_config
from napari_mcm.viewer.training.trained_run import TrainedRun, read_trained

if TYPE_CHECKING:
    from napari_mcm.core.mae.config import PretrainConfig
    from napari_mcm.viewer.app.session import Session


class PretrainController(TrainingController):
    """Pre-train masked autoencoders, and keep their curves.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    """

    run: TrainedRun | None

    def __init__(self, session: Session) -> None:
        super().__init__(session, "mae", PRETRAININGS)

    def start(self, config: PretrainConfig) -> None:
        """Start a new pre-training."""
        assert config.out is not None
        ready = self.session.disk.wait
        title = f"Pre-training a ViT ({config.model.model})"
        self._start(title, lambda: pretrain_run(config, ready), config.out)

    def resume(self, folder: Path) -> None:
        """Resume an unfinished run."""
        self._resume(lambda: resume_pretraining(folder), folder)

    def read(self, folder: Path) -> TrainedRun | None:
        """Read a finished run, in the background; None where there is none."""
        return read_trained(folder)


_PRETRAINING = (*LEARNING_TIMM, "napari_mcm.core.mae.pretraining")


def pretrain_run(config: PretrainConfig, ready: Callable[[], None]) -> Job[Path]:
    """Pre-train on pictures and slides, and return the run's folder.

    Parameters
    ----------
    config : PretrainConfig
        All options; its slides may be folders.
    ready : callable
        Waits until drawn masks are written.
    """
    from napari_mcm.core.slides.find import find_slides

    module = yield from import_modules(_PRETRAINING)
    if config.images.slides:
        yield from run_in_thread("Saving the mask", ready)
        found = yield from run_in_thread(
            "Looking for slides", find_slides, config.images.slides
        )
        images = config.images.model_copy(update={"slides": found})
        config = config.model_copy(update={"images": images})
    with explain_out_of_memory(IMAGES, config, config.out):
        result = yield from module.pretrain(reserve_gui_core(config))
    return Path(result.run_dir)


def resume_pretraining(folder: Path) -> Job[Path]:
    """Resume a pre-training, and return its folder."""
    module = yield from import_modules(_PRETRAINING)
    with explain_out_of_memory(IMAGES, read_config(folder), folder):
        result = yield from module.resume_pretrain(folder)
    return Path(result.run_dir)
