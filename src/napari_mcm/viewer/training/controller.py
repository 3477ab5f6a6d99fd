"""A training of one widget: started, gone on with, read again, and its curves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_mcm.core.runtime.jobs import Job, Metrics
from napari_mcm.viewer.app.persistence import remember_recent
from napari_mcm.viewer.training.metrics import Series, add_step, read_series

if TYPE_CHECKING:
    from napari_mcm.viewer.app.session import Session


class TrainingController:
    """Starts trainings of one kind and keeps what came of them.

    Parameters
    ----------
    session : Session
        Of the viewer.
    kind : str
        What is trained, for what is done in the background.
    recent : str
        Under which its runs are remembered.

    Attributes
    ----------
    run_changed, series_changed : Signal
        Another finished run is the present one; a training went on.
    folder : Path or None
        Of the training that the curves are of.
    """

    run_changed = Signal()
    series_changed = Signal()

    def __init__(self, session: Session, kind: str, recent: str) -> None:
        self.session, self._kind, self._recent = session, kind, recent
        self.run: Any = None
        self.series: Series = {}
        self.folder: Path | None = None

    def start(self, config: Any) -> None:
        """Train, into a new run."""
        raise NotImplementedError

    def resume(self, folder: Path) -> None:
        """Go on with an unfinished run."""
        raise NotImplementedError

    def read(self, folder: Path) -> Any:
        """Read a finished run, in the background; None where there is none."""
        raise NotImplementedError

    def show_run(self, folder: Path) -> None:
        """Read a run in the background: its curves, and what came of it."""
        self._in_background(
            "run",
            lambda: (self.read(folder), read_series(folder)),
            lambda found: self._take_run(folder, *found),
        )

    def is_busy(self) -> bool:
        """Tell whether a job runs, and complain if so."""
        busy = self.session.jobs.status.busy
        if busy:
            self.session.report_error(
                "Another job is running: wait for it, or cancel it"
            )
        return busy

    def _start(
        self,
        title: str,
        make_job: Callable[[], Job[Path]],
        folder: Path,
        series: Series | None = None,
    ) -> None:
        if self.is_busy():
            return
        self.run, self.series, self.folder = None, series or {}, folder
        self.run_changed.emit()
        self.series_changed.emit()
        # Also of what is cancelled: it can be gone on with.
        self._in_background(
            "recent", lambda: remember_recent(self._recent, str(folder)), _ignore
        )
        self.session.jobs.start(title, make_job, self._trained, self._measured)

    def _resume(self, make_job: Callable[[], Job[Path]], folder: Path) -> None:
        title = f"Going on with {folder.name}"
        # What the first part of it has measured is drawn, too.
        self._in_background(
            "series",
            lambda: read_series(folder),
            lambda series: self._start(title, make_job, folder, series),
        )

    def _measured(self, metrics: Metrics) -> None:
        add_step(self.series, metrics.step, metrics.values)
        self.series_changed.emit()

    def _trained(self, folder: Path) -> None:
        self.session.jobs.status.message = f"Trained: {folder}"
        self.show_run(folder)

    def _take_run(self, folder: Path, run: Any, series: Series) -> None:
        self.run, self.series, self.folder = run, series, folder
        self.series_changed.emit()
        self.run_changed.emit()

    def _in_background(
        self, what: str, work: Callable[[], object], then: Callable[..., None]
    ) -> None:
        key = f"{self._kind} {what}"
        self.session.disk.submit(key, work, then, self.session.report_error)


def _ignore(_: object) -> None:
    """Nothing need be done."""
