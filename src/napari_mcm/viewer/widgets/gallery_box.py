"""The most similar patches as thumbnails."""

from __future__ import annotations

from qtpy.QtWidgets import QGroupBox, QVBoxLayout

from napari_mcm.viewer.query_keys import with_key
from napari_mcm.viewer.session import Session
from napari_mcm.viewer.widgets.parts import follow
from napari_mcm.viewer.widgets.patch_strip import PatchStrip


class GalleryBox(QGroupBox):
    """Thumbnails of the map that is looked at; a click goes there.

    Parameters
    ----------
    session : Session
        Of the viewer.
    """

    def __init__(self, session: Session) -> None:
        super().__init__("Most similar: click to go there")
        self._session = session
        self.strip = PatchStrip("Most similar patches, best first", "cosine")
        self.strip.setToolTip(with_key("Click or Enter goes there; the next", "best"))
        self.strip.chosen.connect(session.gallery.go_to)
        column = QVBoxLayout(self)
        column.addWidget(self.strip)
        follow(session.gallery.changed, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show other thumbnails."""
        tops = self._session.gallery.tops
        self.strip.show_patches(tops)
        self.setVisible(bool(tops))
