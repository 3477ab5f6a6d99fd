"""Show the curves of a slide classifier in training, with one line per fold."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QVBoxLayout, QWidget

from napari_mcm.viewer.mil.controller import MilController
from napari_mcm.viewer.qt.helpers import connect_deferred, narrow, note
from napari_mcm.viewer.training.chart import Chart, Lines, describe, lines_of
from napari_mcm.viewer.training.metrics import Curves

NAMES = {"validation_loss": "Validation loss", "loss": "Training loss"}
_WAIT_MS = 100


class CurvesPanel(QWidget):
    """Draw one metric of all folds, with the last values as text.

    Parameters
    ----------
    controller : MilController
        Has the curves.
    """

    def __init__(self, controller: MilController) -> None:
        super().__init__()
        self._controller = controller
        self.choice = narrow(QComboBox())
        self.choice.setAccessibleName("Curves")
        self.choice.setToolTip("Metric that is shown for each epoch")
        self.choice.activated.connect(lambda _: self.refresh())
        self.chart = Chart()
        self.text = note()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.choice, self.chart, self.text):
            column.addWidget(part)
        # Small cohorts take a hundred epochs per second.
        connect_deferred(self.refresh, controller.series_changed, wait_ms=_WAIT_MS)
        self.refresh()

    def refresh(self) -> None:
        """Show the curves as they are now."""
        curves = self._controller.curves
        self.setVisible(bool(curves))
        self._offer([n for n in NAMES if any(n in s for s in curves.values())])
        name = self.choice.currentData()
        lines = fold_lines(curves, name) if name else {}
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


def fold_lines(curves: Curves, name: str) -> Lines:
    """Return the lines of a metric, labelled by fold.

    Parameters
    ----------
    curves : Curves
        Metrics by fold and seed.
    name : str
        Name of the metric.

    Returns
    -------
    Lines
        A label has the fold's number from 1, and the seed if there are several.
    """
    several = len({seed for _, seed in curves}) > 1
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for (fold, seed), series in sorted(curves.items()):
        label = f"{fold + 1}, seed {seed}" if several else f"{fold + 1}"
        lines |= lines_of(series, {name: label})
    return lines
