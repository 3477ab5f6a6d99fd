"""Show the curves of a training, and its last metrics as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_mcm.viewer.qt.helpers import connect, connect_deferred, note
from napari_mcm.viewer.training.chart import Chart, lines_of
from napari_mcm.viewer.training.controller import TrainingController
from napari_mcm.viewer.training.metrics import Series

_WAIT_MS = 200
_HEIGHT = 112


class TrainingCurvesPanel(QWidget):
    """Show the curves of a training as charts, with a line of text.

    Parameters
    ----------
    controller : TrainingController
        Has the metrics of the training.
    charts : mapping
        Titles of charts to metrics by name, and the labels of their lines.
    figures : mapping
        Metrics that are shown as text, and their formats.
    actions : sequence of QWidget
        What can be done with the run; placed above the curves.
    """

    def __init__(
        self,
        controller: TrainingController,
        charts: Mapping[str, Mapping[str, str]],
        figures: Mapping[str, str],
        actions: Sequence[QWidget] = (),
    ) -> None:
        super().__init__()
        self._controller, self._shown, self._figures = controller, charts, figures
        self.about, self.text = note(), note()
        self.titles = {title: QLabel(title) for title in charts}
        self.charts = {title: Chart("step", _HEIGHT) for title in charts}
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 0, 0, 0)
        for part in (self.about, *actions, self.text):
            column.addWidget(part)
        for title, chart in self.charts.items():
            column.addWidget(self.titles[title])
            column.addWidget(chart)
        # Small models take many steps per second.
        connect_deferred(self.refresh, controller.series_changed, wait_ms=_WAIT_MS)
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
        about = "Curves appear here when a training runs."
        if run is not None:
            about = f"{run.path.name}: {run.describe()}."
        elif series:
            about = "Not finished: Cancel keeps the run, Resume continues it."
        self.about.setText(about)
        self.about.setToolTip(str(self._controller.folder or ""))


def describe(series: Series, figures: Mapping[str, str]) -> str:
    """Return the last metrics as text: ``Step 40 · loss 0.412 · …``.

    Parameters
    ----------
    series : Series
        Metrics of each step.
    figures : mapping
        Metrics by name, and their formats.

    Returns
    -------
    str
        Empty before the first step.
    """
    steps = series.get("step", [])
    if not steps:
        return ""
    parts = [f"Step {round(steps[-1]) + 1:,}"]
    for name, text in figures.items():
        values = series.get(name, [])
        if values and np.isfinite(values[-1]):
            parts.append(text.format(values[-1]))
    return " · ".join(parts)
