"""Curves of a training of slide classifiers: a line for each fold."""

from __future__ import annotations

import math

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QComboBox, QVBoxLayout, QWidget

from napari_mcm.viewer.mil.controller import MilController
from napari_mcm.viewer.mil.run import Curves
from napari_mcm.viewer.qt.helpers import connect, narrow, note
from napari_mcm.viewer.training.chart import Chart, Lines, describe

NAMES = {
    "validation_auroc": "Validation AUROC",
    "validation_loss": "Validation loss",
    "loss": "Training loss",
}
_WAIT_MS = 100


class CurvesPanel(QWidget):
    """The chart, what it shows, and the last values as text.

    Parameters
    ----------
    controller : MilController
        Whose curves.
    """

    def __init__(self, controller: MilController) -> None:
        super().__init__()
        self._controller = controller
        self.choice = narrow(QComboBox())
        self.choice.setAccessibleName("Curves")
        self.choice.setToolTip("What the lines show, over the epochs")
        self.choice.activated.connect(lambda _: self.refresh())
        self.chart = Chart()
        self.text = note()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.choice, self.chart, self.text):
            column.addWidget(part)
        # Small cohorts go through a hundred epochs a second.
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(_WAIT_MS)
        self._soon.timeout.connect(self.refresh)
        connect(controller.curves_changed, self._changed)
        self.refresh()

    def _changed(self) -> None:
        if not self._soon.isActive():
            self._soon.start()

    def refresh(self) -> None:
        """Show the curves as they are now."""
        curves = self._controller.curves
        self.setVisible(bool(curves))
        self._offer([n for n in NAMES if any(n in s for s in curves.values())])
        name = self.choice.currentData()
        lines = lines_of(curves, name) if name else {}
        self.chart.show_lines(lines)
        text = describe(lines, "fold")
        self.text.setText(text)
        for part in (self.chart, self.chart.parentWidget()):
            if part is not None:
                part.setAccessibleDescription(text)
        self.chart.setToolTip(f"{self.choice.currentText()} of each fold, by epoch")

    def _offer(self, names: list[str]) -> None:
        if names == [self.choice.itemData(i) for i in range(self.choice.count())]:
            return
        self.choice.clear()
        for name in names:
            self.choice.addItem(NAMES[name], name)


def lines_of(curves: Curves, name: str) -> Lines:
    """Give the lines of a figure: a fold's number, with the seed if there are several."""
    several = len({seed for _, seed in curves}) > 1
    found = {}
    for (fold, seed), series in sorted(curves.items()):
        values, steps = series.get(name, []), series.get("step", [])
        kept = [
            (step + 1, value)
            for step, value in zip(steps, values, strict=False)
            if math.isfinite(value) and math.isfinite(step)
        ]
        if kept:
            epochs, shown = zip(*kept, strict=True)
            found[f"{fold + 1}, seed {seed}" if several else f"{fold + 1}"] = (
                epochs,
                shown,
            )
    return found
