"""The dock widget *MAE & cells*: from unlabelled images to classified cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QWidget

from napari_mcm.viewer.app.imports import DISPLAY, LEARNING_TIMM
from napari_mcm.viewer.cells.classify_panel import ClassifyPanel
from napari_mcm.viewer.cells.controller import CellsController
from napari_mcm.viewer.cells.form import AblationForm, CellsForm
from napari_mcm.viewer.cells.results_panel import (
    AblationResultsPanel,
    CellsResultsPanel,
)
from napari_mcm.viewer.cells.task_specs import ABLATE, CLASSIFY
from napari_mcm.viewer.cells.training_controller import (
    AblationController,
    ClassifierController,
)
from napari_mcm.viewer.mae.controller import PretrainController
from napari_mcm.viewer.mae.form import PretrainForm
from napari_mcm.viewer.mae.live_preview import TrainingPreview
from napari_mcm.viewer.mae.live_preview_panel import LivePreviewPanel
from napari_mcm.viewer.mae.reconstruct_controller import ReconstructController
from napari_mcm.viewer.mae.reconstruct_panel import ReconstructPanel
from napari_mcm.viewer.mae.task_specs import PRETRAIN
from napari_mcm.viewer.qt.dock import DockedWidget
from napari_mcm.viewer.qt.helpers import connect
from napari_mcm.viewer.qt.slide_selector import SlideSelector
from napari_mcm.viewer.training.curves_panel import TrainingCurvesPanel
from napari_mcm.viewer.training.start_panel import StartPanel

if TYPE_CHECKING:
    import napari

TABS = ("Pre-train", "Reconstruct", "Cells", "Ablation")
_CHARTS = {"Loss": {"loss": "step"}}
_FIGURES = {"loss": "loss {:.4f}", "images_per_s": "{:,.3g} images per second"}


class MaeWidget(DockedWidget):
    """Pre-train, reconstruct, and classify cells; tabs are made when first shown.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that it is docked in.
    """

    needs = (*DISPLAY, *LEARNING_TIMM)
    folders = ("mae", "cells")

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        session = self.session
        self.controller, self.ablation = (
            PretrainController(session),
            AblationController(session),
        )
        self.classifier, self.cells = (
            ClassifierController(session),
            CellsController(session),
        )
        self.preview = TrainingPreview(self.controller)
        self.reconstruction = ReconstructController(session)
        parts = (
            self._pretraining,
            self._reconstructing,
            self._classifying,
            self._ablating,
        )
        self.tabs = self.stack_tabs(dict(zip(TABS, parts, strict=True)))

    def _pretraining(self) -> tuple[QWidget, ...]:
        self.form = PretrainForm(self.session)
        self.start = StartPanel(self.controller, self.form, PRETRAIN)
        self.curves = TrainingCurvesPanel(self.controller, _CHARTS, _FIGURES)
        self.live_preview = LivePreviewPanel(self.preview)
        return self.form, self.start, self.curves, self.live_preview, self.form.more

    def _reconstructing(self) -> tuple[QWidget, ...]:
        self.reconstruct = ReconstructPanel(self.reconstruction, self.controller)
        self.slide = SlideSelector(self.session, brief=True)
        return self.slide, self.reconstruct

    def _classifying(self) -> tuple[QWidget, ...]:
        self.cells_form = CellsForm(self.controller)
        self.cells_start = StartPanel(self.classifier, self.cells_form, CLASSIFY)
        self.cells_curves = TrainingCurvesPanel(self.classifier, _CHARTS, _FIGURES)
        self.cells_results = CellsResultsPanel(self.classifier)
        self.marked = ClassifyPanel(self.session)
        self.marked.classify_requested.connect(self.cells.classify)
        connect(self.cells.changed, self._show_classes)
        connect(self.classifier.run_changed, self._propose_classifier)
        self._propose_classifier()
        return (
            self.cells_form,
            self.cells_start,
            self.cells_curves,
            self.cells_results,
            self.marked,
            self.cells_form.more,
        )

    def _show_classes(self) -> None:
        self.marked.show_classes(self.cells.found)

    def _propose_classifier(self) -> None:
        if (run := self.classifier.run) is not None:
            self.marked.run.put(run.path)

    def _ablating(self) -> tuple[QWidget, ...]:
        self.ablation_form = AblationForm()
        self.ablation_start = StartPanel(self.ablation, self.ablation_form, ABLATE)
        self.ablation_curves = TrainingCurvesPanel(self.ablation, _CHARTS, _FIGURES)
        self.ablation_results = AblationResultsPanel(self.ablation)
        self.ablation_results.run_requested.connect(self.ablation.show_run)
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
