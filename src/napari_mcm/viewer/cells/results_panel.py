"""Show the scores of classifiers and the tables of ablations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from psygnal import Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QTextBrowser, QVBoxLayout, QWidget

from napari_mcm.viewer.cells.training_controller import (
    AblationController,
    ClassifierController,
)
from napari_mcm.viewer.qt.helpers import connect, note, set_enabled_with_reason
from napari_mcm.viewer.qt.path_field import PathField
from napari_mcm.viewer.training.run_images import RunImages

_FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "macro F1",
    "ece": "ECE",
}


class CellsResultsPanel(QWidget):
    """Show scores on validation images, beside the majority-class baseline.

    Parameters
    ----------
    controller : ClassifierController
        Has the run.
    """

    def __init__(self, controller: ClassifierController) -> None:
        super().__init__()
        self._controller = controller
        self.text = note()
        self.confusion = RunImages(controller.session, "confusion")
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 0, 0, 0)
        column.addWidget(self.text)
        column.addWidget(self.confusion)
        connect(controller.run_changed, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the current run."""
        run = self._controller.run
        self.text.setText(describe(run.scores) if run is not None else "")
        self.text.setVisible(run is not None)
        pictures = {}
        if run is not None and run.scores:
            pictures = {"Confusion matrix": run.confusion}
        self.confusion.show_pictures(pictures)


def describe(scores: Mapping[str, Any]) -> str:
    """Return scores as text: ``Validation: accuracy 0.900 (majority 0.400)``."""
    if not scores:
        return "There are no validation images."
    values, vote = scores.get("scores", {}), scores.get("majority", {})
    parts = []
    for name, title in _FIGURES.items():
        if name in values:
            beside = f" (majority {vote[name]:.3f})" if name in vote else ""
            parts.append(f"{title} {values[name]:.3f}{beside}")
    text = f"Validation: {', '.join(parts)}."
    few = ", ".join(scores.get("unreliable", []))
    return text + (f" Unreliable, with fewer than 10 images: {few}." if few else "")


_HEIGHT = 260


class AblationResultsPanel(QWidget):
    """Show an ablation, finished or not.

    Parameters
    ----------
    controller : AblationController
        Has the ablation.

    Attributes
    ----------
    run_requested : Signal
        The ablation in a folder (Path) is to be read.
    """

    run_requested = Signal(Path)

    def __init__(self, controller: AblationController) -> None:
        super().__init__()
        self._controller = controller
        self.folder = PathField("Ablation", "Folder of an ablation")
        self.show_it = QPushButton("Sh&ow")
        self.show_it.clicked.connect(self.read)
        self.about = note()
        self.table = QTextBrowser()
        self.table.setAccessibleName("Table of the ablation")
        self.table.setToolTip("The file ablation.md; ablation.csv has each classifier")
        self.table.setLineWrapMode(QTextBrowser.LineWrapMode.NoWrap)
        self.table.setMinimumWidth(100)
        self.table.setFixedHeight(_HEIGHT)
        self.pictures = RunImages(controller.session, "ablation")
        row = QHBoxLayout()
        row.addWidget(self.folder, 1)
        row.addWidget(self.show_it)
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 0, 0, 0)
        column.addLayout(row)
        for part in (self.about, self.table, self.pictures):
            column.addWidget(part)
        connect(controller.run_changed, self.refresh)
        connect(self.folder.changed, self._allow)
        connect(self.folder.chosen, self.read)
        self._allow()
        self.refresh()

    def refresh(self) -> None:
        """Show the current ablation, finished or not."""
        run = self._controller.run
        for part in (self.about, self.table):
            part.setVisible(run is not None)
        self.pictures.show_pictures({} if run is None else run.figures)
        if run is not None:
            self.folder.put(run.path)
            self.about.setText(f"{run.path.name}: {run.describe()}.")
            # Without its heading, which is too large for a dock.
            self.table.setMarkdown(run.table.partition("\n\n")[2])

    def read(self) -> None:
        """Request the ablation in the chosen folder."""
        if self.folder.path is not None:
            self.run_requested.emit(self.folder.path)

    def _allow(self) -> None:
        reason = "" if self.folder.path is not None else "no folder is chosen"
        set_enabled_with_reason(self.show_it, "Show its table and figures", reason)
