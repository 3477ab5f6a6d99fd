"""The tab *Train*: choose a cohort and a model, train in the background, watch."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from qtpy.QtWidgets import QFormLayout, QPushButton, QVBoxLayout, QWidget

from napari_mcm.core.mil.cohort import read_cohort
from napari_mcm.core.mil.config import MilConfig, ModelName
from napari_mcm.core.runtime.command import Command
from napari_mcm.viewer.app.commands import mil_command, resume_command
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.mil.controller import MilController
from napari_mcm.viewer.mil.run import state_of
from napari_mcm.viewer.qt.collapsible_forms import CollapsibleForms
from napari_mcm.viewer.qt.command_panel import CommandPanel
from napari_mcm.viewer.qt.helpers import (
    connect,
    note,
    set_enabled_with_reason,
    while_alive,
)
from napari_mcm.viewer.qt.option_form import Labels, OptionForm, make_config
from napari_mcm.viewer.qt.path_field import PathField
from napari_mcm.viewer.training.run_folder import RunState

_TRAIN = "Train and test on each fold, in the background"

CONTINUE = "Co&ntinue"

_RESUME_TIP = "Go on where it was broken off; its options stay as they are"

_REASONS = {
    "other": "the run folder holds something else",
    "finished": "the run folder holds a finished run",
}


class TrainPanel(QWidget):
    """What is trained on what, and the button that starts it.

    Parameters
    ----------
    controller : MilController
        Which runs it.
    """

    def __init__(self, controller: MilController) -> None:
        super().__init__()
        self._controller, self._jobs = controller, controller.session.jobs
        self._state: RunState | None = None
        self.cohort = PathField(
            "Table of slides",
            "CSV: slide, label, and where there are any patient, and split or fold",
            "Tables (*.csv);;All files (*)",
        )
        self.features = PathField(
            "Folder of features", "A feature file a slide, all of one encoder"
        )
        self.out = PathField("Run folder", "Where models, figures and plots go")
        self.main, self.more = make_form(MAIN), make_form(MORE)
        self.more.put("compute.device", preferences().compute.device)
        self.cohort_note, self.state_note = note(), note()
        self.train = QPushButton("&Train")
        self.train.clicked.connect(self.start)
        self.show_run = QPushButton("Show &it")
        self.show_run.setToolTip("Show the results of the finished run")
        self.show_run.clicked.connect(self._show)
        self.command = CommandPanel(self.as_command, controller.session.report_error)
        self._lay_out()
        connect(self.cohort.changed, self._cohort_changed)
        connect(self.features.changed, self.refresh)
        connect(self.out.changed, self.look)
        connect(self._jobs.status.events.state, self.look)
        self.refresh()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("Coho&rt", self.cohort)
        form.addRow("", self.cohort_note)
        form.addRow("Feat&ures", self.features)
        self.cohort_note.setVisible(False)
        folded = CollapsibleForms("More options", self.more)
        folded.setToolTip("Epochs, learning rate, seeds; the command line has all")
        below = QFormLayout()
        below.addRow("Run folder", self.out)
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 8, 0, 0)
        column.addLayout(form)
        column.addWidget(self.main)
        column.addWidget(folded)
        column.addLayout(below)
        column.addWidget(self.state_note)
        column.addWidget(self.show_run)
        column.addWidget(self.train)
        column.addWidget(self.command)

    def refresh(self) -> None:
        """Show which buttons can be used."""
        state = self._state
        resume = state is not None and state.kind == "unfinished"
        self.train.setText(CONTINUE if resume else "&Train")
        set_enabled_with_reason(
            self.train, _RESUME_TIP if resume else _TRAIN, self._reason()
        )
        self.state_note.setText(state.text if state else "")
        self.state_note.setVisible(bool(self.state_note.text()))
        self.show_run.setVisible(state is not None and state.kind == "finished")

    def look(self) -> None:
        """Look again, in the background, at what the run folder holds."""
        folder, self._state = self.out.path, None
        disk = self._controller.session.disk
        if folder is None:
            disk.drop("mil state")
        else:
            disk.submit(
                "mil state",
                lambda: state_of(folder),
                while_alive(self._looked),
                self._controller.session.report_error,
            )
        self.refresh()

    def start(self) -> None:
        """Train, or go on with an unfinished run."""
        if self._state is not None and self._state.kind == "unfinished":
            assert self.out.path is not None
            self._controller.resume(self.out.path)
            return
        try:
            config = self.config()
        except ValueError as error:
            self._controller.session.report_error(str(error))
            return
        chosen = self._places()
        self._controller.remember({name: f.line.text() for name, f in chosen.items()})
        self._controller.train(config)

    def config(self) -> MilConfig:
        """Give what the form says.

        Raises
        ------
        ValueError
            With one line that names the first option that is wrong.
        """
        values = {
            **{name: field.path for name, field in self._places().items()},
            **self.main.values(),
            **self.more.values(),
        }
        return make_config(MilConfig, values, (*MAIN, *MORE))

    def as_command(self) -> Command:
        """Give what the button would do, for the command line."""
        if self._state is not None and self._state.kind == "unfinished":
            assert self.out.path is not None
            return resume_command("mil train", self.out.path)
        return mil_command(self.config())

    def _places(self) -> dict[str, PathField]:
        return {"cohort": self.cohort, "features": self.features, "out": self.out}

    def _reason(self) -> str:
        if self._jobs.status.busy:
            return "another job is running"
        if self.out.path is None:
            return "no run folder is chosen"
        if self._state is None:
            return "the run folder is being looked at"
        if self._state.kind == "unfinished":
            return ""
        if self.cohort.path is None:
            return "no table of slides is chosen"
        if self.features.path is None:
            return "no folder of features is chosen"
        return _REASONS.get(self._state.kind, "")

    def _looked(self, state: RunState) -> None:
        self._state = state
        self.refresh()

    def _show(self) -> None:
        if self.out.path is not None:
            self._controller.show_run(self.out.path)

    def _cohort_changed(self) -> None:
        path, disk = self.cohort.path, self._controller.session.disk
        self._say("")
        if path is None:
            disk.drop("mil cohort")
        else:
            say = while_alive(self._say)
            disk.submit("mil cohort", partial(describe, path), say, say)
            if path.suffix.lower() == ".csv":
                self.out.propose(path.parent / "mil-run")
        self.refresh()

    def _say(self, text: str) -> None:
        self.cohort_note.setText(text)
        self.cohort_note.setVisible(bool(text))


def describe(table: Path) -> str:
    """Say what a table of slides holds: ``60 slides of 58 patients: 30 a, 30 b``.

    Raises
    ------
    ConfigError
        If it cannot be used.
    """
    cohort = read_cohort(table)
    labels = [case.label for case in cohort.cases]
    parts = ", ".join(f"{labels.count(name)} {name}" for name in cohort.classes)
    patients = len({case.patient for case in cohort.cases})
    whose = f" of {patients:,} patients" if cohort.has_patients else ""
    return f"{len(labels):,} slides{whose}: {parts}."


MODELS: dict[ModelName, str] = {
    "abmil": "ABMIL (gated attention)",
    "clam_sb": "CLAM, one attention",
    "clam_mb": "CLAM, one a class",
    "transmil": "TransMIL",
    "dsmil": "DSMIL",
    "mean": "Mean of patches",
    "max": "Maximum of patches",
}

MAIN: Labels = (
    ("aggregator.model", "Mo&del"),
    ("split.folds", "F&olds"),
    ("seeds", "&Seeds"),
)

MORE: Labels = (
    ("training.epochs", "Epochs at most"),
    ("training.min_epochs", "Epochs at least"),
    ("training.patience", "Patience (epochs)"),
    ("training.lr", "Learning rate"),
    ("training.max_patches", "Patches of a slide"),
    ("training.patch_dropout", "Patch dropout"),
    ("training.batch_bags", "Slides a step"),
    ("training.seed", "First seed"),
    ("split.split_seed", "Seed of folds"),
    ("figures.resamples", "Bootstrap samples"),
    ("compute.device", "Device"),
    ("compute.precision", "Precision"),
    ("training.balanced", "Draw classes equally often"),
    ("bags.allow_missing", "Leave out slides without features"),
)


def make_form(options: Labels) -> OptionForm:
    """Make a form of some options; all others keep their defaults."""
    return OptionForm(MilConfig, options, {"aggregator.model": MODELS})
