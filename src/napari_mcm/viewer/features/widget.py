"""The dock widget *Features*."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mcm.viewer.app.imports import DISPLAY, EXTRACTING
from napari_mcm.viewer.features.extract_panel import ExtractPanel
from napari_mcm.viewer.features.files_panel import FeatureFilesPanel
from napari_mcm.viewer.qt.dock import DockedWidget
from napari_mcm.viewer.qt.slide_selector import SlideSelector

if TYPE_CHECKING:
    import napari


class FeaturesWidget(DockedWidget):
    """Extracts features of slides in the background, and opens feature files.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that the widget is docked in.
    """

    needs = (*DISPLAY, *EXTRACTING)

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.slide = SlideSelector(self.session, brief=True)
        self.files = FeatureFilesPanel(self.session)
        self.extract = ExtractPanel(self.session, self.files)
        self.stack((self.slide, self.extract, self.files))
