"""The dock widget *Slide*."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mcm.viewer.qt.dock import DockedWidget
from napari_mcm.viewer.qt.slide_selector import SlideSelector
from napari_mcm.viewer.slide.grid_preview import GridPanel
from napari_mcm.viewer.slide.properties_panel import LabelImages, PropertiesPanel
from napari_mcm.viewer.slide.side_by_side import SideBySide
from napari_mcm.viewer.slide.tissue_panel import TissuePanel

if TYPE_CHECKING:
    import napari


class SlideWidget(DockedWidget):
    """Shows properties, tissue mask and patch grid of the active slide.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that the widget is docked in.
    """

    is_first = False

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        session = self.session
        self.slide = SlideSelector(session, brief=True)
        self.properties = PropertiesPanel(session)
        self.images = LabelImages(session)
        self.tissue = TissuePanel(session)
        self.grid = GridPanel(session)
        self.side_by_side = SideBySide(session)
        self.stack(
            (
                self.slide,
                self.side_by_side,
                self.properties,
                self.tissue,
                self.grid,
                self.images,
            )
        )
