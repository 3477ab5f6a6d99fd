"""The form of a slide classifier: cohort, features, model and folds."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from psygnal import Signal
from qtpy.QtWidgets import QFormLayout, QVBoxLayout, QWidget

from napari_mcm.core.mil.cohort import read_cohort
from napari_mcm.core.mil.config import MilConfig, ModelName
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.app.settings import preferences
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
        connect(self.cohort.changed, self._cohort_changed)
        connect(self.features.changed, self._edited)

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
        return "" if self.features.path is not None else "No folder of features chosen"

    def _edited(self) -> None:
        self.changed.emit()

    def _cohort_changed(self) -> None:
        path, disk = self.cohort.path, self._session.disk
        self._say("")
        if path is None:
            disk.drop("mil cohort")
        else:
            say = while_alive(self._say)
            disk.submit("mil cohort", partial(describe, path), say, say)
        self.changed.emit()

    def _say(self, text: str) -> None:
        self.cohort_note.setText(text)
        self.cohort_note.setVisible(bool(text))


def describe(table: Path) -> str:
    """Summarize a table of slides: ``60 slides of 58 patients: 30 a, 30 b``.

    Raises
    ------
    ConfigError
        If the table is not usable.
    """
    cohort = read_cohort(table)
    labels = [case.label for case in cohort.cases]
    parts = ", ".join(f"{labels.count(name)} {name}" for name in cohort.classes)
    patients = len({case.patient for case in cohort.cases})
    whose = f" of {patients:,} patients" if cohort.has_patients else ""
    return f"{len(labels):,} slides{whose}: {parts}."


def make_form(options: Labels) -> OptionForm:
    """Make a form of some options; all others keep their defaults."""
    return OptionForm(MilConfig, options, {"aggregator.model": MODELS})
