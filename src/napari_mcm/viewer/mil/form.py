"""The form of a slide classifier: cohort, features, model and folds."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from psygnal import Signal
from qtpy.QtWidgets import QFormLayout, QVBoxLayout, QWidget

from napari_mcm.core.mil.config import MilConfig, ModelName
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.mil.checks import CohortCheck, check_cohort
from napari_mcm.viewer.qt.collapsible_forms import CollapsibleForms
from napari_mcm.viewer.qt.helpers import connect, note, while_alive
from napari_mcm.viewer.qt.option_form import Labels, OptionForm, make_config
from napari_mcm.viewer.qt.path_field import PathField

MODELS: dict[ModelName, str] = {
    "abmil": "ABMIL (gated attention)",
    "clam_sb": "CLAM, one attention",
    "clam_mb": "CLAM, one per class",
    "transmil": "TransMIL",
    "dsmil": "DSMIL",
    "mean": "Mean of patches",
    "max": "Maximum of patches",
}

MAIN: Labels = (
    ("aggregator.model", "Mod&el"),
    ("split.folds", "Fol&ds"),
    ("seeds", "&Seeds"),
    ("neighbourhood.radius", "Conte&xt (patches)"),
)

MORE: Labels = (
    ("training.epochs", "Max. epochs"),
    ("training.min_epochs", "Min. epochs"),
    ("training.patience", "Patience (epochs)"),
    ("training.lr", "Learning rate"),
    ("training.max_patches", "Patches per slide"),
    ("training.patch_dropout", "Patch dropout"),
    ("training.batch_bags", "Batch size (slides)"),
    ("training.seed", "First seed"),
    ("split.split_seed", "Seed of the folds"),
    ("neighbourhood.weights", "Weights of context"),
    ("figures.resamples", "Bootstrap samples"),
    ("compute.device", "Device"),
    ("compute.precision", "Precision"),
    ("training.balanced", "Balance classes"),
    ("bags.allow_missing", "Skip slides without features"),
)


class MilForm(QWidget):
    """Choose the cohort, its features, and the classifier to train.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    changed : Signal
        A path or an option has changed.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.cohort = PathField(
            "Table of slides",
            "CSV with slide and label; optional: patient, and split or fold",
            "Tables (*.csv);;All files (*)",
        )
        self.features = PathField(
            "Folder of features", "One feature file per slide, all from one encoder"
        )
        self.cohort_note = note()
        self.main, self.more = make_form(MAIN), make_form(MORE)
        self.more.put("compute.device", preferences().compute.device)
        self._lay_out()
        self._problem, self._checked = "", self._limits()
        for field in (self.cohort, self.features):
            connect(field.changed, self._check)
            connect(field.changed, self._edited)
        for part in (self.main, self.more):
            connect(part.changed, self._option_edited)
        connect(session.jobs.status.events.state, self._check)

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("C&ohort", self.cohort)
        form.addRow("", self.cohort_note)
        form.addRow("Fe&atures", self.features)
        self.cohort_note.setVisible(False)
        more = CollapsibleForms("More options", self.more)
        more.setToolTip("Epochs, learning rate, seeds; the command line has all")
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 8, 0, 0)
        column.addLayout(form)
        column.addWidget(self.main)
        column.addWidget(more)

    def config(self, out: Path | None = None) -> MilConfig:
        """Return the options of the form.

        Parameters
        ----------
        out : Path, optional
            Run folder.

        Raises
        ------
        ValueError
            With one line that names the first option that is wrong.
        """
        values = {
            "cohort": self.cohort.path,
            "features": self.features.path,
            "out": out,
            **self.main.values(),
            **self.more.values(),
        }
        return make_config(MilConfig, values, (*MAIN, *MORE))

    def beside(self) -> Path | None:
        """Return the path beside which run folders are proposed: the cohort's."""
        path = self.cohort.path
        # Without its ending, the path is still being typed.
        return path if path is not None and path.suffix else None

    def missing(self) -> str:
        """Name what is still to be chosen; empty where nothing is."""
        if self.cohort.path is None:
            return "No table of slides is chosen"
        if self.features.path is None:
            return "No folder of features chosen"
        return self._problem

    def _edited(self) -> None:
        self.changed.emit()

    def _option_edited(self) -> None:
        if self._checked != self._limits():
            self._check()
        self.changed.emit()

    def _limits(self) -> tuple[int, bool]:
        """Return the options that decide whether a cohort can be trained on."""
        folds: int = self.main.values()["split.folds"]
        return folds, bool(self.more.values()["bags.allow_missing"])

    def _check(self) -> None:
        """Check in the background what the chosen files hold."""
        table, disk = self.cohort.path, self._session.disk
        if table is None:
            disk.drop("mil cohort")
            self._show(CohortCheck(""))
            return
        self._checked = folds, allow = self._limits()
        disk.submit(
            "mil cohort",
            partial(check_cohort, table, self.features.path, folds, allow),
            while_alive(self._show),
            # A table that cannot be read is a problem itself.
            while_alive(self._show_error),
        )

    def _show_error(self, problem: str) -> None:
        self._show(CohortCheck("", problem))

    def _show(self, check: CohortCheck) -> None:
        text = check.text.strip()
        self.cohort_note.setText(text)
        self.cohort_note.setVisible(bool(text))
        if check.problem != self._problem:
            self._problem = check.problem
            self.changed.emit()


def make_form(options: Labels) -> OptionForm:
    """Make a form of some options; all others keep their defaults."""
    return OptionForm(MilConfig, options, {"aggregator.model": MODELS})
