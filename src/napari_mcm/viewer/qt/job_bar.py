"""The status of the running job: progress bar, message, Cancel and Details."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from functools import partial
from weakref import WeakKeyDictionary

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QDialog,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QElidingLabel

from napari_mcm.core.runtime.jobs import format_seconds
from napari_mcm.viewer.app.jobs import JobRunner, JobState, JobStatus
from napari_mcm.viewer.qt.helpers import connect, when_destroyed

_CANCEL = "&Cancel"
_PARTS = 1000
"""Steps of the bar."""
_FEW_S = 3.0
"""Seconds that a job lasts before its time left is worth saying."""


class JobBar(QWidget):
    """Shows the status of the current or last job, and cancels it.

    Parameters
    ----------
    jobs : JobRunner
        Runs the jobs.
    places : collection of str
        Folders of the dock: how a job ended is said in the dock that started it. With
        none, all jobs are its own.
    """

    def __init__(self, jobs: JobRunner, places: Collection[str] = ()) -> None:
        super().__init__()
        self._jobs, self._places, self._is_past = jobs, frozenset(places), False
        _places_of(jobs).update(self._places)
        when_destroyed(self, partial(_forget, jobs, self._places))
        self.bar = QProgressBar()
        self.bar.setAccessibleName("Progress of the running job")
        self.cancel = QPushButton(_CANCEL)
        self.cancel.setToolTip("Stop the running job; finished work is kept")
        self.cancel.clicked.connect(jobs.cancel)
        self.line = QLabel()
        self.line.setWordWrap(True)
        # What went well takes one line, and leaves the dock to what comes next.
        self.outcome = QElidingLabel()
        self.outcome.setElideMode(Qt.TextElideMode.ElideMiddle)
        self.details = QPushButton("Details…")
        self.details.setToolTip("Show the whole error, and warnings of the last job")
        self.details.clicked.connect(self._show_details)
        self._lay_out()
        connect(jobs.status.events, self._refresh)
        self._refresh()

    def _lay_out(self) -> None:
        self._running = QWidget()
        row = QHBoxLayout(self._running)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.bar, 1)
        row.addWidget(self.cancel)
        below = QHBoxLayout()
        below.addWidget(self.line, 1)
        below.addWidget(self.outcome, 1)
        below.addWidget(self.details)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._running)
        column.addLayout(below)

    def clear_outcome(self) -> None:
        """Say no longer how the last job ended, unless it failed: it was of a slide."""
        self._is_past = self._jobs.status.state in (JobState.DONE, JobState.CANCELLED)
        self._refresh()

    def _refresh(self) -> None:
        status = self._jobs.status
        self._is_past = self._is_past and not status.busy
        self._running.setVisible(status.busy)
        self.cancel.setEnabled(status.state is JobState.RUNNING)
        cancelling = status.state is JobState.CANCELLING
        self.cancel.setText("Cancelling…" if cancelling else _CANCEL)
        self._show_bar(status)
        own = status.busy or (self._is_own(status.place) and not self._is_past)
        text = describe(status) if own else ""
        done = status.state is JobState.DONE
        self.line.setText(text)
        self.line.setVisible(bool(text) and not done)
        self.outcome.setText(text)
        self.outcome.setToolTip(text)
        self.outcome.setVisible(bool(text) and done)
        self.details.setVisible(own and bool(status.details) and not status.busy)

    def _is_own(self, place: str) -> bool:
        """Return whether this dock says how a job ended, as nobody else does."""
        if not self._places or place in self._places:
            return True
        return not _places_of(self._jobs)[place]

    def _show_bar(self, status: JobStatus) -> None:
        fraction = status.overall.fraction
        if fraction is None:
            # Not Qt's animated bar: each frame redraws the whole window, with the
            # canvas, and slows the import of PyTorch to half its speed.
            self.bar.setRange(0, 1)
            self.bar.setValue(0)
            self.bar.setFormat("…")
            return
        self.bar.setRange(0, _PARTS)
        self.bar.setValue(int(fraction * _PARTS))
        self.bar.setFormat(f"{100 * fraction:.0f} %")

    def _show_details(self) -> None:
        dialog = QDialog(self)
        dialog.setWindowTitle(f"{self._jobs.status.title}: details")
        text = QPlainTextEdit(self._jobs.status.details)
        text.setReadOnly(True)
        text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        QVBoxLayout(dialog).addWidget(text)
        dialog.resize(700, 400)
        dialog.open()


_places: WeakKeyDictionary[JobRunner, Counter[str]] = WeakKeyDictionary()


def _places_of(jobs: JobRunner) -> Counter[str]:
    """Return how many docks of each folder are open."""
    return _places.setdefault(jobs, Counter())


def _forget(jobs: JobRunner, places: frozenset[str]) -> None:
    _places_of(jobs).subtract(places)


def describe(status: JobStatus) -> str:
    """Return the progress or the outcome of a job as one line of text."""
    if status.state is JobState.IDLE:
        return ""
    if status.state is JobState.FAILED:
        return f"{status.title} failed: {status.message}"
    if not status.busy:
        return status.message or f"{status.title}: {status.state.value}"
    if status.progress is None:
        return f"{status.title}…"
    progress, overall = status.progress, status.overall
    parts = [f"{progress.stage}…"]
    if progress.total is not None and progress.total > 1:
        parts.append(f"{progress.done:,} of {progress.total:,} {progress.unit}")
    if progress.rate:
        parts.append(f"{progress.rate:.3g} per second")
    if overall.left_s is not None and overall.elapsed_s >= _FEW_S:
        whole = overall.elapsed_s + overall.left_s
        left = format_seconds(overall.left_s)
        parts.append(f"{left} left of {format_seconds(whole)}")
    return ", ".join(parts)
