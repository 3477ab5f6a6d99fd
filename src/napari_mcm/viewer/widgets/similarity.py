"""The dock widget *Similarity*: click on a slide, see what is alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mcm.viewer.widgets.docked import DockedWidget
from napari_mcm.viewer.widgets.encoder_slot import EncoderSlot
from napari_mcm.viewer.widgets.patch_options import PatchOptions
from napari_mcm.viewer.widgets.query_box import QueryBox
from napari_mcm.viewer.widgets.slide_box import SlideBox

if TYPE_CHECKING:
    import napari


class SimilarityWidget(DockedWidget):
    """Features of the open slide by one or two encoders, and queries by a click.

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
        self.second.encoder.setCurrentIndex(1)
        self.query = QueryBox(session)
        self.stack((self.slide, self.options, self.first, self.second, self.query))
        for part in (self.first, self.second):
            part.failed.connect(self.say)
