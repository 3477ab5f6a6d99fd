"""The dock widget *Fine-tune*: fine-tune an encoder on slides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mcm.viewer.app.imports import DISPLAY, LEARNING
from napari_mcm.viewer.finetune.controller import FinetuneController
from napari_mcm.viewer.finetune.form import FinetuneForm
from napari_mcm.viewer.finetune.results_panel import FinetuneResultsPanel
from napari_mcm.viewer.finetune.task_spec import FINETUNE
from napari_mcm.viewer.finetune.window_preview_panel import WindowPreviewPanel
from napari_mcm.viewer.qt.dock import DockedWidget
from napari_mcm.viewer.qt.helpers import connect
from napari_mcm.viewer.qt.slide_selector import SlideSelector
from napari_mcm.viewer.training.start_panel import StartPanel

if TYPE_CHECKING:
    import napari

TABS = ("Set up", "Windows", "Run")


class FinetuneWidget(DockedWidget):
    """Fine-tune in the background, and show curves and results.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that it is docked in.
    """

    needs = (*DISPLAY, *LEARNING)

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.controller = FinetuneController(self.session)
        self.slide = SlideSelector(self.session, brief=True)
        self.form = FinetuneForm(self.session)
        self.start = StartPanel(self.controller, self.form, FINETUNE)
        self.windows = WindowPreviewPanel(self.session, self.form)
        self.results = FinetuneResultsPanel(self.controller)
        parts = (
            (self.slide, self.form, self.start, self.form.more),
            (self.windows,),
            (self.results,),
        )
        self.tabs = self.stack_tabs(dict(zip(TABS, parts, strict=True)))
        connect(self.controller.series_changed, self._show_run)
        self.results.compare_requested.connect(self.controller.compare)
        self._was_busy = False

    def _show_run(self) -> None:
        """Show the curves when a training starts, and only then."""
        busy = self.session.jobs.status.busy
        if self._was_busy != busy or not busy:
            self.tabs.setCurrentIndex(TABS.index("Run"))
        self._was_busy = busy
