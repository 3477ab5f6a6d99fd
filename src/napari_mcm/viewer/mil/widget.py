"""The dock widget *MIL*: from labels of slides to attention on a slide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QWidget

from napari_mcm.viewer.app.imports import DISPLAY, LEARNING
from napari_mcm.viewer.mil.attention_controller import AttentionController
from napari_mcm.viewer.mil.attention_panel import AttentionPanel
from napari_mcm.viewer.mil.commands import attention_command
from napari_mcm.viewer.mil.controller import MilController
from napari_mcm.viewer.mil.curves_panel import CurvesPanel
from napari_mcm.viewer.mil.form import MilForm
from napari_mcm.viewer.mil.results_panel import MilResultsPanel
from napari_mcm.viewer.mil.task_spec import MIL
from napari_mcm.viewer.qt.dock import DockedWidget
from napari_mcm.viewer.qt.helpers import connect
from napari_mcm.viewer.qt.slide_selector import SlideSelector
from napari_mcm.viewer.training.start_panel import StartPanel

if TYPE_CHECKING:
    import napari

TABS = ("Train", "Results", "Slide")


class MilWidget(DockedWidget):
    """Train slide classifiers, show their results, and draw their attention.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that it is docked in.
    """

    needs = (*DISPLAY, *LEARNING)

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        session = self.session
        self.controller = MilController(session)
        self.attention = attention = AttentionController(session)
        self.form = MilForm(session)
        self.start = StartPanel(self.controller, self.form, MIL)
        self.curves = CurvesPanel(self.controller)
        self.results = MilResultsPanel(session)
        self.slide = SlideSelector(session, brief=True)
        self.prediction = AttentionPanel(session, lambda: attention_command(attention))
        parts: tuple[tuple[QWidget, ...], ...] = (
            (self.form, self.start, self.curves),
            (self.results,),
            (self.slide, self.prediction),
        )
        self.tabs = self.stack_tabs(dict(zip(TABS, parts, strict=True)))
        self._connect()
        self.controller.recall()

    def _connect(self) -> None:
        controller, attention = self.controller, self.attention
        connect(controller.run_changed, self._show_run)
        connect(controller.recalled, self._recalled)
        connect(attention.shown_changed, self._show_attention)
        connect(attention.tops_changed, self._show_tops)
        self.results.run_requested.connect(controller.show_results)
        self.results.slide_requested.connect(self._open_slide)
        self.results.slides_changed.connect(self._use_slides)
        self.prediction.predict_requested.connect(attention.predict)
        self.prediction.features_changed.connect(self._use_features)
        self.prediction.class_chosen.connect(attention.use_class)
        self.prediction.scaling_chosen.connect(attention.use_scaling)
        self.prediction.patch_chosen.connect(attention.go_to)

    def _show_run(self) -> None:
        if (run := self.controller.run) is None:
            return
        self.attention.use_run(run)
        self.results.show_run(run)
        self.prediction.show_run(run, self.attention.features)
        self.tabs.setCurrentIndex(TABS.index("Results"))

    def _show_attention(self) -> None:
        attention = self.attention
        self.prediction.show_attention(attention.shown, attention.scaling)
        self._show_tops()
        if attention.shown is not None:
            self.tabs.setCurrentIndex(TABS.index("Slide"))

    def _show_tops(self) -> None:
        self.prediction.show_tops(self.attention.tops)

    def _open_slide(self, name: str) -> None:
        self.controller.remember({"slides": self.attention.slides})
        self.attention.open_slide(name)

    def _use_slides(self, folder: Path | None) -> None:
        self.attention.slides = folder

    def _use_features(self, folder: Path | None) -> None:
        self.attention.features = folder

    def _recalled(self) -> None:
        fields = {
            # Before the cohort, beside which a run folder would be proposed.
            "out": self.start.out,
            "cohort": self.form.cohort,
            "features": self.form.features,
            "run": self.results.run,
            "slides": self.results.slides,
        }
        for name, field in fields.items():
            field.propose(self.controller.last.get(name))
