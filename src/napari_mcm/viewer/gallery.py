"""The patches that the present query finds most alike, read in the background."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_mcm.viewer.slide_facts import slide_of
from napari_mcm.viewer.thumbnails import TopPatch, go_to, read_thumbnails

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.viewer.session import Session

TOP = 24
WAIT_MS = 120
"""A click is painted first; who clicks on at once needs no thumbnails."""


class GalleryDesk:
    """Thumbnails of the map that is looked at.

    Parameters
    ----------
    session : Session
        Which has the query.

    Attributes
    ----------
    tops : list of TopPatch
        Best first, without the patches that were pointed at.
    slot : str
        Whose map they are of.
    changed : Signal
        Other thumbnails were read, or there are none.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self._session = session
        self.tops: list[TopPatch] = []
        self.slot = ""
        self._of: Heatmap | None = None
        self._at = -1
        self._soon = QTimer()
        self._soon.setSingleShot(True)
        self._soon.setInterval(WAIT_MS)
        self._soon.timeout.connect(self._read)
        session.query_changed.connect(self._asked)
        session.slide_changed.connect(self._asked)
        session.keys.on("best", partial(self.step, 1))
        session.keys.on("previous", partial(self.step, -1))

    def go_to(self, patch: TopPatch) -> None:
        """Have the viewer look at a patch."""
        slide = self._session.slide
        if slide is not None and self._of is not None and patch in self.tops:
            self._at = self.tops.index(patch)
            go_to(self._session, slide, self._of.grid, patch.row)

    def step(self, by: int) -> None:
        """Go to the next patch, or the one before."""
        if self.tops:
            start = self._at if self._at >= 0 or by > 0 else 0
            self.go_to(self.tops[(start + by) % len(self.tops)])

    def _asked(self) -> None:
        shown = self._session.queries.shown_map()
        heatmap = shown[1] if shown else None
        if heatmap is self._of:
            return
        self._of, self._at = heatmap, -1
        if heatmap is None:
            self._soon.stop()
            self._session.disk.drop("gallery")
            self.tops = []
            self.changed.emit()
        else:
            self._soon.start()

    def _read(self) -> None:
        session, heatmap = self._session, self._of
        shown, slide = session.queries.shown_map(), session.slide
        opened = slide_of(slide)
        if heatmap is None or shown is None or opened is None or slide is None:
            return
        slot, query = shown[0], session.query
        one = query.answers.get(slot) if query is not None else None
        asked = one.asked if one is not None else ()

        def work() -> list[TopPatch]:
            rows = heatmap.best(TOP, asked)
            values = heatmap.values[rows].tolist()
            return read_thumbnails(opened, heatmap.grid, rows.tolist(), values)

        session.disk.submit(
            "gallery", work, partial(self._arrived, slide, heatmap, slot), _quiet
        )

    def _arrived(
        self, slide: Layer, heatmap: Heatmap, slot: str, tops: list[TopPatch]
    ) -> None:
        if heatmap is self._of and slide is self._session.slide:
            self.tops, self.slot = tops, slot
            self.changed.emit()


def _quiet(_problem: str) -> None:
    """Leave it: a slide that cannot be read is told by its own layer."""
