"""The maps of a query on the slide: one per encoder, their difference, the markers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer

from napari_mcm.core.errors import McmError
from napari_mcm.core.heatmaps.query import Examples
from napari_mcm.viewer.app.features import SLOTS

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.viewer.app.features import Loaded
    from napari_mcm.viewer.app.session import Session
    from napari_mcm.viewer.similarity.query import Answer


DIFFERENCE = "difference"
"""The map of what one encoder finds more alike than another."""

THUMBNAIL_MS = 300
"""The list of layers follows when the hand rests."""


class QueryMaps:
    """Draws what encoders answer.

    Parameters
    ----------
    session : Session
        Which has the slide and the layers.

    Attributes
    ----------
    pair : tuple of str or None
        Slots whose difference is drawn, before and after.
    difference : Heatmap or None
        Their difference.
    problem : str
        Why there is none.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.pair: tuple[str, str] | None = None
        self.difference: Heatmap | None = None
        self.problem = ""
        self._soon = QTimer()
        self._soon.setSingleShot(True)
        self._soon.setInterval(THUMBNAIL_MS)
        self._soon.timeout.connect(self._refresh_thumbnails)

    def shown(self) -> list[str]:
        """Return the slots whose maps can be seen."""
        slide, layers = self._session.slide, self._session.layers
        if slide is None:
            return []
        maps = {slot: layers.map_of(slide, slot) for slot in (*SLOTS, DIFFERENCE)}
        return [slot for slot, layer in maps.items() if layer and layer.visible]

    def clear(self) -> None:
        """Take all maps and markers away; their layers stay, empty."""
        self.difference, self.problem = None, ""
        slide, layers = self._session.slide, self._session.layers
        if slide is not None:
            for slot in (*SLOTS, DIFFERENCE):
                layers.empty_map(slide, slot)
        layers.unmark()

    def draw(
        self,
        slide: Layer,
        loaded: Mapping[str, Loaded],
        found: Mapping[str, Answer | None],
        examples: Examples,
    ) -> None:
        """Draw the answer of each slot, and mark what was pointed at."""
        layers, before = self._session.layers, self.shown()
        fresh = [slot for slot in found if layers.map_of(slide, slot) is None]
        for slot, one in found.items():
            if one is None:
                # An old map beside a new query would be taken for its answer.
                layers.empty_map(slide, slot)
            else:
                name = f"similarity: {loaded[slot].label}"
                layers.show_map(slide, slot, name, one.heatmap, thumbnail=False)
                self._soon.start()
        self._draw_difference(slide, loaded, found)
        there = [slot for slot in before or SLOTS if layers.map_of(slide, slot)]
        if fresh and there and len(self.shown()) > 1:
            # Maps over each other would mix their colours.
            layers.show_only(slide, there[0])
        self._mark(slide, found, examples)

    def _refresh_thumbnails(self) -> None:
        slide, layers = self._session.slide, self._session.layers
        for slot in self.shown() if slide is not None else ():
            if slide is not None and (layer := layers.map_of(slide, slot)) is not None:
                layer.refresh(data_displayed=False, highlight=False, extent=False)

    def _draw_difference(
        self,
        slide: Layer,
        loaded: Mapping[str, Loaded],
        found: Mapping[str, Answer | None],
    ) -> None:
        from napari_mcm.core.heatmaps import difference

        self.problem, self.difference = "", None
        layers = self._session.layers
        before, after = (found.get(slot) for slot in self.pair or ("", ""))
        if self.pair is None or before is None or after is None:
            layers.empty_map(slide, DIFFERENCE)
            return
        try:
            heatmap = self.difference = difference(before.heatmap, after.heatmap)
        except McmError as error:
            self.problem = str(error)
            layers.empty_map(slide, DIFFERENCE)
            return
        first, second = (loaded[slot].label for slot in self.pair)
        name = f"difference: {second} − {first}"
        layers.show_map(slide, DIFFERENCE, name, heatmap).name = name

    def _mark(
        self, slide: Layer, found: Mapping[str, Answer | None], examples: Examples
    ) -> None:
        for one in found.values():
            if one is not None and one.like:
                grid = one.heatmap.grid
                # Those of a region have its outline.
                pointed = {grid.index_at(*point) for point in examples.like}
                like = [patch for patch in one.like if patch in pointed]
                self._session.layers.mark_examples(slide, grid, like, one.unlike)
                return
        self._session.layers.unmark()
