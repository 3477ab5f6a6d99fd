"""Show the curves of a fine-tuning, and compare its encoder on the open slide."""

from __future__ import annotations

from collections.abc import Mapping

from psygnal import Signal
from qtpy.QtWidgets import QCheckBox, QPushButton, QVBoxLayout, QWidget

from napari_mcm.viewer.app.features import encoder_label
from napari_mcm.viewer.finetune.click_test_panel import ClickTestPanel
from napari_mcm.viewer.finetune.controller import FinetuneController
from napari_mcm.viewer.layers.metadata import slide_of
from napari_mcm.viewer.qt.helpers import connect, note, set_enabled_with_reason
from napari_mcm.viewer.training.curves_panel import TrainingCurvesPanel

CHARTS: Mapping[str, Mapping[str, str]] = {
    "Loss": {"loss": "step", "held_out_loss": "held out"},
    "Cosine to the teacher": {
        "cosine": "step",
        "held_out_cosine": "held out",
    },
    "Effective rank of the features": {"feature_rank": "step"},
    "Probe on labelled slides (AUROC)": {
        "probe_few_shot_auroc": "few-shot",
        "probe_similarity_auroc": "similarity",
    },
}
"""Titles of charts to metrics, and the labels of their lines."""

FIGURES = {
    "loss": "loss {:.4f}",
    "cosine": "cosine {:.3f}",
    "feature_rank": "rank {:.1f}",
    "patches_per_s": "{:,.3g} patches per second",
}
"""Metrics that are shown as text, and their formats."""

_COMPARE = (
    "Extract the open slide with the student before and after fine-tuning; the maps of "
    "the current query appear in Similarity, as first and second encoder"
)

_TEACHER = "Also extract it with the teacher {}; its map is the third one"


class FinetuneResultsPanel(QWidget):
    """Show the curves of a fine-tuning, and offer to compare its encoder.

    Parameters
    ----------
    controller : FinetuneController
        Has the run and its metrics.

    Attributes
    ----------
    compare_requested : Signal
        The open slide is to be extracted before and after, and by the teacher (bool).
    """

    compare_requested = Signal(bool)

    def __init__(self, controller: FinetuneController) -> None:
        super().__init__()
        self._controller = controller
        self.compare = QPushButton("&Before and after on the open slide")
        self.compare.clicked.connect(
            lambda _: self.compare_requested.emit(self.with_teacher.isChecked())
        )
        self.with_teacher = QCheckBox("And the teache&r")
        self.clicks = ClickTestPanel(controller)
        actions = (self.compare, self.with_teacher, self.clicks)
        self.curves = TrainingCurvesPanel(controller, CHARTS, FIGURES, actions)
        self.warning = note()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 8, 0, 0)
        column.addWidget(self.curves)
        column.addWidget(self.warning)
        session = controller.session
        for signal in (controller.run_changed, session.slide_changed):
            connect(signal, self.refresh)
        connect(session.jobs.status.events.state, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Update what can be compared."""
        run = self._controller.run
        set_enabled_with_reason(self.compare, _COMPARE, self._reason())
        self.compare.setVisible(run is not None)
        teacher = run.teacher if run is not None else ""
        self.with_teacher.setVisible(bool(teacher))
        self.with_teacher.setToolTip(_TEACHER.format(encoder_label(teacher)))

        warning = self._warning()
        self.warning.setText(warning)
        self.warning.setVisible(bool(warning))

    def _warning(self) -> str:
        """Return a warning if the open slide is in the training set of the run."""
        run, slide = self._controller.run, slide_of(self._controller.session.slide)
        if run is None or slide is None or not run.learned_from:
            return ""
        from napari_mcm.core.encoders.learned_from import warn_of_seen

        identity = {"name": slide.name, "fingerprint": slide.fingerprint}
        found = warn_of_seen(run.learned_from, [identity], run.path.name)
        return f"Warning: {found}." if found else ""

    def _reason(self) -> str:
        session = self._controller.session
        if session.metadata is None:
            return "no slide is open"
        if session.metadata.mpp is None:
            return "the slide's resolution is unknown"
        return "another job is running" if session.jobs.status.busy else ""
