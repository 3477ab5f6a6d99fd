"""Train slide classifiers, and keep the run that the *MIL* dock shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.core.runtime.jobs import Job
from napari_mcm.viewer.app.commands import reserve_gui_core
from napari_mcm.viewer.app.imports import LEARNING, import_modules
from napari_mcm.viewer.app.out_of_memory import BAGS, explain_out_of_memory
from napari_mcm.viewer.app.persistence import (
    remember_mil_folders,
    remembered_mil_folders,
)
from napari_mcm.viewer.mil.run import MilRun, read_fold_curves, read_run, state_of
from napari_mcm.viewer.training.controller import TrainingController
from napari_mcm.viewer.training.metrics import Curves
from napari_mcm.viewer.training.run_folder import MIL_RUNS, read_config

if TYPE_CHECKING:
    from napari_mcm.core.mil.config import MilConfig
    from napari_mcm.viewer.app.session import Session


class MilController(TrainingController):
    """Train slide classifiers, and keep their curves and the run that is shown.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    recalled : Signal
        The paths chosen last time are in `last`, by field.
    """

    recalled = Signal()
    run: MilRun | None

    def __init__(self, session: Session) -> None:
        super().__init__(session, "mil", MIL_RUNS)
        self.last: dict[str, str] = {}

    def recall(self) -> None:
        """Read the paths that were chosen last time."""
        self._in_background("recall", remembered_mil_folders, self._recalled)

    def remember(self, chosen: Mapping[str, object]) -> None:
        """Remember chosen paths for next time."""
        kept = {name: str(path) for name, path in chosen.items() if path}
        # Only the newest work of a key is done, and other fields are other work.
        what = f"keep {sorted(kept)}"
        self._in_background(what, lambda: remember_mil_folders(kept), lambda _: None)

    def start(self, config: MilConfig) -> None:
        """Train a new run."""
        assert config.out is not None
        paths = {"cohort": config.cohort, "features": config.features}
        self.remember({**paths, "out": config.out})
        title = f"Training {config.aggregator.model}"
        self._start(title, lambda: train_run(reserve_gui_core(config)), config.out)

    def resume(self, folder: Path) -> None:
        """Resume an unfinished run."""
        self._resume(lambda: resume_run(folder), folder)

    def read(self, folder: Path) -> MilRun | None:
        """Read a finished run, in the background; None where it is unfinished."""
        return None if state_of(folder).kind == "unfinished" else read_run(folder)

    def read_curves(self, folder: Path) -> Curves:
        """Read the curves of all folds of a run, finished or not."""
        return read_fold_curves(folder)

    def show_results(self, folder: Path) -> None:
        """Show a finished run; report an error where it is unfinished."""
        self._in_background(
            "run",
            lambda: (read_run(folder), read_fold_curves(folder)),
            lambda found: self._take_run(folder, *found),
        )

    def _recalled(self, last: dict[str, str]) -> None:
        self.last = last
        self.recalled.emit()

    def _forget_run(self) -> None:
        """Keep showing the earlier run while another one trains."""

    def _trained(self, folder: Path) -> None:
        self.session.jobs.status.message = f"Trained and tested: {folder}"
        self.show_run(folder)

    def _take_run(self, folder: Path, run: MilRun | None, curves: Curves) -> None:
        if run is None:
            self.curves, self.folder = curves, folder
            self.series_changed.emit()
            return
        self.remember({"run": run.path})
        super()._take_run(folder, run, curves)


_TRAINING = (
    *LEARNING,
    "sklearn.model_selection",
    "sklearn.metrics",
    "sklearn.calibration",
    "napari_mcm.core.mil.train",
)


def train_run(config: MilConfig) -> Job[Path]:
    """Train a new run, and return its folder."""
    train = yield from import_modules(_TRAINING)
    with explain_out_of_memory(BAGS, config, config.out):
        result = yield from train.train(config)
    return Path(result.run_dir)


def resume_run(folder: Path) -> Job[Path]:
    """Resume a run, and return its folder."""
    train = yield from import_modules(_TRAINING)
    with explain_out_of_memory(BAGS, read_config(folder), folder):
        result = yield from train.resume_train(folder)
    return Path(result.run_dir)
