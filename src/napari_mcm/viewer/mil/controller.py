"""What one *MIL* widget works on: a training, its curves, and a finished run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mil.cohort import slide_key
from napari_mcm.core.runtime.jobs import Job, Metrics
from napari_mcm.viewer.app.commands import reserve_gui_core
from napari_mcm.viewer.app.out_of_memory import BAGS, explain_out_of_memory
from napari_mcm.viewer.app.persistence import (
    remember_mil_folders,
    remembered_mil_folders,
)
from napari_mcm.viewer.mil.run import Curves, MilRun, read_curves, read_run
from napari_mcm.viewer.training.imports import LEARNING, import_modules
from napari_mcm.viewer.training.run_folder import read_config

if TYPE_CHECKING:
    from napari_mcm.core.mil.config import MilConfig
    from napari_mcm.viewer.app.session import Session


class MilController:
    """Starts the jobs of the *MIL* widget and keeps what came of them.

    Parameters
    ----------
    session : Session
        Of the viewer.

    Attributes
    ----------
    run_changed, curves_changed : Signal
        Another run was read; a training went on.
    recalled : Signal
        What was chosen last time is in `last`, by field.
    """

    run_changed = Signal()
    curves_changed = Signal()
    recalled = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self.run: MilRun | None = None
        self.curves: Curves = {}
        self.last: dict[str, str] = {}
        self.features: Path | None = None
        self.slides: Path | None = None

    def recall(self) -> None:
        """Ask for what was chosen last time."""
        self._in_background("mil recall", remembered_mil_folders, self._recalled)

    def remember(self, chosen: Mapping[str, str]) -> None:
        """Keep what was chosen for next time."""
        kept = {name: text for name, text in chosen.items() if text}
        # Only the newest work of a key is done, and other fields are other work.
        key = f"mil keep {sorted(kept)}"
        self._in_background(key, lambda: remember_mil_folders(kept), _ignore)

    def train(self, config: MilConfig) -> None:
        """Train a new run, and show it."""
        self._start(
            f"Training {config.aggregator.model}",
            lambda: train_run(reserve_gui_core(config)),
            {},
        )

    def resume(self, folder: Path) -> None:
        """Go on with an unfinished run, and show it."""
        title = f"Going on with {folder.name}"
        # What the first part of it has measured is drawn, too.
        self._in_background(
            "mil curves",
            lambda: read_curves(folder),
            lambda curves: self._start(title, lambda: continue_run(folder), curves),
        )

    def show_run(self, folder: Path) -> None:
        """Read a finished run in the background."""
        self._in_background("mil run", lambda: read_run(folder), self._take_run)

    def _recalled(self, last: dict[str, str]) -> None:
        self.last = last
        self.recalled.emit()

    def is_busy(self) -> bool:
        """Tell whether a job runs, and complain if so."""
        busy = self.session.jobs.status.busy
        if busy:
            self.session.report_error(
                "Another job is running: wait for it, or cancel it"
            )
        return busy

    def _start(
        self, title: str, make_job: Callable[[], Job[Path]], curves: Curves
    ) -> None:
        if self.is_busy():
            return
        self.curves = curves
        self.curves_changed.emit()
        self.session.jobs.start(title, make_job, self._trained, self._measured)

    def _measured(self, metrics: Metrics) -> None:
        values = dict(metrics.values)
        key = int(values.pop("fold", 0)), int(values.pop("seed", 0))
        series = self.curves.setdefault(key, {})
        steps = series.setdefault("step", [])
        # An epoch that was broken off is measured again when the run goes on.
        keep = sum(step < metrics.step for step in steps)
        for name, value in {"step": float(metrics.step), **values}.items():
            series[name] = [*series.get(name, [])[:keep], float(value)]
        self.curves_changed.emit()

    def _trained(self, folder: Path) -> None:
        self.session.jobs.status.message = f"Trained and tested: {folder}"
        self.show_run(folder)

    def _take_run(self, run: MilRun) -> None:
        self.run = run
        if run.features is not None:
            self.features = run.features
        self.remember({"run": str(run.path)})
        self.curves = run.curves
        self.curves_changed.emit()
        self.run_changed.emit()

    def _in_background(
        self, key: str, work: Callable[[], object], then: Callable[..., None]
    ) -> None:
        self.session.disk.submit(key, work, then, self.session.report_error)


def _ignore(_: object) -> None:
    """Nothing need be done."""


_TRAINING = (
    *LEARNING,
    "sklearn.model_selection",
    "sklearn.metrics",
    "sklearn.calibration",
    "napari_mcm.core.mil.train",
)


def train_run(config: MilConfig) -> Job[Path]:
    """Train a new run; returns its folder."""
    train = yield from import_modules(_TRAINING)
    with explain_out_of_memory(BAGS, config, config.out):
        result = yield from train.train(config)
    return Path(result.run_dir)


def continue_run(folder: Path) -> Job[Path]:
    """Go on with a run; returns its folder."""
    train = yield from import_modules(_TRAINING)
    with explain_out_of_memory(BAGS, read_config(folder), folder):
        result = yield from train.resume_train(folder)
    return Path(result.run_dir)


def find_slide(name: str, known: Path | None, folder: Path | None) -> Path:
    """Find a slide's pixels: as the cohort's table has it, or by name in a folder.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if known is not None and known.exists():
        return known
    if folder is None:
        raise ConfigError(f"where is slide {name}? Choose the folder of slides below")
    outer = _listed(folder)
    inner = [file for place in outer if place.is_dir() for file in _listed(place)]
    found = [file for file in (*outer, *inner) if slide_key(file.name) == name]
    if not found:
        hint = "Choose another folder"
        raise ConfigError(f"holds no slide called {name}", folder, hint)
    # A folder of that name may be a slide (DICOM), or hold the file that is.
    return min(found, key=Path.is_dir)


def _listed(folder: Path) -> Sequence[Path]:
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError:
        return []
