"""The forms of a classifier of cells and of an ablation."""

from __future__ import annotations

from pathlib import Path

from psygnal import Signal
from qtpy.QtWidgets import QFormLayout, QVBoxLayout, QWidget

from napari_mcm.core.cells.config import ClassifyConfig
from napari_mcm.core.studies.ablation_config import AblationConfig
from napari_mcm.viewer.qt.collapsible_forms import AllOptions
from napari_mcm.viewer.qt.encoder_field import EncoderField
from napari_mcm.viewer.qt.helpers import connect, note
from napari_mcm.viewer.qt.option_form import Labels, make_config
from napari_mcm.viewer.qt.path_field import PathField
from napari_mcm.viewer.training.controller import TrainingController

SCRATCH = "scratch"

MAIN: Labels = (
    ("fit.learn", "Train"),
    ("fit.steps", "Steps"),
    ("fit.batch_size", "Batch size (images)"),
    ("fit.base_lr", "Base LR (batch 256)"),
    ("fit.balance", "Rare classes"),
    ("labels.validation", "Validation fraction"),
)

GROUPS = {
    "labels": "Labelled images",
    "model": "Transformer from scratch",
    "fit": "Optimiser",
    "augment": "Augmentation and scaling",
    "compute": "Device and precision",
    "": "Reading and saving",
}

_WORDS = {
    "fit.learn": {"full": "all weights", "probe": "linear probe"},
    "fit.balance": {
        "weights": "weighted in the loss",
        "sampling": "balanced sampling",
        "none": "not balanced",
    },
}

DATA = (
    "One folder per class, or per split (Train, TestA, …) and class; BCCD's frames with "
    "boxes; or a table (CSV) with path and label: enter its path"
)

_INIT = (
    "scratch: the ViT below; mae:RUN: a pre-training; scratch:ENCODER: the network of "
    "an encoder with random weights; or any encoder: offline:…, a timm model, a run"
)


class CellsForm(QWidget):
    """Choose training data, initial weights and options of a classifier.

    Parameters
    ----------
    pretraining : TrainingController
        Offers its runs as initial weights.

    Attributes
    ----------
    more : QWidget
        Collapsible forms of all other options, to be placed below.
    changed : Signal
        A choice has changed.
    """

    changed = Signal()

    def __init__(self, pretraining: TrainingController) -> None:
        super().__init__()
        self._pretraining = pretraining
        self.data = PathField("Folder of labelled images", DATA)
        self.init = EncoderField("Start", (SCRATCH,))
        self.init.setCurrentText(SCRATCH)
        self.init.setToolTip(_INIT)
        set_elsewhere = {"data", "out", "init"}
        self.options = AllOptions(ClassifyConfig, MAIN, GROUPS, set_elsewhere, _WORDS)
        self.more = self.options.more
        form = QFormLayout()
        form.addRow("Cells", self.data)
        form.addRow("Start fr&om", self.init)
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 8, 0, 0)
        column.addLayout(form)
        column.addWidget(self.options.main)
        connect(self.data.changed, self._edited)
        self.init.editTextChanged.connect(lambda _: self.changed.emit())
        for part in self.options.forms:
            connect(part.changed, self._edited)
        connect(pretraining.run_changed, self._offer)
        self._offer()

    def config(self, out: Path | None = None) -> ClassifyConfig:
        """Return the options of the form.

        Parameters
        ----------
        out : Path, optional
            Run folder.

        Raises
        ------
        ValueError
            With one line that names what is missing or wrong.
        """
        if missing := self.missing():
            raise ValueError(missing)
        values = self.options.values()
        values |= {"data": self.data.path, "out": out, "init": self.init.spec}
        return make_config(ClassifyConfig, values, self.options.labels)

    def beside(self) -> Path | None:
        """Return the path beside which runs are proposed: the training data."""
        return self.data.path

    def missing(self) -> str:
        """Name what is still to be chosen; empty where nothing is."""
        if self.data.path is None:
            return "No labelled images are chosen"
        return "" if self.init.spec else "No initial weights are chosen"

    def _offer(self) -> None:
        if (run := self._pretraining.run) is not None:
            self.init.offer(f"mae:{run.path}")

    def _edited(self) -> None:
        self.changed.emit()


ABLATION_MAIN: Labels = (
    ("arms", "&Arms"),
    ("percent", "Label frac&tions (%)"),
    ("seeds", "See&ds"),
    ("test_split", "Test split"),
    ("fit.steps", "&Steps each"),
    ("fit.batch_size", "Batch size (images)"),
)

_HOW = (
    "Separate arms and label fractions by ; — scratch; mae:RUN; "
    "offline:efficientnet_lite0. With a mae:RUN, scratch is the same network with random "
    "weights."
)


class AblationForm(QWidget):
    """Choose initial weights, training data and options of an ablation.

    Attributes
    ----------
    more : QWidget
        Collapsible forms of all other options, to be placed below.
    changed : Signal
        A choice has changed.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.data = PathField("Folder of labelled images", DATA)
        self.options = AllOptions(
            AblationConfig, ABLATION_MAIN, GROUPS, {"data", "out"}
        )
        self.more = self.options.more
        self.cells = note()
        form = QFormLayout()
        form.addRow("Cells", self.data)
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 8, 0, 0)
        column.addLayout(form)
        for part in (self.options.main, note(_HOW), self.cells):
            column.addWidget(part)
        connect(self.data.changed, self._edited)
        for part in self.options.forms:
            connect(part.changed, self._edited)
        self._edited()

    def config(self, out: Path | None = None) -> AblationConfig:
        """Return the options of the form.

        Parameters
        ----------
        out : Path, optional
            Folder of the ablation.

        Raises
        ------
        ValueError
            With one line that names what is missing or wrong.
        """
        if missing := self.missing():
            raise ValueError(missing)
        return self._make(out)

    def beside(self) -> Path | None:
        """Return the path beside which ablations are proposed: the training data."""
        return self.data.path

    def missing(self) -> str:
        """Name what is still to be chosen; empty where nothing is."""
        return "" if self.data.path is not None else "No labelled images are chosen"

    def _make(self, out: Path | None) -> AblationConfig:
        values = self.options.values() | {"data": self.data.path, "out": out}
        return make_config(AblationConfig, values, self.options.labels)

    def _edited(self) -> None:
        try:
            config = self._make(None)
        except ValueError as error:
            self.cells.setText(str(error))
        else:
            arms, parts = len(config.arms), len(config.percent)
            count = arms * parts * config.seeds
            self.cells.setText(
                f"{count:,} classifiers: {arms} × {parts} × {config.seeds} seeds."
            )
        self.changed.emit()
