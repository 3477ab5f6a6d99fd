"""The query on slides that are shown beside the current one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from napari_mcm.core.heatmaps.color_limits import Limits
from napari_mcm.core.heatmaps.query import fingerprint_of
from napari_mcm.viewer.similarity.query import QueryResult, query_all
from napari_mcm.viewer.similarity.query_text import name_query

if TYPE_CHECKING:
    from napari_mcm.viewer.app.background import BackgroundWorker
    from napari_mcm.viewer.app.features import LoadedFeatures
    from napari_mcm.viewer.similarity.controller import SimilarityController
    from napari_mcm.viewer.similarity.query import Query

_OTHERS = "others"


class OtherSlides:
    """Draws the query on all slides that are side by side with the current one.

    Their maps would otherwise show an earlier query beside the map of this one. Only
    encoders of the current slide answer: the dock and the caption name no others.

    Parameters
    ----------
    queries : SimilarityController
        The query and its maps.
    worker : BackgroundWorker
        Computes the maps.
    """

    def __init__(self, queries: SimilarityController, worker: BackgroundWorker) -> None:
        self._queries, self._worker = queries, worker

    def ask(self, query: Query, limits: Limits) -> None:
        """Run a query on the other slides in the background, and draw it.

        Parameters
        ----------
        query : Query
            The query of the current slide.
        limits : Limits
            How the range of colours is chosen.
        """
        session, drawn = self._queries.session, self._queries.drawn
        if not session.side_by_side:
            return
        others = [s for s in session.layers.slides() if s is not session.slide]
        asked = {slide: session.features_of(slide) for slide in others}
        spec, named = query.spec, self._queries.encoders()

        def answers(
            loaded: Mapping[str, LoadedFeatures],
        ) -> dict[str, QueryResult | None]:
            encoders = {
                slot: fingerprint_of(one.index.features.encoder)
                for slot, one in loaded.items()
            }
            able = {s: one for s, one in loaded.items() if encoders[s] in named}
            return dict.fromkeys(loaded) | query_all(able, spec, limits)

        def show(found: list[dict[str, QueryResult | None]]) -> None:
            if self._queries.query is not query or not session.side_by_side:
                return
            for (slide, loaded), results in zip(asked.items(), found, strict=True):
                if slide in session.layers:
                    here = any(spec.is_on(one) for one in loaded.values())
                    name = name_query(query, here)
                    drawn.draw_other(slide, loaded, results, name)

        self._worker.follow(
            _OTHERS,
            lambda: [answers(loaded) for loaded in asked.values()],
            show,
            session.report_error,
        )
