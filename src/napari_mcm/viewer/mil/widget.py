"""The dock widget *MIL*: from labels of slides to attention on the slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QWidget

from napari_mcm.viewer.mil.attention import AttentionController
from napari_mcm.viewer.mil.attention_panel import AttentionPanel
from napari_mcm.viewer.mil.controller import MilController
from napari_mcm.viewer.mil.curves_panel import CurvesPanel
from napari_mcm.viewer.mil.results_panel import MilResultsPanel
from napari_mcm.viewer.mil.train_panel import TrainPanel
from napari_mcm.viewer.qt.dock import DockedWidget
from napari_mcm.viewer.qt.helpers import connect
from napari_mcm.viewer.qt.slide_selector import SlideSelector

if TYPE_CHECKING:
    import napari

TABS = ("Train", "Results", "Slide")


class MilWidget(DockedWidget):
    """Trains slide classifiers, shows their results, and draws what they look at.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that it is docked in.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.controller = MilController(self.session)
        self.attention = AttentionController(self.controller)
        self.train, self.curves = (
            TrainPanel(self.controller),
            CurvesPanel(self.controller),
        )
        self.results = MilResultsPanel(self.controller, self.attention)
        self.slide = SlideSelector(self.session, brief=True)
        self.looking = AttentionPanel(self.controller, self.attention)
        parts: tuple[tuple[QWidget, ...], ...] = (
            (self.train, self.curves),
            (self.results,),
            (self.slide, self.looking),
        )
        self.tabs = self.stack_tabs(dict(zip(TABS, parts, strict=True)))
        connect(self.controller.run_changed, self._show_results)
        connect(self.attention.shown_changed, self._show_slide)
        connect(self.controller.recalled, self._recalled)
        self.controller.recall()

    def _show_results(self) -> None:
        self.tabs.setCurrentIndex(TABS.index("Results"))

    def _show_slide(self) -> None:
        if self.attention.shown is not None:
            self.tabs.setCurrentIndex(TABS.index("Slide"))

    def _recalled(self) -> None:
        fields = {
            "cohort": self.train.cohort,
            "features": self.train.features,
            "out": self.train.out,
            "run": self.results.run,
            "slides": self.results.slides,
        }
        for name, field in fields.items():
            field.propose(self.controller.last.get(name))
