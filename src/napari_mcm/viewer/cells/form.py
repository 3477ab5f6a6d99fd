"""The form of a classifier of cells: labelled images, its start, and all options."""

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
    ("fit.learn", "Learn"),
    ("fit.steps", "Steps"),
    ("fit.batch_size", "Images a step"),
    ("fit.base_lr", "Rate at 256 images"),
    ("fit.balance", "Rare classes"),
    ("labels.validation", "Validate on"),
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
    "fit.learn": {"full": "all weights", "probe": "a linear layer (probe)"},
    "fit.balance": {
        "weights": "weighted in the loss",
        "sampling": "drawn as often",
        "none": "as they are",
    },
}

DATA = (
    "A folder a class, a folder a split (Train, TestA, …) of folders a class, BCCD's "
    "frames with boxes, or a table (CSV) of path and label: type its path"
)

_INIT = (
    "scratch: the ViT below; mae:RUN: a pre-training; scratch:ENCODER: its network "
    "without its weights; or any encoder: offline:…, a timm model's name, a run"
)


class CellsForm(QWidget):
    """What a classifier learns from, and how.

    Parameters
    ----------
    pretraining : TrainingController
        Whose runs are offered to start from.

    Attributes
    ----------
    more : QWidget
        Folded forms of all other options, to be put below.
    changed : Signal
        Something is chosen otherwise.
    """

    changed = Signal()

    def __init__(self, pretraining: TrainingController) -> None:
        super().__init__()
        self._pretraining = pretraining
        self.data = PathField("Folder of labelled images", DATA)
        self.init = EncoderField("Start", (SCRATCH,))
        self.init.setCurrentText(SCRATCH)
        self.init.setToolTip(_INIT)
        cross_slide = {"data", "out", "init"}
        self.options = AllOptions(ClassifyConfig, MAIN, GROUPS, cross_slide, _WORDS)
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
        """Give what the form says.

        Parameters
        ----------
        out : Path, optional
            The run's folder.

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
        """Give a path beside which runs go: not into the folder that is read."""
        return self.data.path

    def missing(self) -> str:
        """Say what is still to be chosen; empty where nothing is."""
        if self.data.path is None:
            return "No labelled images are chosen"
        return "" if self.init.spec else "Nothing to start from is chosen"

    def _offer(self) -> None:
        if (run := self._pretraining.run) is not None:
            self.init.offer(f"mae:{run.path}")

    def _edited(self) -> None:
        self.changed.emit()


ABLATION_MAIN: Labels = (
    ("arms", "&Arms"),
    ("percent", "Par&ts (%)"),
    ("seeds", "See&ds"),
    ("test_split", "Test split"),
    ("fit.steps", "&Steps of each"),
    ("fit.batch_size", "Images a step"),
)

_HOW = (
    "Arms and parts are separated by ; — scratch; mae:RUN; offline:efficientnet_lite0. "
    "With a mae:RUN, scratch is the same network without its weights."
)


class AblationForm(QWidget):
    """What is compared on what.

    Attributes
    ----------
    more : QWidget
        Folded forms of all other options, to be put below.
    changed : Signal
        Something is chosen otherwise.
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
        """Give what the form says.

        Parameters
        ----------
        out : Path, optional
            The ablation's folder.

        Raises
        ------
        ValueError
            With one line that names what is missing or wrong.
        """
        if missing := self.missing():
            raise ValueError(missing)
        return self._make(out)

    def beside(self) -> Path | None:
        """Give a path beside which ablations go: not into the folder that is read."""
        return self.data.path

    def missing(self) -> str:
        """Say what is still to be chosen; empty where nothing is."""
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
