"""The dock widget *Similarity*: click on a slide, see what is alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mcm.viewer.widgets.area_box import AreaBox
from napari_mcm.viewer.widgets.docked import DockedWidget
from napari_mcm.viewer.widgets.elsewhere_box import ElsewhereBox
from napari_mcm.viewer.widgets.encoder_slot import EncoderSlot
from napari_mcm.viewer.widgets.fold import Fold
from napari_mcm.viewer.widgets.gallery_box import GalleryBox
from napari_mcm.viewer.widgets.maps_box import MapsBox
from napari_mcm.viewer.widgets.patch_options import PatchOptions
from napari_mcm.viewer.widgets.query_box import QueryBox
from napari_mcm.viewer.widgets.slide_box import SlideBox

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
        self.query, self.maps = QueryBox(session), MapsBox(session)
        self.area, self.gallery = AreaBox(session), GalleryBox(session)
        self.elsewhere = ElsewhereBox(session)
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
