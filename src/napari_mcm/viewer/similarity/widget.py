"""The dock widget *Similarity*: click on a slide, see what is alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mcm.viewer.qt.collapsible_forms import Fold
from napari_mcm.viewer.qt.dock import DockedWidget
from napari_mcm.viewer.qt.patch_fields import PatchOptions
from napari_mcm.viewer.qt.slide_selector import SlideBox
from napari_mcm.viewer.similarity.area_panel import AreaBox
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.cross_slide_panel import ElsewhereBox
from napari_mcm.viewer.similarity.encoder_panel import EncoderSlot
from napari_mcm.viewer.similarity.maps_panel import MapsBox
from napari_mcm.viewer.similarity.query_panel import QueryBox
from napari_mcm.viewer.similarity.top_patches import GalleryBox

if TYPE_CHECKING:
    import napari


class SimilarityWidget(DockedWidget):
    """Features of the open slide by up to three encoders, and queries by a click.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that it is docked in.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        session = self.session
        context = context_of(session)
        self.slide = SlideBox(session)
        self.options = PatchOptions(session)
        self.first = EncoderSlot("Encoder", session, "first", self.options)
        self.second = EncoderSlot("Compare with", session, "second", self.options)
        self.third = EncoderSlot("And with", session, "third", self.options)
        self.second.encoder.setCurrentIndex(1)
        self.third.encoder.setCurrentIndex(2)
        more = Fold("A third encoder")
        more.setToolTip("The teacher, say, beside a student before and after")
        more.addWidget(self.third)
        self.query, self.maps = QueryBox(context), MapsBox(context)
        self.area, self.gallery = AreaBox(context), GalleryBox(context)
        self.elsewhere = ElsewhereBox(context)
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
                self.elsewhere,
            )
        )
        for part in (self.first, self.second, self.third):
            part.failed.connect(self.say)
