"""The form of an ablation: labelled images, arms, parts, seeds, and all options."""

from __future__ import annotations

from pathlib import Path

from psygnal import Signal
from qtpy.QtWidgets import QFormLayout, QVBoxLayout, QWidget

from napari_mcm.core.studies.ablation_config import AblationConfig
from napari_mcm.viewer.widgets.cells_form import DATA, GROUPS
from napari_mcm.viewer.widgets.folded_forms import AllOptions
from napari_mcm.viewer.widgets.option_form import Labels, make_config
from napari_mcm.viewer.widgets.parts import follow, note
from napari_mcm.viewer.widgets.path_field import PathField

MAIN: Labels = (
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
        self.options = AllOptions(AblationConfig, MAIN, GROUPS, {"data", "out"})
        self.more = self.options.more
        self.cells = note()
        form = QFormLayout()
        form.addRow("Cells", self.data)
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 8, 0, 0)
        column.addLayout(form)
        for part in (self.options.main, note(_HOW), self.cells):
            column.addWidget(part)
        follow(self.data.changed, self._edited)
        for part in self.options.forms:
            follow(part.changed, self._edited)
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
