"""Curves of a training as it goes, and its last figures as text."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_mcm.viewer.qt.helpers import connect, note
from napari_mcm.viewer.training.chart import Chart, lines_of
from napari_mcm.viewer.training.controller import TrainingController
from napari_mcm.viewer.training.metrics import Series

_WAIT_MS = 200
_HEIGHT = 112


class TrainingCurvesPanel(QWidget):
    """Charts of a training, with a line of text.

    Parameters
    ----------
    controller : TrainingController
        Whose training.
    charts : mapping
        Titles to figures by name, and how their lines are called.
    figures : mapping
        Figures that are told as text, to how they are written.
    """

    def __init__(
        self,
        controller: TrainingController,
        charts: Mapping[str, Mapping[str, str]],
        figures: Mapping[str, str],
    ) -> None:
        super().__init__()
        self._controller, self._shown, self._figures = controller, charts, figures
        self.about, self.text = note(), note()
        self.titles = {title: QLabel(title) for title in charts}
        self.charts = {title: Chart("step", _HEIGHT) for title in charts}
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 0, 0, 0)
        column.addWidget(self.about)
        column.addWidget(self.text)
        for title, chart in self.charts.items():
            column.addWidget(self.titles[title])
            column.addWidget(chart)
        # Small models take many steps a second.
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(_WAIT_MS)
        self._soon.timeout.connect(self.refresh)
        connect(controller.series_changed, self._changed)
        connect(controller.run_changed, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the training as it is now."""
        run, series = self._controller.run, self._controller.series
        for title, names in self._shown.items():
            lines = lines_of(series, names)
            chart = self.charts[title]
            chart.setVisible(bool(lines))
            self.titles[title].setVisible(bool(lines))
            chart.show_lines(lines)
            last = ", ".join(
                f"{k} {values[-1]:.4g}" for k, (_, values) in lines.items()
            )
            chart.setToolTip(f"{title}: {last}")
            chart.setAccessibleName(f"{title}: {last}")
        self.text.setText(describe(series, self._figures))
        self.text.setVisible(bool(series))
        about = "Curves appear here once a training runs."
        if run is not None:
            about = f"{run.path.name}: {run.describe()}."
        elif series:
            about = "Not finished yet: Cancel keeps it, Resume goes on."
        self.about.setText(about)
        self.about.setToolTip(str(self._controller.folder or ""))

    def _changed(self) -> None:
        if not self._soon.isActive():
            self._soon.start()


def describe(series: Series, figures: Mapping[str, str]) -> str:
    """Say where the training stands: ``Step 40 · loss 0.412 · …``."""
    steps = series.get("step", [])
    if not steps:
        return ""
    parts = [f"Step {round(steps[-1]) + 1:,}"]
    for name, text in figures.items():
        values = series.get(name, [])
        if values and np.isfinite(values[-1]):
            parts.append(text.format(values[-1]))
    return " · ".join(parts)
