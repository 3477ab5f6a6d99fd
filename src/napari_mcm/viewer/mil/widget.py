"""The dock widget *MIL*: from labels of slides to attention on the slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QWidget

from napari_mcm.viewer.mil.attention import AttentionDesk
from napari_mcm.viewer.mil.attention_panel import AttentionBox
from napari_mcm.viewer.mil.controller import MilDesk
from napari_mcm.viewer.mil.curves_panel import CurvesBox
from napari_mcm.viewer.mil.results_panel import ResultsBox
from napari_mcm.viewer.mil.train_panel import TrainBox
from napari_mcm.viewer.qt.dock import DockedWidget
from napari_mcm.viewer.qt.helpers import follow
from napari_mcm.viewer.qt.slide_selector import SlideBox

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
        self.desk = MilDesk(self.session)
        self.attention = AttentionDesk(self.desk)
        self.train, self.curves = TrainBox(self.desk), CurvesBox(self.desk)
        self.results = ResultsBox(self.desk, self.attention)
        self.slide = SlideBox(self.session, brief=True)
        self.looking = AttentionBox(self.desk, self.attention)
        parts: tuple[tuple[QWidget, ...], ...] = (
            (self.train, self.curves),
            (self.results,),
            (self.slide, self.looking),
        )
        self.tabs = self.stack_tabs(dict(zip(TABS, parts, strict=True)))
        follow(self.desk.run_changed, self._show_results)
        follow(self.attention.shown_changed, self._show_slide)
        follow(self.desk.recalled, self._recalled)
        self.desk.recall()

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
            field.propose(self.desk.last.get(name))
