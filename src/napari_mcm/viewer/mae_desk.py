"""What one *MAE & cells* widget works on: its pre-training and its classifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.core.jobs import Metrics
from napari_mcm.viewer.mae_runs import (
    AblationRun,
    TrainedRun,
    ablation_options,
    read_ablation,
    read_trained,
)
from napari_mcm.viewer.mae_tasks import (
    ablate_run,
    classify_run,
    pretrain_run,
    resume_classifier,
    resume_pretraining,
)
from napari_mcm.viewer.training_desk import TrainingDesk

if TYPE_CHECKING:
    from napari_mcm.core.mae.classifier.config import ClassifyConfig
    from napari_mcm.core.mae.config import PretrainConfig
    from napari_mcm.core.studies.ablation_config import AblationConfig
    from napari_mcm.viewer.session import Session

PRETRAININGS, CLASSIFIERS, ABLATIONS = "mae runs", "classifiers", "ablations"
"""Kinds of runs as they are remembered."""


class PretrainDesk(TrainingDesk):
    """Pre-trains masked autoencoders, and keeps their curves.

    Parameters
    ----------
    session : Session
        Of the viewer.
    """

    run: TrainedRun | None

    def __init__(self, session: Session) -> None:
        super().__init__(session, "mae", PRETRAININGS)

    def start(self, config: PretrainConfig) -> None:
        """Pre-train, into a new run."""
        assert config.out is not None
        ready = self.session.disk.wait
        title = f"Pre-training a ViT ({config.model.model})"
        self._start(title, lambda: pretrain_run(config, ready), config.out)

    def go_on(self, folder: Path) -> None:
        """Go on with an unfinished run."""
        self._go_on(lambda: resume_pretraining(folder), folder)

    def read(self, folder: Path) -> TrainedRun | None:
        """Read a finished run, in the background; None where there is none."""
        return read_trained(folder)


class ClassifierDesk(TrainingDesk):
    """Trains classifiers of cells, and keeps their curves and results.

    Parameters
    ----------
    session : Session
        Of the viewer.
    """

    run: TrainedRun | None

    def __init__(self, session: Session) -> None:
        super().__init__(session, "classifier", CLASSIFIERS)

    def start(self, config: ClassifyConfig) -> None:
        """Train a classifier, into a new run."""
        assert config.out is not None
        title = f"Training a classifier from {config.init}"
        self._start(title, lambda: classify_run(config), config.out)

    def go_on(self, folder: Path) -> None:
        """Go on with an unfinished run."""
        self._go_on(lambda: resume_classifier(folder), folder)

    def read(self, folder: Path) -> TrainedRun | None:
        """Read a finished run, in the background; None where there is none."""
        return read_trained(folder)


class AblationDesk(TrainingDesk):
    """Runs ablations, and keeps their tables; curves are of the present classifier.

    Parameters
    ----------
    session : Session
        Of the viewer.
    """

    run: AblationRun | None

    def __init__(self, session: Session) -> None:
        super().__init__(session, "ablation", ABLATIONS)

    def start(self, config: AblationConfig) -> None:
        """Run what is not done yet."""
        assert config.out is not None
        self._start("Ablation", lambda: ablate_run(config), config.out)

    def go_on(self, folder: Path) -> None:
        """Go on with an unfinished one, by its own options."""
        self._in_background(
            "options", lambda: read_options(folder), lambda config: self.start(config)
        )

    def read(self, folder: Path) -> AblationRun | None:
        """Read what is written so far, in the background."""
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
    """Give the options of an ablation that was begun.

    Raises
    ------
    ValueError
        If they are damaged.
    """
    from napari_mcm.core.studies.ablation_config import AblationConfig

    return AblationConfig.model_validate(ablation_options(folder))
