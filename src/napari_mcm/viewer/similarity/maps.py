"""The layers of a query: one map per encoder, their difference, and markers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer

from napari_mcm.core.errors import McmError
from napari_mcm.core.heatmaps.examples import Examples
from napari_mcm.core.heatmaps.heatmap import name_context
from napari_mcm.viewer.app.features import SLOTS

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.viewer.app.features import LoadedFeatures
    from napari_mcm.viewer.app.session import Session
    from napari_mcm.viewer.similarity.query import QueryResult


DIFFERENCE = "difference"
"""Slot of the map of the difference between two encoders."""

THUMBNAIL_MS = 300
"""Delay until the thumbnails in the layer list are updated, in milliseconds."""


class QueryMaps:
    """Draws the maps and markers of a query.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    pair : tuple of str or None
        Slots whose difference is drawn, before and after; None for no difference.
    difference : Heatmap or None
        The difference, after minus before.
    problem : str
        Reason why the difference cannot be drawn; empty otherwise.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.pair: tuple[str, str] | None = None
        self.difference: Heatmap | None = None
        self.problem = ""
        self._names: dict[int, str] = {}
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(THUMBNAIL_MS)
        self._timer.timeout.connect(self._refresh_thumbnails)

    def shown(self) -> list[str]:
        """Return the slots whose maps are visible."""
        slide, layers = self._session.slide, self._session.layers
        if slide is None:
            return []
        maps = {slot: layers.map_of(slide, slot) for slot in (*SLOTS, DIFFERENCE)}
        return [slot for slot, layer in maps.items() if layer and layer.visible]

    def clear(self) -> None:
        """Clear all maps and markers, but keep their layers."""
        self.difference, self.problem = None, ""
        slide, layers = self._session.slide, self._session.layers
        if slide is not None:
            for slot in (*SLOTS, DIFFERENCE):
                layers.empty_map(slide, slot)
        layers.unmark()

    def draw(
        self,
        slide: Layer,
        loaded: Mapping[str, LoadedFeatures],
        results: Mapping[str, QueryResult | None],
        examples: Examples,
    ) -> None:
        """Draw the results of a query, and mark its examples.

        Parameters
        ----------
        slide : Layer
            Layer of the active slide.
        loaded : mapping
            Slot to features.
        results : mapping
            Slot to result; None for a slot without one.
        examples : Examples
            Examples of the query.
        """
        layers, before = self._session.layers, self.shown()
        fresh = [slot for slot in results if layers.map_of(slide, slot) is None]
        for slot, result in results.items():
            if result is None:
                # An old map must not be mistaken for a result of the new query.
                layers.empty_map(slide, slot)
            else:
                label = loaded[slot].label
                name = name_context(
                    f"similarity: {label}", result.heatmap.neighbourhood
                )
                self._name(
                    layers.show_map(slide, slot, name, result.heatmap, thumbnail=False),
                    name,
                )
                self._timer.start()
        self._draw_difference(slide, loaded, results)
        available = [slot for slot in before or SLOTS if layers.map_of(slide, slot)]
        if fresh and available and len(self.shown()) > 1:
            # Show one map only: colours of overlapping maps would mix.
            layers.show_only(slide, available[0])
        self._mark(slide, results, examples)

    def _name(self, layer: Layer, name: str) -> None:
        """Name a map after what it shows, unless the user named it."""
        # By id: napari numbers layers of the same name, so the name is no key.
        given = self._names.get(id(layer))
        if given is None:
            self._names[id(layer)] = name
        elif given != name:
            if layer.name.startswith(given):
                layer.name = name
            self._names[id(layer)] = name

    def _refresh_thumbnails(self) -> None:
        slide, layers = self._session.slide, self._session.layers
        for slot in self.shown() if slide is not None else ():
            if slide is not None and (layer := layers.map_of(slide, slot)) is not None:
                layer.refresh(data_displayed=False, highlight=False, extent=False)

    def _draw_difference(
        self,
        slide: Layer,
        loaded: Mapping[str, LoadedFeatures],
        results: Mapping[str, QueryResult | None],
    ) -> None:
        from napari_mcm.core.heatmaps import difference

        self.problem, self.difference = "", None
        layers = self._session.layers
        before, after = (results.get(slot) for slot in self.pair or ("", ""))
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
        name = name_context(f"difference: {second} − {first}", heatmap.neighbourhood)
        layers.show_map(slide, DIFFERENCE, name, heatmap).name = name

    def _mark(
        self,
        slide: Layer,
        results: Mapping[str, QueryResult | None],
        examples: Examples,
    ) -> None:
        for result in results.values():
            if result is not None and result.like:
                grid = result.heatmap.grid
                # Patches of regions are not marked: regions have outlines.
                pointed = {grid.index_at(*point) for point in examples.like}
                like = [patch for patch in result.like if patch in pointed]
                self._session.layers.mark_examples(slide, grid, like, result.unlike)
                return
        self._session.layers.unmark()
