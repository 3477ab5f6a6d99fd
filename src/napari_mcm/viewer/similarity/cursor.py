"""The map of what is under the cursor, while a key is held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from napari_mcm.core.heatmaps.examples import Examples
from napari_mcm.viewer.similarity.maps import DIFFERENCE
from napari_mcm.viewer.similarity.query import (
    QueryResult,
    QuerySpec,
    query_all,
    slide_of_features,
)

if TYPE_CHECKING:
    from napari_mcm.viewer.app.background import BackgroundWorker
    from napari_mcm.viewer.app.features import LoadedFeatures
    from napari_mcm.viewer.similarity.controller import SimilarityController

_HOVER = "hover"

_Preview = tuple[
    QuerySpec, Mapping[str, "LoadedFeatures"], dict[str, "QueryResult | None"]
]


class CursorPreview:
    """Draws the maps of the place under the cursor; the query stays as it is.

    Parameters
    ----------
    queries : SimilarityController
        The query and its maps.
    worker : BackgroundWorker
        Computes the maps.
    """

    def __init__(self, queries: SimilarityController, worker: BackgroundWorker) -> None:
        self._queries, self._worker = queries, worker

    def stop(self) -> None:
        """Drop the map that is being computed."""
        self._worker.drop(_HOVER)

    def end(self) -> None:
        """Show the maps of the query again."""
        self.stop()
        if self._queries.drawn.previewing:
            self._queries.redraw()

    def follow(self, x: float, y: float) -> None:
        """Show the maps of the position under the cursor.

        If the cursor moves faster than maps are computed, positions are skipped.

        Parameters
        ----------
        x, y : float
            Position in level-0 pixels.
        """
        queries = self._queries
        loaded, drawn = queries.loaded(), queries.drawn
        visible = [slot for slot in drawn.shown() if slot in loaded]
        if drawn.pair is not None and DIFFERENCE in drawn.shown():
            visible += [slot for slot in drawn.pair if slot not in visible]
        if loaded and queries.is_ready(loaded):
            wanted = {slot: loaded[slot] for slot in visible or list(loaded)[:1]}
            slide = slide_of_features(next(iter(wanted.values())))
            around, limits = queries.neighbourhood, queries.limits
            spec = QuerySpec(Examples(((x, y),)), slide, neighbourhood=around)
            self._worker.follow(
                _HOVER,
                lambda: (spec, wanted, query_all(wanted, spec, limits)),
                self._show,
                queries.session.report_error,
            )

    def _show(self, preview: _Preview) -> None:
        spec, loaded, results = preview
        session = self._queries.session
        # Features may have been replaced while the preview was computed.
        current = all(session.features(slot) is one for slot, one in loaded.items())
        if session.slide is not None and current and any(results.values()):
            self._queries.drawn.draw(
                session.slide, loaded, results, spec.examples, preview=True
            )
