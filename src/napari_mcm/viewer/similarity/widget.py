"""The dock widget *Similarity*."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mcm.viewer.qt.collapsible_forms import CollapsibleSection
from napari_mcm.viewer.qt.dock import DockedWidget
from napari_mcm.viewer.qt.patch_fields import PatchOptions
from napari_mcm.viewer.qt.slide_selector import SlideSelector
from napari_mcm.viewer.similarity.area_panel import AreaPanel
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.cross_slide_panel import CrossSlidePanel
from napari_mcm.viewer.similarity.encoder_panel import EncoderPanel
from napari_mcm.viewer.similarity.maps_panel import MapsPanel
from napari_mcm.viewer.similarity.query_panel import QueryPanel
from napari_mcm.viewer.similarity.top_patches import TopPatchesPanel

if TYPE_CHECKING:
    import napari


class SimilarityWidget(DockedWidget):
    """Queries the features of the active slide, by up to three encoders, with clicks.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that the widget is docked in.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        session = self.session
        context = context_of(session)
        self.slide = SlideSelector(session)
        self.options = PatchOptions(session)
        self.first = EncoderPanel("Encoder", session, "first", self.options)
        self.second = EncoderPanel("Compare with", session, "second", self.options)
        self.third = EncoderPanel("And with", session, "third", self.options)
        self.second.encoder.setCurrentIndex(1)
        self.third.encoder.setCurrentIndex(2)
        more = CollapsibleSection("A third encoder")
        more.setToolTip("For example the teacher, beside a student before and after")
        more.addWidget(self.third)
        self.query, self.maps = QueryPanel(context), MapsPanel(context)
        self.area, self.gallery = AreaPanel(context), TopPatchesPanel(context)
        self.cross_slide = CrossSlidePanel(context)
        self.stack(
            (
                self.slide,
                self.options,
                self.first,
                self.second,
                more,
                self.query,
                self.maps,
                self.area,
                self.gallery,
                self.cross_slide,
            )
        )
        for part in (self.first, self.second, self.third):
            part.failed.connect(self.show_problem)
