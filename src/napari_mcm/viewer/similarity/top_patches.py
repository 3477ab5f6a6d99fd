"""Thumbnails of the patches that are most similar to the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from psygnal import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_mcm.viewer.layers.metadata import slide_of
from napari_mcm.viewer.layers.mouse import ClickMode
from napari_mcm.viewer.layers.thumbnails import TopPatch, go_to, read_thumbnails
from napari_mcm.viewer.layers.timers import single_shot
from napari_mcm.viewer.qt.helpers import connect, connect_deferred, set_shown
from napari_mcm.viewer.qt.thumbnail_grid import ThumbnailGrid
from napari_mcm.viewer.similarity.shortcuts import with_key

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.grid import PatchGrid
    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.core.slides.tiles import Pixels
    from napari_mcm.viewer.similarity.context import SimilarityContext


TOP = 24
"""Number of thumbnails."""

SIDE_PX = 144
"""Side of a thumbnail in pixels: sharp also where the screen has two per point."""

RANK_MS = 20
"""Delay until the patches are ranked, in milliseconds: the canvas is painted first."""

WAIT_MS = 120
"""Delay until thumbnails are read, in milliseconds: the map of a click comes first."""

_CHUNK = 6
"""Number of thumbnails that are read at a time: those in sight come first."""
_MOST_KEPT = 512
"""Number of thumbnails that are kept, as the same patches are often found again."""


class TopPatches:
    """Thumbnails of the most similar patches in the visible map.

    The patches and their values follow the query at once; what they look like is read in
    the background, and never shown for another query or slide.

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
        self._known: dict[int, Pixels | None] = {}
        self._known_of: tuple[Layer, PatchGrid] | None = None
        self._timer = single_shot(RANK_MS, self._rank)
        self._read_timer = single_shot(WAIT_MS, self._read)
        context.query_changed.connect(self._query_changed)
        session.slide_changed.connect(self._query_changed)
        context.keys.on("best", partial(self.step, 1))
        context.keys.on("previous", partial(self.step, -1))

    @property
    def complete(self) -> bool:
        """Whether there are patches, and all of them have been read."""
        return bool(self.tops) and not any(top.pending for top in self.tops)

    @property
    def has_map(self) -> bool:
        """Whether there is a map, whose patches are shown or will be."""
        return self._heatmap is not None

    def go_to(self, patch: TopPatch) -> None:
        """Move the view to a patch."""
        slide, at = self._session.slide, self._place(patch)
        if slide is not None and self._heatmap is not None and at is not None:
            self._at = at
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

    def point_out(self, patch: TopPatch | None) -> None:
        """Frame a patch on the slide, without moving the view.

        Parameters
        ----------
        patch : TopPatch or None
            The patch; None for the one that the view last moved to, if any.
        """
        if patch is None and 0 <= self._at < len(self.tops):
            patch = self.tops[self._at]
        slide, layers = self._session.slide, self._session.layers
        if slide is None or self._heatmap is None:
            return
        if patch is None or self._place(patch) is None:
            layers.clear_mark()
        else:
            layers.mark(slide, self._heatmap.grid, patch.row)

    def judge(self, patch: TopPatch, like: bool) -> None:
        """Make a patch an example of the query, which :meth:`undo` takes back.

        Parameters
        ----------
        patch : TopPatch
            One of `tops`.
        like : bool
            Whether it is a similar example or a dissimilar one.
        """
        if self._heatmap is not None and self._place(patch) is not None:
            x, y = self._heatmap.grid.centres[patch.row]
            mode: ClickMode = "like" if like else "unlike"
            self._context.queries.point(float(x), float(y), mode)

    def label(self, patches: Sequence[TopPatch], key: int) -> None:
        """Label patches with the class of a number key; 0 takes labels away.

        Parameters
        ----------
        patches : sequence of TopPatch
            Some of `tops`.
        key : int
            0 to 9.
        """
        heatmap, labels = self._heatmap, self._session.labels
        rows = [patch.row for patch in patches if self._place(patch) is not None]
        if heatmap is None or not rows:
            return
        if not key:
            labels.remove(heatmap.grid, rows)
        elif (found := labels.class_of_key(key)) is not None:
            labels.add(heatmap.grid, rows, found.name, "gallery")

    def _place(self, patch: TopPatch) -> int | None:
        """Return the place of a patch among the current ones, by what it is.

        Reading a thumbnail replaces its patch.
        """
        rows = [(top.row, top.value) for top in self.tops]
        key = (patch.row, patch.value)
        return rows.index(key) if key in rows else None

    def _query_changed(self) -> None:
        shown = self._context.queries.shown_map()
        heatmap = shown[1] if shown else None
        if heatmap is self._heatmap:
            return
        self._heatmap, self._at, self.tops = heatmap, -1, []
        self._session.disk.drop("gallery")
        self._read_timer.stop()
        if heatmap is None:
            self._timer.stop()
            self.changed.emit()
        else:
            self._timer.start()

    def _rank(self) -> None:
        """Find the patches, and show those thumbnails that are known."""
        heatmap, slide = self._heatmap, self._session.slide
        shown = self._context.queries.shown_map()
        if heatmap is None or shown is None or slide is None:
            return
        self.slot, query = shown[0], self._context.query
        one = query.results.get(self.slot) if query is not None else None
        rows = heatmap.best(TOP, one.examples if one is not None else ()).tolist()
        of = (slide, heatmap.grid)
        if self._known_of is None or any(
            a is not b for a, b in zip(of, self._known_of, strict=True)
        ):
            self._known, self._known_of = {}, of
        values = heatmap.values[rows].tolist()
        self._show(
            [TopPatch(*one, None, True) for one in zip(rows, values, strict=True)]
        )
        self._read_timer.start()

    def _show(self, tops: Sequence[TopPatch]) -> None:
        known = self._known
        self.tops = [
            replace(top, pixels=known[top.row], pending=False)
            if top.row in known
            else top
            for top in tops
        ]
        self.changed.emit()

    def _read(self) -> None:
        """Read the next thumbnails that are not known, in the background."""
        heatmap, slide = self._heatmap, self._session.slide
        opened = slide_of(slide)
        rows = [top.row for top in self.tops if top.pending][:_CHUNK]
        if heatmap is None or opened is None or slide is None or not rows:
            return
        values = heatmap.values[rows].tolist()
        self._session.disk.submit(
            "gallery",
            lambda: read_thumbnails(opened, heatmap.grid, rows, values, SIDE_PX),
            partial(self._arrived, slide, heatmap),
            _quiet,
        )

    def _arrived(self, slide: Layer, heatmap: Heatmap, read: list[TopPatch]) -> None:
        if heatmap is not self._heatmap or slide is not self._session.slide:
            return
        if len(self._known) > _MOST_KEPT:
            self._known.clear()
        self._known |= {top.row: top.pixels for top in read}
        self._show(self.tops)
        self._read()


def _quiet(_problem: str) -> None:
    """Ignore the error: the slide's layer reports that it cannot be read."""


class TopPatchesPanel(QWidget):
    """The grid of the most similar patches, which can be judged and gone to.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.
    """

    def __init__(self, context: SimilarityContext) -> None:
        super().__init__()
        self._gallery = gallery = context.gallery
        self.strip = ThumbnailGrid("Most similar patches, best first, with cosines")
        self.strip.setToolTip(
            with_key(
                "Click or Enter goes there, ✓ or ✗ makes an example, a digit labels "
                "those selected with a class; next",
                "best",
            )
        )
        self.strip.chosen.connect(gallery.go_to)
        self.strip.judged.connect(gallery.judge)
        self.strip.labelled.connect(gallery.label)
        self.strip.pointed.connect(gallery.point_out)
        self.title = QLabel("Most similar patches, cosine")
        self.title.setBuddy(self.strip)
        self._lay_out()
        connect_deferred(self.refresh, gallery.changed)
        connect(context.query_changed, self._hide_without_map)
        self.refresh()

    def _lay_out(self) -> None:
        row = QHBoxLayout()
        row.addWidget(self.title, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addLayout(row)
        column.addWidget(self.strip, 1)
        self.setSizePolicy(self.strip.sizePolicy())

    def refresh(self) -> None:
        """Show the current thumbnails."""
        self.strip.show_patches(self._gallery.tops)
        self._hide_without_map()

    def _hide_without_map(self) -> None:
        set_shown(self, self._gallery.has_map)
