"""The dock widget *MAE & cells*: from unlabelled images to classified cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QWidget

from napari_mcm.viewer.cells.classify_panel import CellsBox
from napari_mcm.viewer.cells.controller import CellsDesk
from napari_mcm.viewer.cells.form import AblationForm, CellsForm
from napari_mcm.viewer.cells.results_panel import AblationResults, CellsResults
from napari_mcm.viewer.cells.task_specs import ABLATE, CLASSIFY
from napari_mcm.viewer.cells.training import AblationDesk, ClassifierDesk
from napari_mcm.viewer.mae.controller import PretrainDesk
from napari_mcm.viewer.mae.form import PretrainForm
from napari_mcm.viewer.mae.live_preview import PreviewBox, TrainingPreview
from napari_mcm.viewer.mae.reconstruct_controller import ReconstructDesk
from napari_mcm.viewer.mae.reconstruct_panel import ReconstructBox
from napari_mcm.viewer.mae.task_specs import PRETRAIN
from napari_mcm.viewer.qt.dock import DockedWidget
from napari_mcm.viewer.qt.slide_selector import SlideBox
from napari_mcm.viewer.training.curves_panel import TrainingCurves
from napari_mcm.viewer.training.start_panel import StartBox

if TYPE_CHECKING:
    import napari

TABS = ("Pre-train", "Reconstruct", "Cells", "Ablation")
_CHARTS = {"Loss": {"loss": "step"}}
_FIGURES = {"loss": "loss {:.4f}", "images_per_s": "{:,.3g} images a second"}


class MaeWidget(DockedWidget):
    """Pre-trains, reconstructs, and classifies cells; a tab is made when turned to.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that it is docked in.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        session = self.session
        self.desk, self.ablation = PretrainDesk(session), AblationDesk(session)
        self.classifier, self.cells = ClassifierDesk(session), CellsDesk(session)
        self.preview = TrainingPreview(self.desk)
        self.reconstruction = ReconstructDesk(session)
        parts = (
            self._pretraining,
            self._reconstructing,
            self._classifying,
            self._ablating,
        )
        self.tabs = self.stack_tabs(dict(zip(TABS, parts, strict=True)))

    def _pretraining(self) -> tuple[QWidget, ...]:
        self.form = PretrainForm(self.session)
        self.start = StartBox(self.desk, self.form, PRETRAIN)
        self.curves = TrainingCurves(self.desk, _CHARTS, _FIGURES)
        self.looks = PreviewBox(self.preview)
        return self.form, self.start, self.curves, self.looks, self.form.more

    def _reconstructing(self) -> tuple[QWidget, ...]:
        self.reconstruct = ReconstructBox(self.reconstruction, self.desk)
        self.slide = SlideBox(self.session, brief=True)
        return self.slide, self.reconstruct

    def _classifying(self) -> tuple[QWidget, ...]:
        self.cells_form = CellsForm(self.desk)
        self.cells_start = StartBox(self.classifier, self.cells_form, CLASSIFY)
        self.cells_curves = TrainingCurves(self.classifier, _CHARTS, _FIGURES)
        self.cells_results = CellsResults(self.classifier)
        self.marked = CellsBox(self.cells, self.classifier)
        return (
            self.cells_form,
            self.cells_start,
            self.cells_curves,
            self.cells_results,
            self.marked,
            self.cells_form.more,
        )

    def _ablating(self) -> tuple[QWidget, ...]:
        self.ablation_form = AblationForm()
        self.ablation_start = StartBox(self.ablation, self.ablation_form, ABLATE)
        self.ablation_curves = TrainingCurves(self.ablation, _CHARTS, _FIGURES)
        self.ablation_results = AblationResults(self.ablation)
        return (
            self.ablation_form,
            self.ablation_start,
            self.ablation_curves,
            self.ablation_results,
            self.ablation_form.more,
        )

    def event(self, event: QEvent | None) -> bool:
        """Stop listening to clicks when the dock is closed."""
        done = super().event(event)
        moved = event is not None and event.type() == QEvent.Type.ParentChange
        if moved and hasattr(self, "reconstruct"):
            if self.parent() is None:
                self.reconstruct.stop()
            else:
                self.reconstruct.listen()
        return done
