"""Where a training goes, and the button that starts it or goes on with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QMenu, QPushButton, QWidget

from napari_mcm.core.runtime.command import Command
from napari_mcm.viewer.app.commands import resume_command
from napari_mcm.viewer.app.persistence import recent, writable_base
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.qt.command_panel import CommandPanel
from napari_mcm.viewer.qt.helpers import (
    connect,
    note,
    set_enabled_with_reason,
    while_alive,
)
from napari_mcm.viewer.qt.path_field import PathField
from napari_mcm.viewer.training.controller import TrainingController
from napari_mcm.viewer.training.run_folder import RunState

RESUME = "Res&ume"

_RESUME_TIP = "Go on where it was broken off; its options stay as they are"

_REASONS = {
    "other": "the run folder holds something else",
    "finished": "the run folder holds a finished run",
}


class StartPanel(QWidget):
    """The run's folder and the button.

    Parameters
    ----------
    controller : TrainingController
        Which runs it.
    form : TaskForm
        What is asked for.
    kind : TrainingTaskSpec
        What is trained.
    """

    def __init__(
        self, controller: TrainingController, form: TaskForm, kind: TrainingTaskSpec
    ) -> None:
        super().__init__()
        self._kind = kind
        self._controller, self._form, self._jobs = (
            controller,
            form,
            controller.session.jobs,
        )
        self._state: RunState | None = None
        self.out = PathField("Run folder", kind.holds)
        self.fresh = QPushButton("&New folder")
        self.fresh.setToolTip(
            "Take the next run folder that is free, beside what is learned from"
        )
        self.fresh.clicked.connect(self.propose)
        self.recent = QPushButton("&Recent runs")
        self.recent.setToolTip("Runs of before, finished or to be gone on with")
        self._menu = QMenu(self.recent)
        self.recent.setMenu(self._menu)
        self.state_note = note()
        self.start = QPushButton(kind.button)
        self.start.clicked.connect(self.run)
        self.show_run = QPushButton("Show &it")
        self.show_run.setToolTip("Show the curves of this run, and what came of it")
        self.show_run.clicked.connect(self._show)
        self.command = CommandPanel(self.as_command, controller.session.report_error)
        self._lay_out()
        connect(self.out.changed, self.look)
        connect(form.changed, self.refresh)
        connect(form.changed, self._propose_first)
        connect(self._jobs.status.events.state, self.look)
        self._recall()
        self._propose_first()
        self.refresh()

    def _lay_out(self) -> None:
        row = QHBoxLayout()
        row.addWidget(self.fresh)
        row.addWidget(self.recent)
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Run folder", self.out)
        form.addRow(row)
        for part in (self.state_note, self.show_run, self.start, self.command):
            form.addRow(part)

    def propose(self) -> None:
        """Take the next free folder beside what is learned from."""
        beside = self._form.beside()
        if beside is None:
            self._controller.session.report_error(self._form.missing())
            return
        base = (preferences().output_folder or writable_base(beside)) / "runs"
        number, name = 1, self._kind.folder
        while (base / f"{name}-{number}").exists():
            number += 1
        self.out.put(base / f"{name}-{number}")

    def look(self) -> None:
        """Look again, in the background, at what the run folder holds."""
        folder, self._state = self.out.path, None
        disk, key = self._controller.session.disk, f"{self._kind.verb} state {id(self)}"
        if folder is None:
            disk.drop(key)
        else:
            disk.submit(
                key,
                lambda: self._kind.state_of(folder),
                while_alive(self._looked),
                self._controller.session.report_error,
            )
        self.refresh()

    def refresh(self) -> None:
        """Show which buttons can be used."""
        state = self._state
        kind = state.kind if state is not None else ""
        resume = kind == "unfinished"
        self.start.setText(RESUME if resume else self._kind.button)
        set_enabled_with_reason(
            self.start, _RESUME_TIP if resume else self._kind.tip, self._reason()
        )
        self.state_note.setText(state.text if state else "")
        self.state_note.setVisible(bool(self.state_note.text()))
        self.show_run.setVisible(kind in ("finished", "unfinished"))
        self.show_run.setEnabled(not self._jobs.status.busy)

    def run(self) -> None:
        """Train, or go on with an unfinished run."""
        if self._resumes():
            assert self.out.path is not None
            self._controller.resume(self.out.path)
            return
        try:
            config = self._form.config(self.out.path)
        except ValueError as error:
            self._controller.session.report_error(str(error))
            return
        self._controller.start(config)

    def as_command(self) -> Command:
        """Give what the button would do, for the command line."""
        if self._resumes():
            assert self.out.path is not None
            if self._kind.resume is not None:
                return self._kind.resume(self.out.path)
            return resume_command(self._kind.verb, self.out.path)
        return self._kind.command(self._form.config(self.out.path))

    def _resumes(self) -> bool:
        return self._state is not None and self._state.kind == "unfinished"

    def _reason(self) -> str:
        if self._jobs.status.busy:
            return "another job is running"
        if self.out.path is None:
            return "no run folder is chosen"
        if self._state is None:
            return "the run folder is being looked at"
        if self._resumes():
            return ""
        if self._state.kind in _REASONS:
            return _REASONS[self._state.kind]
        return self._form.missing()

    def _looked(self, state: RunState) -> None:
        self._state = state
        self._recall()
        self.refresh()

    def _show(self) -> None:
        if self.out.path is not None:
            self._controller.show_run(self.out.path)

    def _propose_first(self) -> None:
        if self.out.path is None and self._form.beside() is not None:
            self.propose()

    def _recall(self) -> None:
        self._controller.session.disk.submit(
            f"{self._kind.verb} runs {id(self)}",
            lambda: recent(self._kind.recent),
            while_alive(self._offer),
            self._controller.session.report_error,
        )

    def _offer(self, runs: tuple[Path, ...]) -> None:
        self._menu.clear()
        for path in runs:
            text = f"{path.name}, in {path.parent}".replace("&", "&&")
            self._menu.addAction(text, lambda path=path: self.out.put(path))
        set_enabled_with_reason(
            self.recent,
            "Runs of before, finished or to be gone on with",
            "" if runs else "there are none yet",
        )


class TaskForm(Protocol):
    """What a form of a training offers."""

    changed: Any

    def config(self, out: Path | None = None) -> Any:
        """Give what the form says, with the run's folder."""

    def beside(self) -> Path | None:
        """Give a path beside which runs go."""

    def missing(self) -> str:
        """Say what is still to be chosen; empty where nothing is."""


@dataclass(frozen=True)
class TrainingTaskSpec:
    """What is trained.

    Attributes
    ----------
    verb : str
        Of the command line.
    button, tip : str
        What starts it, and what that does.
    folder, holds : str
        What a run's folder is called, and what goes into it.
    recent : str
        Under which its runs are remembered.
    state_of : callable
        Tells what a folder is.
    command : callable
        Gives a configuration as a command.
    resume : callable or None
        Gives the command that goes on with a run; None for the verb's ``--resume``.
    """

    verb: str
    button: str
    tip: str
    folder: str
    holds: str
    recent: str
    state_of: Callable[[Path], RunState]
    command: Callable[[Any], Command]
    resume: Callable[[Path], Command] | None = None
