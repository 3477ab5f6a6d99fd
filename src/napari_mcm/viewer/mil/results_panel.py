"""Show the figures, plots and predictions of a finished run."""

from __future__ import annotations

from functools import partial

from psygnal import Signal
from qtpy.QtGui import QImage
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.mil.run import MilRun
from napari_mcm.viewer.mil.tables import FiguresTable, PredictionTable, scored
from napari_mcm.viewer.qt.helpers import (
    connect,
    narrow,
    note,
    set_enabled_with_reason,
    while_alive,
)
from napari_mcm.viewer.qt.path_field import PathField
from napari_mcm.viewer.training.run_images import Picture, read_plot

_PLOTS = {
    "roc": "ROC",
    "precision_recall": "Precision and recall",
    "reliability": "Reliability",
    "confusion": "Confusion",
}
_OPEN = "Open the selected slide and draw its attention (also: double click)"


class MilResultsPanel(QWidget):
    """Show the results of a run, with its slides to open.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    run_requested : Signal
        A run folder (Path) is to be read.
    slide_requested : Signal
        A slide (its name) is to be opened with its attention.
    slides_changed : Signal
        Another folder of slides (Path or None) is chosen.
    """

    run_requested = Signal(object)
    slide_requested = Signal(str)
    slides_changed = Signal(object)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._run: MilRun | None = None
        self.run = PathField("Run folder", "Finished run of mil train")
        self.show_it = QPushButton("&Show")
        self.show_it.clicked.connect(self.read)
        self.about = note()
        self.figures = FiguresTable()
        self.plot = narrow(QComboBox())
        self.plot.setAccessibleName("Plot")
        self.plot.setToolTip("Plot to show; the run's folder plots has the files")
        self.plot.activated.connect(lambda _: self._read_plot())
        self.picture = Picture()
        self.filter = QLineEdit()
        self.filter.setPlaceholderText("Find a slide")
        self.filter.setAccessibleName("Find a slide")
        self.filter.setToolTip("Show only slides whose names contain this")
        self.table = PredictionTable()
        self.filter.textChanged.connect(self.table.order.setFilterFixedString)
        self.slides = PathField(
            "Folder of slides",
            "Folder of the cohort's slides, if its table has no paths",
        )
        self.open = QPushButton("Open with &attention")
        self.open.clicked.connect(self._open)
        self._lay_out()
        self._connect()
        self.refresh()

    def _lay_out(self) -> None:
        row = QHBoxLayout()
        row.addWidget(self.run, 1)
        row.addWidget(self.show_it)
        form = QFormLayout()
        form.addRow("Sli&des", self.slides)
        self.content = QWidget()
        inner = QVBoxLayout(self.content)
        inner.setContentsMargins(0, 0, 0, 0)
        for part in (self.about, self.figures, self.table):
            inner.addWidget(part)
        inner.insertWidget(2, self.filter)
        inner.addLayout(form)
        inner.addWidget(self.open)
        inner.addWidget(self.plot)
        inner.addWidget(self.picture)
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 8, 0, 0)
        column.addLayout(row)
        column.addWidget(self.content)

    def _connect(self) -> None:
        connect(self._session.jobs.status.events.state, self.refresh)
        connect(self.run.changed, self.refresh)
        connect(self.run.chosen, self.read)
        connect(self.table.picked, self.refresh)
        connect(self.slides.changed, self._slides_changed)
        connect(self.table.opened, self._open)

    def refresh(self) -> None:
        """Update the buttons."""
        self.content.setVisible(self._run is not None)
        chosen = self.run.path is not None
        set_enabled_with_reason(
            self.show_it, "Read the run", "" if chosen else "no run is chosen"
        )
        reason = "" if self.table.slide() else "no slide is selected"
        if self._session.jobs.status.busy:
            reason = "another job is running"
        set_enabled_with_reason(self.open, _OPEN, reason)

    def read(self) -> None:
        """Request the run in the chosen folder."""
        if self.run.path is not None:
            self.run_requested.emit(self.run.path)

    def show_run(self, run: MilRun) -> None:
        """Show the results of a run."""
        self._run = run
        self.run.put(run.path)
        self.about.setText(
            f"{run.model} on {run.trained_on}; {len(run.rows):,} slides, classes "
            f"{', '.join(run.classes)}. Each slide is predicted by models that have not "
            f"seen it; 95 % intervals by {run.resampled}. Score: probability of "
            f"{scored(run.classes)}."
        )
        self.figures.show_run(run)
        self.table.show_run(run)
        shown = self.plot.currentData()
        self.plot.clear()
        for name in run.plots:
            self.plot.addItem(_PLOTS[name], name)
        self.plot.setCurrentIndex(max(self.plot.findData(shown), 0))
        self.plot.setVisible(bool(run.plots))
        self._read_plot()
        self.refresh()

    def _read_plot(self) -> None:
        run, name = self._run, self.plot.currentData()
        if run is None or name is None:
            self.picture.show_image(QImage())
            return
        self.picture.setAccessibleName(f"{self.plot.currentText()} plot of the run")
        session = self._session
        session.disk.submit(
            "mil plot",
            partial(read_plot, run.plots[name]),
            while_alive(self.picture.show_plot),
            session.report_error,
        )

    def _slides_changed(self) -> None:
        self.slides_changed.emit(self.slides.path)

    def _open(self) -> None:
        if name := self.table.slide():
            self.slide_requested.emit(name)
