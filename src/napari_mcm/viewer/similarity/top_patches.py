"""Thumbnails of the patches that are most similar to the query."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from psygnal import Signal
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QGroupBox, QVBoxLayout

from napari_mcm.viewer.layers.metadata import slide_of
from napari_mcm.viewer.layers.thumbnails import TopPatch, go_to, read_thumbnails
from napari_mcm.viewer.qt.helpers import connect
from napari_mcm.viewer.qt.thumbnail_strip import ThumbnailStrip
from napari_mcm.viewer.similarity.shortcuts import with_key

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.viewer.similarity.context import SimilarityContext


TOP = 24
"""Number of thumbnails."""

WAIT_MS = 120
"""Delay until thumbnails are read, in milliseconds: the map of a click comes first."""


class TopPatches:
    """Thumbnails of the most similar patches in the visible map.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.

    Attributes
    ----------
    tops : list of TopPatch
        The patches, the most similar first, without the examples of the query.
    slot : str
        Slot of their map.
    changed : Signal
        Emitted when the thumbnails changed.
    """

    changed = Signal()

    def __init__(self, context: SimilarityContext) -> None:
        session = context.session
        self._context = context
        self._session = session
        self.tops: list[TopPatch] = []
        self.slot = ""
        self._heatmap: Heatmap | None = None
        self._at = -1
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(WAIT_MS)
        self._timer.timeout.connect(self._read)
        context.query_changed.connect(self._query_changed)
        session.slide_changed.connect(self._query_changed)
        context.keys.on("best", partial(self.step, 1))
        context.keys.on("previous", partial(self.step, -1))

    def go_to(self, patch: TopPatch) -> None:
        """Move the view to a patch."""
        slide = self._session.slide
        if slide is not None and self._heatmap is not None and patch in self.tops:
            self._at = self.tops.index(patch)
            go_to(self._session.layers, slide, self._heatmap.grid, patch.row)

    def step(self, by: int) -> None:
        """Move the view to the next patch, or to the previous one.

        Parameters
        ----------
        by : int
            1 for the next patch, -1 for the previous one.
        """
        if self.tops:
            start = self._at if self._at >= 0 or by > 0 else 0
            self.go_to(self.tops[(start + by) % len(self.tops)])

    def _query_changed(self) -> None:
        shown = self._context.queries.shown_map()
        heatmap = shown[1] if shown else None
        if heatmap is self._heatmap:
            return
        self._heatmap, self._at = heatmap, -1
        if heatmap is None:
            self._timer.stop()
            self._session.disk.drop("gallery")
            self.tops = []
            self.changed.emit()
        else:
            self._timer.start()

    def _read(self) -> None:
        session, heatmap = self._session, self._heatmap
        shown, slide = self._context.queries.shown_map(), session.slide
        opened = slide_of(slide)
        if heatmap is None or shown is None or opened is None or slide is None:
            return
        slot, query = shown[0], self._context.query
        one = query.results.get(slot) if query is not None else None
        examples = one.examples if one is not None else ()

        def work() -> list[TopPatch]:
            rows = heatmap.best(TOP, examples)
            values = heatmap.values[rows].tolist()
            return read_thumbnails(opened, heatmap.grid, rows.tolist(), values)

        session.disk.submit(
            "gallery", work, partial(self._arrived, slide, heatmap, slot), _quiet
        )

    def _arrived(
        self, slide: Layer, heatmap: Heatmap, slot: str, tops: list[TopPatch]
    ) -> None:
        if heatmap is self._heatmap and slide is self._session.slide:
            self.tops, self.slot = tops, slot
            self.changed.emit()


def _quiet(_problem: str) -> None:
    """Ignore the error: the slide's layer reports that it cannot be read."""


class TopPatchesPanel(QGroupBox):
    """The box with thumbnails of the most similar patches; a click moves the view.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.
    """

    def __init__(self, context: SimilarityContext) -> None:
        session = context.session
        self._context = context
        super().__init__("Most similar patches: click to go there")
        self._session = session
        self.strip = ThumbnailStrip("Most similar patches, best first", "cosine")
        self.strip.setToolTip(with_key("Click or Enter goes there; the next", "best"))
        self.strip.chosen.connect(context.gallery.go_to)
        column = QVBoxLayout(self)
        column.addWidget(self.strip)
        connect(context.gallery.changed, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the current thumbnails."""
        tops = self._context.gallery.tops
        self.strip.show_patches(tops)
        self.setVisible(bool(tops))
