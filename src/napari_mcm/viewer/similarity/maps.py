"""The layers of a query: one map per encoder, their difference, and markers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from napari_mcm.core.errors import McmError
from napari_mcm.core.heatmaps.examples import Examples
from napari_mcm.viewer.app.features import SLOTS
from napari_mcm.viewer.layers.caption import SEPARATOR
from napari_mcm.viewer.layers.metadata import owner_of
from napari_mcm.viewer.layers.timers import single_shot

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.viewer.app.features import LoadedFeatures
    from napari_mcm.viewer.app.session import Session
    from napari_mcm.viewer.similarity.query import QueryResult


DIFFERENCE = "difference"
"""Slot of the map of the difference between two encoders."""

AT_CURSOR = "at the cursor"
"""What a map shows while it follows the cursor."""

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
    previewing : bool
        Whether the maps show what is under the cursor, and not the query.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.pair: tuple[str, str] | None = None
        self.difference: Heatmap | None = None
        self.problem = ""
        self.previewing = False
        self._asked = AT_CURSOR
        self._titles: WeakKeyDictionary[Layer, tuple[str, str]] = WeakKeyDictionary()
        session.layers.slides_changed.connect(self._rename)
        self._timer = single_shot(THUMBNAIL_MS, self._refresh_thumbnails)

    def shown(self) -> list[str]:
        """Return the slots whose maps are visible."""
        slide, layers = self._session.slide, self._session.layers
        if slide is None:
            return []
        maps = {slot: layers.map_of(slide, slot) for slot in (*SLOTS, DIFFERENCE)}
        return [slot for slot, layer in maps.items() if layer and layer.visible]

    def hidden(self) -> list[str]:
        """Return the slots whose maps the user switched off, see ``MapLook``."""
        slide, layers = self._session.slide, self._session.layers
        if slide is None:
            return []
        maps = {slot: layers.map_of(slide, slot) for slot in SLOTS}
        return [slot for slot, x in maps.items() if x and layers.look.is_hidden(x)]

    def clear(self, slide: Layer | None = None) -> None:
        """Clear maps and markers, but keep their layers.

        Parameters
        ----------
        slide : Layer, optional
            Layer of the slide whose maps are cleared; by default those of all slides.
        """
        self.difference, self.problem, self.previewing = None, "", False
        layers = self._session.layers
        for one in layers.slides() if slide is None else (slide,):
            for slot in (*SLOTS, DIFFERENCE):
                layers.empty_map(one, slot)
        layers.unmark()

    def draw(
        self,
        slide: Layer,
        loaded: Mapping[str, LoadedFeatures],
        results: Mapping[str, QueryResult | None],
        examples: Examples,
        asked: str = "",
        preview: bool = False,
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
        asked : str
            The query in a few words, for the caption on the canvas.
        preview : bool
            Whether the query is what is under the cursor.
        """
        layers, before = self._session.layers, self.shown()
        self.previewing, self._asked = preview, asked or AT_CURSOR
        fresh = [slot for slot in results if layers.map_of(slide, slot) is None]
        self._draw_maps(slide, loaded, results)
        if preview:
            # Other encoders are not asked at each move, and their maps would be old.
            for slot in SLOTS:
                if slot not in results:
                    layers.empty_map(slide, slot)
        self._draw_difference(slide, loaded, results)
        available = [slot for slot in before or SLOTS if layers.map_of(slide, slot)]
        if fresh and available and len(self.shown()) > 1:
            # Show one map only: colours of overlapping maps would mix.
            layers.show_only(slide, available[0])
        self._mark(slide, results, examples)

    def draw_other(
        self,
        slide: Layer,
        loaded: Mapping[str, LoadedFeatures],
        results: Mapping[str, QueryResult | None],
        asked: str,
    ) -> None:
        """Draw the results of a query on a slide that is not the active one.

        Parameters
        ----------
        slide : Layer
            Layer of the slide.
        loaded, results, asked
            As :meth:`draw` takes them.
        """
        before, self._asked = self._asked, asked
        fresh = [s for s in results if self._session.layers.map_of(slide, s) is None]
        self._draw_maps(slide, loaded, results)
        self._session.layers.empty_map(slide, DIFFERENCE)
        maps = {slot: self._session.layers.map_of(slide, slot) for slot in results}
        seen = [slot for slot, layer in maps.items() if layer and layer.visible]
        if fresh and len(seen) > 1:
            self._session.layers.show_only(slide, seen[0])
        self._asked = before

    def _draw_maps(
        self,
        slide: Layer,
        loaded: Mapping[str, LoadedFeatures],
        results: Mapping[str, QueryResult | None],
    ) -> None:
        for slot, result in results.items():
            if result is None:
                # An old map must not be mistaken for a result of the new query.
                self._session.layers.empty_map(slide, slot)
            else:
                self._show(slide, slot, loaded[slot].label, result.heatmap)
                self._timer.start()

    def _show(self, slide: Layer, slot: str, label: str, heatmap: Heatmap) -> None:
        """Show a map in a layer whose name and caption say what it is."""
        context = heatmap.neighbourhood.describe()
        kind = "difference" if slot == DIFFERENCE else "similarity"
        title = f"{kind}: {label}"
        layer = self._session.layers.show_map(
            slide,
            slot,
            f"{title} ({slide.name}, {context})",
            heatmap,
            thumbnail=slot == DIFFERENCE,
            caption=SEPARATOR.join((label, context, self._asked)),
        )
        self._titles[layer] = title, context

    def _rename(self) -> None:
        """Name the maps after their slides, whose names the user changed."""
        for layer, (title, context) in self._titles.items():
            if (slide := owner_of(layer)) is not None:
                name = f"{title} ({slide.name}, {context})"
                self._session.layers.name_map(layer, name)

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
        self._show(slide, DIFFERENCE, f"{second} − {first}", heatmap)

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
