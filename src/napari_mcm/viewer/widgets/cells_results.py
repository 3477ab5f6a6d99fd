"""What a trained classifier scores: figures, and its confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_mcm.viewer.mae_desk import ClassifierDesk
from napari_mcm.viewer.widgets.parts import follow, note
from napari_mcm.viewer.widgets.run_pictures import RunPictures

_FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "macro F1",
    "ece": "ECE",
}


class CellsResults(QWidget):
    """Scores on the validation images, beside what a majority vote would reach.

    Parameters
    ----------
    desk : ClassifierDesk
        Whose run.
    """

    def __init__(self, desk: ClassifierDesk) -> None:
        super().__init__()
        self._desk = desk
        self.text = note()
        self.confusion = RunPictures(desk.session, "confusion")
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 0, 0, 0)
        column.addWidget(self.text)
        column.addWidget(self.confusion)
        follow(desk.run_changed, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the present run."""
        run = self._desk.run
        self.text.setText(describe(run.scores) if run is not None else "")
        self.text.setVisible(run is not None)
        pictures = {}
        if run is not None and run.scores:
            pictures = {"Confusion matrix": run.confusion}
        self.confusion.show_pictures(pictures)


def describe(scores: Mapping[str, Any]) -> str:
    """Say what a classifier scores: ``Validation: accuracy 0.900 (majority 0.400)``."""
    if not scores:
        return "Nothing was kept to validate on."
    values, vote = scores.get("scores", {}), scores.get("majority", {})
    parts = []
    for name, title in _FIGURES.items():
        if name in values:
            beside = f" (majority {vote[name]:.3f})" if name in vote else ""
            parts.append(f"{title} {values[name]:.3f}{beside}")
    text = f"Validation: {', '.join(parts)}."
    few = ", ".join(scores.get("unreliable", []))
    return text + (f" Under 10 images, so it says nothing: {few}." if few else "")
