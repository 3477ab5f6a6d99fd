"""Train classifiers of cells and run ablations, and keep their results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.core.runtime.jobs import Job, Metrics
from napari_mcm.viewer.app.commands import reserve_gui_core
from napari_mcm.viewer.app.imports import LEARNING_TIMM, import_modules
from napari_mcm.viewer.app.out_of_memory import LABELLED, explain_out_of_memory
from napari_mcm.viewer.cells.run import AblationRun, ablation_options, read_ablation
from napari_mcm.viewer.training.controller import TrainingController
from napari_mcm.viewer.training.run_folder import ABLATIONS, CLASSIFIERS, read_config
from napari_mcm.viewer.training.trained_run import TrainedRun, read_trained

if TYPE_CHECKING:
    from napari_mcm.core.cells.config import ClassifyConfig
    from napari_mcm.core.studies.ablation_config import AblationConfig
    from napari_mcm.viewer.app.session import Session


class ClassifierController(TrainingController):
    """Train classifiers of cells, and keep their curves and results.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    """

    run: TrainedRun | None

    def __init__(self, session: Session) -> None:
        super().__init__(session, "classifier", CLASSIFIERS)

    def start(self, config: ClassifyConfig) -> None:
        """Start a new training."""
        assert config.out is not None
        title = f"Training a classifier from {config.init}"
        self._start(title, lambda: classify_run(config), config.out)

    def resume(self, folder: Path) -> None:
        """Resume an unfinished run."""
        self._resume(lambda: resume_classifier(folder), folder)

    def read(self, folder: Path) -> TrainedRun | None:
        """Read a finished run, in the background; None where there is none."""
        return read_trained(folder)


class AblationController(TrainingController):
    """Run ablations, and keep their tables; curves show the current classifier.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    """

    run: AblationRun | None

    def __init__(self, session: Session) -> None:
        super().__init__(session, "ablation", ABLATIONS)

    def start(self, config: AblationConfig) -> None:
        """Train the classifiers that are not finished."""
        assert config.out is not None
        self._start("Ablation", lambda: ablate_run(config), config.out)

    def resume(self, folder: Path) -> None:
        """Resume an unfinished ablation, with its own options."""
        self._in_background(
            "options", lambda: read_options(folder), lambda config: self.start(config)
        )

    def read(self, folder: Path) -> AblationRun | None:
        """Read the results so far, in the background."""
        return read_ablation(folder)

    def _measured(self, metrics: Metrics) -> None:
        super()._measured(metrics)
        if metrics.step == 0 and (folder := self.folder) is not None:
            self._in_background("table", lambda: read_ablation(folder), self._take)

    def _take(self, run: AblationRun | None) -> None:
        if run is not None:
            self.run = run
            self.run_changed.emit()


def read_options(folder: Path) -> AblationConfig:
    """Return the options of an existing ablation.

    Raises
    ------
    ValueError
        If they are damaged.
    """
    from napari_mcm.core.studies.ablation_config import AblationConfig

    return AblationConfig.model_validate(ablation_options(folder))


_CLASSIFIER = (*LEARNING_TIMM, "sklearn.metrics", "napari_mcm.core.cells.training")

_ABLATION = (*_CLASSIFIER, "napari_mcm.core.studies.ablation")


def classify_run(config: ClassifyConfig) -> Job[Path]:
    """Train a classifier, and return the run's folder."""
    module = yield from import_modules(_CLASSIFIER)
    with explain_out_of_memory(LABELLED, config, config.out):
        result = yield from module.classify(reserve_gui_core(config))
    return Path(result.run_dir)


def resume_classifier(folder: Path) -> Job[Path]:
    """Resume a classifier, and return its folder."""
    module = yield from import_modules(_CLASSIFIER)
    with explain_out_of_memory(LABELLED, read_config(folder), folder):
        result = yield from module.resume_classify(folder)
    return Path(result.run_dir)


def ablate_run(config: AblationConfig) -> Job[Path]:
    """Run the unfinished part of an ablation, and return its folder."""
    module = yield from import_modules(_ABLATION)
    with explain_out_of_memory(LABELLED, config, config.out):
        result = yield from module.ablate(reserve_gui_core(config))
    return Path(result.out)
