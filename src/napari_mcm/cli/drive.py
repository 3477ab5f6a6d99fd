"""Runs jobs with progress on standard error, and cancels them cleanly on Ctrl-C."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

from napari_mcm.cli.output import JobCancelledError, say
from napari_mcm.core.runtime.jobs import (
    Event,
    Job,
    Metrics,
    Note,
    Progress,
    format_seconds,
    run,
)
from napari_mcm.core.runtime.overall import Overall, OverallClock

if TYPE_CHECKING:
    from rich.progress import TaskID

_T = TypeVar("_T")

SECONDS_BETWEEN_LINES = 5.0
"""Shortest time between two progress lines of one stage, where there is no terminal."""


def drive(job: Job[_T], resume_hint: str = "run the same command again") -> _T:
    """Run a job to its end and show its progress.

    Parameters
    ----------
    job : Job
        The job. It is closed in any case, so that it saves what it needs to resume.
    resume_hint : str
        How to resume after cancelling: ``"resume with ..."``.

    Returns
    -------
    object
        Result of the job.

    Raises
    ------
    JobCancelledError
        On Ctrl-C or a termination signal, after the job has cleaned up.
    """
    display: _Bars | _Lines = _Bars() if sys.stderr.isatty() else _Lines()
    try:
        with display as show:
            return run(job, show)
    except KeyboardInterrupt:
        raise JobCancelledError(resume_hint) from None


class _Lines(AbstractContextManager[Callable[[Event], None]]):
    """Shows progress as plain lines every few seconds, for logs and pipes."""

    def __init__(self) -> None:
        self._stage, self._last, self._figures = "", float("-inf"), ""
        self._done = -1
        self._clock = OverallClock()

    def __enter__(self) -> Callable[[Event], None]:
        return self._show

    def __exit__(self, *exc: object) -> None:
        return None

    def _show(self, event: Event) -> None:
        if isinstance(event, Note):
            _print_note(event)
        elif isinstance(event, Metrics):
            self._figures = _figures(event)
        else:
            overall = self._clock.follow(event)
            if self._due(event):
                whole = f"; {_whole(overall)}" if event.overall is not None else ""
                say(f"{event.stage}: {_amount(event)}{self._figures}{whole}")

    def _due(self, progress: Progress) -> bool:
        new = progress.stage != self._stage
        if new:
            self._figures = ""
        elif progress.done == self._done:
            return False  # an event without progress only lets the job be cancelled
        now = time.monotonic()
        ended = progress.total is not None and progress.done >= progress.total
        if not (new or ended or now - self._last >= SECONDS_BETWEEN_LINES):
            return False
        self._stage, self._done, self._last = progress.stage, progress.done, now
        return True


class _Bars(AbstractContextManager[Callable[[Event], None]]):
    """Shows one progress bar for the whole job and one per stage, on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._bars = RichProgress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[amount]}", markup=False),
            console=Console(stderr=True),
            redirect_stdout=False,
        )
        self._stage, self._figures = "", ""
        self._task: TaskID | None = None
        self._all: TaskID | None = None
        self._clock = OverallClock()

    def __enter__(self) -> Callable[[Event], None]:
        self._bars.__enter__()
        return self._show

    def __exit__(self, *exc: Any) -> None:
        self._bars.__exit__(*exc)

    def _show(self, event: Event) -> None:
        if isinstance(event, Note):
            # rich would interpret brackets in file names as markup.
            self._bars.console.print(_note_text(event), markup=False, highlight=False)
        elif isinstance(event, Metrics):
            self._figures = _figures(event)
        else:
            self._show_whole(event)
            self._bars.update(
                self._task_of(event),
                completed=event.done,
                total=event.total,
                amount=_amount(event) + self._figures,
            )

    def _show_whole(self, progress: Progress) -> None:
        """Show how far the whole job has come, above its stages."""
        overall = self._clock.follow(progress)
        if progress.overall is None:
            return  # a job of one stage
        if self._all is None:
            self._all = self._bars.add_task("Whole job", total=1.0, amount="")
        self._bars.update(self._all, completed=overall.fraction, amount=_whole(overall))

    def _task_of(self, progress: Progress) -> TaskID:
        if self._task is None or progress.stage != self._stage:
            self._stage, self._figures = progress.stage, ""
            self._task = self._bars.add_task(progress.stage, total=None, amount="")
        return self._task


def _amount(progress: Progress) -> str:
    """Return how much is done as text, or dots if the stage counts nothing."""
    counted = progress.total is not None or progress.done
    return progress.describe() if counted else "..."


def _whole(overall: Overall) -> str:
    """Return how far the whole job has come as text: ``62 % of all, 40 s left``."""
    parts = [f"{100 * (overall.fraction or 0.0):.0f} % of all"]
    if overall.left_s is not None:
        parts.append(f"{format_seconds(overall.left_s)} left")
    return ", ".join(parts)


def _figures(metrics: Metrics) -> str:
    """Return the loss as text: the one metric that is shown during training."""
    loss = metrics.values.get("loss")
    # Some stages have no loss: batch-norm statistics are estimated without one.
    known = loss is not None and math.isfinite(loss)
    return f", loss {loss:.4f}" if known else ""


def _note_text(note: Note) -> str:
    return f"warning: {note.text}" if note.level == "warning" else note.text


def _print_note(note: Note) -> None:
    say(_note_text(note))
