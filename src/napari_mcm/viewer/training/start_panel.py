"""Choose the folder of a run, and start or resume its training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QMenu, QPushButton, QWidget

from napari_mcm.core.runtime.command import Command
from napari_mcm.viewer.app.commands import resume_command
from napari_mcm.viewer.app.estimates import Areas
from napari_mcm.viewer.app.persistence import recent, writable_base
from napari_mcm.viewer.app.rates import Work
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.qt.command_panel import CommandPanel
from napari_mcm.viewer.qt.estimate_line import EstimateLine
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
ANYWAY = "Start anyway"
"""Text of the start button where a run would take days."""

_RESUME_TIP = "Resume where the run stopped; its options stay as they are"

_RECENT_TIP = "Recent runs, finished or interrupted"

_REASONS = {
    "other": "the run folder holds something else",
    "finished": "the run folder holds a finished run",
}


class StartPanel(QWidget):
    """Choose a run folder, and start or resume its training.

    Parameters
    ----------
    controller : TrainingController
        Starts and resumes trainings.
    form : TaskForm
        Form with the options of a new training.
    kind : TrainingTaskSpec
        Texts and functions of this kind of training.
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
            "Propose the next free run folder, beside the training data"
        )
        self.fresh.clicked.connect(self.propose)
        self.recent = QPushButton("&Recent runs")
        self.recent.setToolTip(_RECENT_TIP)
        self._menu = QMenu(self.recent)
        self.recent.setMenu(self._menu)
        self.state_note = note()
        self.start = QPushButton(kind.button)
        self.start.clicked.connect(self.run)
        self.estimate = EstimateLine(controller.session, kind.advice)
        self.show_run = QPushButton("Show results")
        # Each letter of its text is taken, by napari's menus or beside it.
        self.show_run.setShortcut("Alt+I")
        self.show_run.setToolTip("Show the curves and results of this run (Alt+I)")
        self.show_run.clicked.connect(self._show)
        self.command = CommandPanel(self.as_command, controller.session.report_error)
        self._lay_out()
        connect(self.out.changed, self.check_folder)
        connect(form.changed, self.refresh)
        connect(form.changed, self._propose_first)
        connect(self._jobs.status.events.state, self.check_folder)
        connect(self._jobs.status.events.state, self.estimate.again)
        connect(self.estimate.changed, self._name_button)
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
        form.addRow(self.state_note)
        form.addRow(self.show_run)
        form.addRow(self.estimate)
        form.addRow(self.start)
        form.addRow(self.command)

    def propose(self) -> None:
        """Propose the next free run folder, beside the training data."""
        beside = self._form.beside()
        if beside is None:
            missing = self._form.missing() or "Choose a run folder"
            self._controller.session.report_error(missing)
            return
        base = (preferences().output_folder or writable_base(beside)) / "runs"
        number, name = 1, self._kind.folder
        while (base / f"{name}-{number}").exists():
            number += 1
        self.out.put(base / f"{name}-{number}")

    def check_folder(self) -> None:
        """Check, in the background, what the run folder holds."""
        folder, self._state = self.out.path, None
        disk, key = self._controller.session.disk, f"{self._kind.verb} state {id(self)}"
        if folder is None:
            disk.drop(key)
        else:
            disk.submit(
                key,
                lambda: self._kind.state_of(folder),
                while_alive(self._checked),
                self._controller.session.report_error,
            )
        self.refresh()

    def refresh(self) -> None:
        """Update the buttons and the note on the run folder."""
        state = self._state
        kind = state.kind if state is not None else ""
        resume = kind == "unfinished"
        self._estimate()
        self._name_button()
        set_enabled_with_reason(
            self.start, _RESUME_TIP if resume else self._kind.tip, self._reason()
        )
        self.state_note.setText(state.text if state else "")
        self.state_note.setVisible(bool(self.state_note.text()))
        self.show_run.setVisible(kind in ("finished", "unfinished"))
        self.show_run.setEnabled(not self._jobs.status.busy)

    def _estimate(self) -> None:
        """Ask how long a new run would take, once the form is complete."""
        config = None
        if not self._resumes() and not self._form.missing():
            with suppress(ValueError):
                config = self._form.config()
        self.estimate.ask(config, self._kind.work)

    def _name_button(self) -> None:
        if self._resumes():
            self.start.setText(RESUME)
        else:
            long = self.estimate.is_long
            self.start.setText(ANYWAY if long else self._kind.button)

    def run(self) -> None:
        """Start a new run, or resume an unfinished one."""
        if self._resumes():
            assert self.out.path is not None
            self._controller.resume(self.out.path)
            return
        try:
            config = self._form.config(self.out.path)
        except ValueError as error:
            self._controller.session.report_error(str(error))
            return
        # The estimate is of the same options, whatever the folder of the run.
        with suppress(ValueError):
            self._controller.timing = self.estimate.timing(self._form.config())
        self._controller.start(config)

    def as_command(self) -> Command:
        """Return the command that does what the button would do."""
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
            return "the run folder is being checked"
        if self._resumes():
            return ""
        if self._state.kind in _REASONS:
            return _REASONS[self._state.kind]
        return self._form.missing()

    def _checked(self, state: RunState) -> None:
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
            _RECENT_TIP,
            "" if runs else "there are none yet",
        )


class TaskForm(Protocol):
    """Describe the form that a start panel takes options from."""

    changed: Any

    def config(self, out: Path | None = None) -> Any:
        """Return the options of the form, with the run's folder."""

    def beside(self) -> Path | None:
        """Return the path beside which run folders are proposed."""

    def missing(self) -> str:
        """Name what is still to be chosen; empty where nothing is."""


@dataclass(frozen=True)
class TrainingTaskSpec:
    """Describe one kind of training to a start panel.

    Attributes
    ----------
    verb : str
        Verb of the command line.
    button, tip : str
        Text of the start button, and its tool tip.
    folder, holds : str
        Name of a run folder, and what is written into it.
    recent : str
        Key under which its run folders are remembered.
    state_of : callable
        Returns the state of a folder.
    command : callable
        Returns the command of a configuration.
    resume : callable or None
        Returns the command that resumes a run; None for the verb's ``--resume``.
    work : callable or None
        Describes a run of a configuration, for an estimate; None where it has none.
    advice : str
        What to change where a run would take days.
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
    work: Callable[[Any, Areas], Work] | None = None
    advice: str = "choose a smaller task"
