"""Which of a query's maps is visible, and which difference is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mcm.core.heatmaps.query import fingerprint_of
from napari_mcm.viewer.app.features import SLOTS
from napari_mcm.viewer.similarity.maps import DIFFERENCE, QueryMaps

if TYPE_CHECKING:
    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.viewer.app.features import LoadedFeatures
    from napari_mcm.viewer.similarity.context import SimilarityContext
    from napari_mcm.viewer.similarity.query import Query


class MapChoice:
    """Chooses the visible map of the query.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.

    Attributes
    ----------
    query : Query or None
        The query that the maps show; None if there is none.
    drawn : QueryMaps
        The maps, their difference and the markers.
    session : Session
        Session of the viewer.
    """

    query: Query | None

    def __init__(self, context: SimilarityContext) -> None:
        self._context = context
        self.session = self._session = context.session
        self.drawn = QueryMaps(context.session)

    def maps(self) -> dict[str, Heatmap | None]:
        """Return the maps of the query by slot."""
        return self.query.maps if self.query is not None else {}

    def loaded(self) -> dict[str, LoadedFeatures]:
        """Return the features of the current slide by slot."""
        found = {slot: self._session.features(slot) for slot in SLOTS}
        return {slot: loaded for slot, loaded in found.items() if loaded is not None}

    def encoders(self) -> set[str]:
        """Return the fingerprints of the encoders with features of the active slide."""
        loaded = self.loaded().values()
        return {fingerprint_of(one.index.features.encoder) for one in loaded}

    def has_features(self) -> bool:
        """Return whether the active slide has features."""
        return bool(self.loaded())

    def compare(self, pair: tuple[str, str] | None) -> None:
        """Show the difference of the maps of two slots.

        Parameters
        ----------
        pair : tuple of str or None
            Slots before and after; None to show no difference.
        """
        self.drawn.pair = pair
        self.rerun()
        slide = self._session.slide
        if slide is not None and pair is not None and not self.drawn.problem:
            self._session.map_asked.emit("similarity")
            self._session.layers.show_only(slide, DIFFERENCE)
            self._context.query_changed.emit()

    def rerun(self) -> None:
        """Run the query again on the current slide and features."""
        raise NotImplementedError

    def switch_difference(self) -> None:
        """Show the difference of the first two encoders, or hide it."""
        if self.drawn.pair is not None:
            first = self.drawn.pair[0]
            self.compare(None)
            self.show(first)
            return
        available = [slot for slot, heatmap in self.maps().items() if heatmap]
        if len(available) > 1:
            self.compare((available[0], available[1]))
        else:
            self._session.report_error("A difference needs two encoders with features")

    def shown_map(self) -> tuple[str, Heatmap] | None:
        """Return slot and heatmap of the uppermost visible map; else of the first map."""
        maps = self.maps()
        for slot in [*reversed(self.drawn.shown()), *self.drawn.hidden(), *SLOTS]:
            if (heatmap := maps.get(slot)) is not None:
                return slot, heatmap
        return None

    def show(self, slot: str) -> None:
        """Show one map and hide the others."""
        if self._session.slide is not None:
            self._session.map_asked.emit("similarity")
            self._session.layers.show_only(self._session.slide, slot)
            self._context.query_changed.emit()

    def show_next(self) -> None:
        """Show the next encoder's map; the difference comes last."""
        slide, layers = self._session.slide, self._session.layers
        if slide is None or self.query is None:
            return
        available = [slot for slot, heatmap in self.query.maps.items() if heatmap]
        if self.drawn.pair is not None and layers.map_of(slide, DIFFERENCE) is not None:
            available.append(DIFFERENCE)
        if available:
            now = [slot for slot in self.drawn.shown() if slot in available]
            at = available.index(now[-1]) + 1 if now else 0
            self.show(available[at % len(available)])
