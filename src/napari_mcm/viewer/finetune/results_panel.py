"""The tab *Run*: curves of the training as it goes, and what to do with its encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_mcm.core.grid import GridConfig
from napari_mcm.viewer.app.features import FeatureRequest
from napari_mcm.viewer.app.persistence import writable_base
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.finetune.controller import FinetuneController
from napari_mcm.viewer.qt.helpers import connect, note, set_enabled_with_reason
from napari_mcm.viewer.qt.patch_fields import encoder_label, folder_name
from napari_mcm.viewer.training.chart import Chart, Lines, lines_of
from napari_mcm.viewer.training.metrics import Series

CHARTS: Mapping[str, Mapping[str, str]] = {
    "Loss": {"loss": "step", "held_out_loss": "kept out"},
    "Cosine to the teacher": {
        "cosine": "step",
        "held_out_cosine": "kept out",
    },
    "Effective rank of the features": {"feature_rank": "step"},
    "Probe on labelled slides (AUROC)": {
        "probe_few_shot_auroc": "few-shot",
        "probe_similarity_auroc": "similar",
    },
}
"""Title to figures, and how their lines are called."""

_WAIT_MS = 200

_HEIGHT = 112

_COMPARE = (
    "Extract the open slide with the student as it was and with the fine-tuned one; the "
    "maps of the present query appear in Similarity, as first and second encoder"
)

_TEACHER = "Extract it with the teacher {}, too: its map is the third one"


class FinetuneResultsPanel(QWidget):
    """Curves, the last figures as text, and the button that compares.

    Parameters
    ----------
    controller : FinetuneController
        Whose training.
    """

    def __init__(self, controller: FinetuneController) -> None:
        super().__init__()
        self._controller = controller
        self.about, self.text = note(), note()
        self.compare = QPushButton("&Before and after on the open slide")
        self.compare.clicked.connect(self.compare_slide)
        self.with_teacher = QCheckBox("And the teache&r")
        self.titles = {title: QLabel(title) for title in CHARTS}
        self.charts = {title: Chart("step", _HEIGHT) for title in CHARTS}
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 8, 0, 0)
        for part in (self.about, self.compare, self.with_teacher, self.text):
            column.addWidget(part)
        for title, chart in self.charts.items():
            column.addWidget(self.titles[title])
            column.addWidget(chart)
        # Small encoders take many steps a second.
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(_WAIT_MS)
        self._soon.timeout.connect(self.refresh)
        session = controller.session
        connect(controller.series_changed, self._changed)
        for signal in (controller.run_changed, session.slide_changed):
            connect(signal, self.refresh)
        connect(session.jobs.status.events.state, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the training as it is now."""
        run, series = self._controller.run, self._controller.series
        for title, figures in CHARTS.items():
            lines = lines_of(series, figures)
            chart = self.charts[title]
            chart.setVisible(bool(lines))
            self.titles[title].setVisible(bool(lines))
            chart.show_lines(lines)
            said = f"{title}: {_last(lines)}"
            chart.setToolTip(said)
            chart.setAccessibleName(said)
        self.text.setText(describe(series))
        about = "Curves appear here once a training runs."
        if run is not None:
            about = f"{run.path.name}: {run.describe()}."
        elif series:
            about = "Not finished yet: Cancel keeps it, Resume goes on."
        self.about.setText(about)
        self.about.setToolTip(str(run.path) if run else "")
        set_enabled_with_reason(self.compare, _COMPARE, self._reason())
        self.compare.setVisible(run is not None)
        teacher = run.teacher if run is not None else ""
        self.with_teacher.setVisible(bool(teacher))
        self.with_teacher.setToolTip(_TEACHER.format(encoder_label(teacher)))

    def compare_slide(self) -> None:
        """Extract the open slide before and after, and by the teacher where asked."""
        run = self._controller.run
        if run is not None:
            teacher = run.teacher if self.with_teacher.isChecked() else ""
            specs = (run.student, str(run.path), teacher)
            self._controller.compare([self._request(s, run.grid) for s in specs if s])

    def _request(self, spec: str, grid: GridConfig) -> FeatureRequest:
        session, metadata = self._controller.session, self._controller.session.metadata
        assert metadata is not None
        slide, chosen = Path(metadata.path), preferences()
        return FeatureRequest(
            slide,
            metadata.mpp_override,
            spec,
            encoder_label(spec),
            grid,
            (chosen.output_folder or writable_base(slide)) / folder_name(spec),
            mask=session.tissue.drawn_mask(session.slide),
            compute=chosen.compute,
            beside=True,
        )

    def _reason(self) -> str:
        metadata = self._controller.session.metadata
        if metadata is None:
            return "no slide is open"
        if metadata.mpp is None:
            return "the slide's resolution is not known"
        return (
            "another job is running"
            if self._controller.session.jobs.status.busy
            else ""
        )

    def _changed(self) -> None:
        if not self._soon.isActive():
            self._soon.start()


def describe(series: Series) -> str:
    """Say where the training stands: ``Step 40 · loss 0.412 · …``."""
    steps = series.get("step", [])
    if not steps:
        return ""
    parts = [f"Step {round(steps[-1]) + 1:,}"]
    for name, text in (
        ("loss", "loss {:.4f}"),
        ("cosine", "cosine {:.3f}"),
        ("feature_rank", "rank {:.1f}"),
        ("patches_per_s", "{:,.3g} patches a second"),
    ):
        values = series.get(name, [])
        if values and np.isfinite(values[-1]):
            parts.append(text.format(values[-1]))
    return " · ".join(parts)


def _last(lines: Lines) -> str:
    return ", ".join(
        f"{label} {values[-1]:.3f}" for label, (_, values) in lines.items()
    )
