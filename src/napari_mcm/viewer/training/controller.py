"""Start and resume the trainings of one dock, and keep their curves and results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_mcm.core.runtime.jobs import Job, Metrics
from napari_mcm.viewer.app.jobs import Timing
from napari_mcm.viewer.app.persistence import remember_recent
from napari_mcm.viewer.training.metrics import (
    WHOLE,
    Curves,
    Series,
    add_step,
    read_curves,
)

if TYPE_CHECKING:
    from napari_mcm.viewer.app.session import Session


class TrainingController:
    """Start trainings of one kind, and keep their curves and results.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    kind : str
        Kind of training; distinguishes its work in the background.
    recent : str
        Key under which its run folders are remembered.

    Attributes
    ----------
    run_changed, series_changed : Signal
        Another finished run is shown, or none; the curves have changed.
    run : object or None
        The finished run that is shown.
    curves : Curves
        Metrics of the training that is shown, by fold and seed.
    folder : Path or None
        Folder of the training that is shown.
    timing : Timing or None
        Measures the training that is started next.
    """

    run_changed = Signal()
    series_changed = Signal()

    def __init__(self, session: Session, kind: str, recent: str) -> None:
        self.session, self._kind, self._recent = session, kind, recent
        self.run: Any = None
        self.curves: Curves = {}
        self.folder: Path | None = None
        self.timing: Timing | None = None

    @property
    def series(self) -> Series:
        """Metrics of a training without folds."""
        return self.curves.get(WHOLE, {})

    def start(self, config: Any) -> None:
        """Start a new run."""
        raise NotImplementedError

    def resume(self, folder: Path) -> None:
        """Resume an unfinished run."""
        raise NotImplementedError

    def read(self, folder: Path) -> Any:
        """Read a finished run, in the background; None where there is none."""
        raise NotImplementedError

    def read_curves(self, folder: Path) -> Curves:
        """Read the curves of a run, in the background, finished or not."""
        return read_curves(folder)

    def show_run(self, folder: Path) -> None:
        """Show a run: its curves, and its results where it is finished."""
        self._in_background(
            "run",
            lambda: (self.read(folder), self.read_curves(folder)),
            lambda found: self._take_run(folder, *found),
        )

    def is_busy(self) -> bool:
        """Tell whether a job is running, and report an error if so."""
        return report_busy(self.session)

    def _start(
        self,
        title: str,
        make_job: Callable[[], Job[Path]],
        folder: Path,
        curves: Curves | None = None,
    ) -> None:
        timing, self.timing = self.timing, None
        if self.is_busy():
            return
        self.curves, self.folder = curves or {}, folder
        self._forget_run()
        self.series_changed.emit()
        # A cancelled run can be resumed, so it is remembered from the start.
        self._in_background(
            "recent", lambda: remember_recent(self._recent, str(folder)), _ignore
        )
        self.session.jobs.start(title, make_job, self._trained, self._measured, timing)

    def _forget_run(self) -> None:
        self.run = None
        self.run_changed.emit()

    def _resume(self, make_job: Callable[[], Job[Path]], folder: Path) -> None:
        title = f"Resuming {folder.name}"
        # The curves include the steps before the interruption.
        self._in_background(
            "series",
            lambda: self.read_curves(folder),
            lambda curves: self._start(title, make_job, folder, curves),
        )

    def _measured(self, metrics: Metrics) -> None:
        values = dict(metrics.values)
        key = int(values.pop("fold", 0)), int(values.pop("seed", 0))
        add_step(self.curves.setdefault(key, {}), metrics.step, values)
        self.series_changed.emit()

    def _trained(self, folder: Path) -> None:
        self.session.jobs.status.message = f"Trained: {folder}"
        self.show_run(folder)

    def _take_run(self, folder: Path, run: Any, curves: Curves) -> None:
        self.run, self.curves, self.folder = run, curves, folder
        self.series_changed.emit()
        self.run_changed.emit()

    def _in_background(
        self, what: str, work: Callable[[], object], then: Callable[..., None]
    ) -> None:
        key = f"{self._kind} {what}"
        self.session.disk.submit(key, work, then, self.session.report_error)


def report_busy(session: Session) -> bool:
    """Tell whether a job is running, and report an error if so."""
    busy = session.jobs.status.busy
    if busy:
        session.report_error("Another job is running: wait for it, or cancel it")
    return busy


def _ignore(_: object) -> None:
    """Do nothing with a result."""
