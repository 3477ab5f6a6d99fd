"""What one *Fine-tune* widget works on: a training, its curves, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.core.jobs import Job, Metrics
from napari_mcm.viewer.finetune_runs import (
    FinetuneRun,
    Series,
    add_step,
    read_run,
    read_series,
)
from napari_mcm.viewer.finetune_tasks import compute_several, finetune_run, resume_run
from napari_mcm.viewer.remembered import RUNS, remember_recent
from napari_mcm.viewer.session import SLOTS
from napari_mcm.viewer.slide_facts import SlideFacts
from napari_mcm.viewer.tasks import FeatureRequest, Loaded

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.mcm.config import FinetuneConfig
    from napari_mcm.viewer.session import Session


class FinetuneDesk:
    """Starts the jobs of the *Fine-tune* widget and keeps what came of them.

    Parameters
    ----------
    session : Session
        Of the viewer.

    Attributes
    ----------
    run_changed, series_changed : Signal
        Another finished run is the present one; a training went on.
    """

    run_changed = Signal()
    series_changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self.run: FinetuneRun | None = None
        self.series: Series = {}

    def start(self, config: FinetuneConfig) -> None:
        """Fine-tune, into a new run."""
        assert config.out is not None
        title = f"Fine-tuning {config.student}"
        ready = self.session.disk.wait
        self._start(title, lambda: finetune_run(config, ready), config.out, {})

    def go_on(self, folder: Path) -> None:
        """Go on with an unfinished run."""
        title = f"Going on with {folder.name}"
        # What the first part of it has measured is drawn, too.
        self._in_background(
            "finetune series",
            lambda: read_series(folder),
            lambda series: self._start(
                title, lambda: resume_run(folder), folder, series
            ),
        )

    def show_run(self, folder: Path) -> None:
        """Read a run in the background: its curves, and what came of it."""
        self._in_background(
            "finetune run",
            lambda: (read_run(folder), read_series(folder)),
            lambda found: self._take_run(*found),
        )

    def compare(self, requests: list[FeatureRequest]) -> None:
        """Compute features of the present slide before and after, and show both.

        Parameters
        ----------
        requests : list of FeatureRequest
            By the student as it was, and by the fine-tuned one.
        """
        slide = self.session.slide
        if slide is None or self.is_busy():
            return
        name = SlideFacts.of_layer(slide)
        self.session.jobs.start(
            f"Features of {name.name if name else 'the slide'}, before and after",
            lambda: compute_several(requests),
            lambda found: self._compared(slide, found),
        )

    def is_busy(self) -> bool:
        """Tell whether a job runs, and complain if so."""
        busy = self.session.jobs.status.busy
        if busy:
            self.session.complain("Another job is running: wait for it, or cancel it")
        return busy

    def _start(
        self,
        title: str,
        make_job: Callable[[], Job[Path]],
        folder: Path,
        series: Series,
    ) -> None:
        if self.is_busy():
            return
        self.run, self.series = None, series
        self.run_changed.emit()
        self.series_changed.emit()
        # Also of what is cancelled: it can be gone on with.
        self._in_background(
            "finetune recent", lambda: remember_recent(RUNS, str(folder)), _ignore
        )
        self.session.jobs.start(title, make_job, self._trained, self._measured)

    def _measured(self, metrics: Metrics) -> None:
        add_step(self.series, metrics.step, metrics.values)
        self.series_changed.emit()

    def _trained(self, folder: Path) -> None:
        self.session.jobs.status.message = f"Fine-tuned: {folder}"
        self.show_run(folder)

    def _take_run(self, run: FinetuneRun | None, series: Series) -> None:
        self.run, self.series = run, series
        self.series_changed.emit()
        self.run_changed.emit()

    def _compared(self, slide: Layer, found: list[Loaded]) -> None:
        for slot, loaded in zip(SLOTS, found, strict=False):
            self.session.take_features(slide, slot, loaded)
        self.session.jobs.status.message = (
            "Before and after are in the Similarity widget: click on the slide"
        )

    def _in_background(
        self, key: str, work: Callable[[], object], then: Callable[..., None]
    ) -> None:
        self.session.disk.submit(key, work, then, self.session.complain)


def _ignore(_: object) -> None:
    """Nothing need be done."""
