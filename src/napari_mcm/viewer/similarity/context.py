"""What the dock *Similarity* adds to a session: query, clicks, keys and maps."""

from __future__ import annotations

from functools import partial

import numpy as np
from psygnal import Signal

from napari_mcm.viewer.app.found import found_features
from napari_mcm.viewer.app.labels import PatchChoice
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.app.shared_query import (
    SharedQuery,
    encoder_key,
    query_of,
)
from napari_mcm.viewer.canvas.tools import CanvasTools
from napari_mcm.viewer.layers.glyphs import prepare_glyphs
from napari_mcm.viewer.layers.mouse import ClickListener
from napari_mcm.viewer.project.memory import memory_of
from napari_mcm.viewer.similarity.area import AreaController, add_result
from napari_mcm.viewer.similarity.controller import SimilarityController
from napari_mcm.viewer.similarity.cross_slide import CrossSlideSearch
from napari_mcm.viewer.similarity.cursor_value import CursorValue
from napari_mcm.viewer.similarity.finer import FinerMaps
from napari_mcm.viewer.similarity.patch_scores import PatchScores
from napari_mcm.viewer.similarity.query import Query
from napari_mcm.viewer.similarity.regions import RegionController
from napari_mcm.viewer.similarity.saved_state import SavedQueries
from napari_mcm.viewer.similarity.shortcuts import QueryShortcuts
from napari_mcm.viewer.similarity.top_patches import TopPatches

_QUERY = "query"
"""Name of the query's examples among what can be undone."""


class SimilarityContext:
    """The query of one viewer, and the objects that change or show it.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    queries : SimilarityController
        The query and its maps.
    clicks : ClickListener
        Clicks on the slide.
    keys : QueryShortcuts
        Keyboard shortcuts on the canvas.
    areas : AreaController
        The area above a similarity threshold.
    gallery : TopPatches
        Thumbnails of the most similar patches.
    regions : RegionController
        Regions that the user draws as examples.
    cross_slide : CrossSlideSearch
        The search over other slides.
    at_cursor : CursorValue
        The value under the cursor, in napari's status bar.
    scores : PatchScores
        The scores of all patches as tables for napari and other plugins.
    finer : FinerMaps
        Maps of the view at half a patch's step.
    query_changed : Signal
        Emitted when the query or its visible map changed.
    no_patch_at_click : Signal
        Emitted when a click is on no patch.
    no_features_at_click : Signal
        Emitted when a click is on a slide without features.
    """

    query_changed = Signal()
    no_patch_at_click = Signal()
    no_features_at_click = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self.queries = queries = SimilarityController(self)
        self.clicks = ClickListener(
            session.viewer,
            session.slide_at,
            queries.point,
            queries.cursor.follow,
            queries.speculate,
            queries.cancel_speculation,
            session.choose_slide,
            queries.cursor.end,
        )
        self.keys = QueryShortcuts(session.viewer, self.clicks)
        self.keys.bind(queries)
        self._share_undo()
        session.labels.query = QueryChoices(self)
        tools = session.part(CanvasTools)
        self.keys.on("overview", tools.switch_overview)
        look = session.layers.look
        self.keys.on("map", lambda: look.use_visible(not look.visible))
        tools.threshold_stepped.connect(self.keys.step_threshold)
        self.areas, self.gallery = AreaController(self), TopPatches(self)
        self.regions, self.cross_slide = RegionController(self), CrossSlideSearch(self)
        self.scores, self.finer = PatchScores(self), FinerMaps(self)
        self.keys.on("result", partial(add_result, self))
        self.at_cursor = CursorValue(self)
        self.query_changed.connect(self.at_cursor.refresh)
        self.query_changed.connect(self._share)
        session.slide_chosen.connect(queries.slide_chosen)
        session.features_changed.connect(self._features_changed)
        session.side_by_side_changed.connect(queries.rerun)
        session.neighbour_changed.connect(queries.rerun)
        session.entered.connect(self._listen)
        session.left.connect(self._stop_listening)
        queries.slide_chosen()
        self._listen()
        self._saved = SavedQueries(self)
        memory_of(session).use_queries(self._saved)
        # After all who follow features: those that exist are loaded at once.
        found_features(session)
        prepare_glyphs(session.viewer)

    def _share_undo(self) -> None:
        """Let the keys of undo and redo change what was changed last, labels, too."""
        order, queries = self.session.order, self.queries
        order.register(_QUERY, queries)
        queries.history.added.connect(partial(order.note, _QUERY))
        self.keys.on("undo", order.undo)
        self.keys.on("back", order.undo)
        self.keys.on("redo", order.redo)

    @property
    def query(self) -> Query | None:
        """The query that the maps show; None if there is none."""
        return self.queries.query

    def _share(self) -> None:
        """Let other docks ask the query of their patches."""
        results = {} if self.query is None else self.query.results
        loaded = {slot: self.session.features(slot) for slot in results}
        answers = {
            encoder_key(one.index.features.encoder): result
            for slot, one in loaded.items()
            if one is not None and (result := results[slot]) is not None
        }
        query_of(self.session).use(
            SharedQuery(
                {key: one.directions for key, one in answers.items()},
                {key: one.heatmap.limits for key, one in answers.items()},
                self.queries.neighbourhood,
            )
            if answers
            else None
        )

    def _features_changed(self, slot: str) -> None:
        """Run the query on new features, and show their map."""
        self.queries.prepare()
        self.queries.rerun(lambda: self._show_new(slot))

    def _show_new(self, slot: str) -> None:
        if self.query is not None and self.query.maps.get(slot):
            self.queries.show(slot)

    def _listen(self) -> None:
        self.clicks.attach()
        self.keys.attach()
        self.at_cursor.attach()
        self.queries.prepare()

    def _stop_listening(self) -> None:
        self.clicks.detach()
        self.keys.detach()
        self.at_cursor.detach()
        self.queries.preparation.activate(())


class QueryChoices:
    """Patches of the query that can be labelled: those above the threshold, examples.

    Parameters
    ----------
    context : SimilarityContext
        The query of the viewer.
    """

    def __init__(self, context: SimilarityContext) -> None:
        self._context = context

    def above(self) -> PatchChoice | None:
        """Return the patches above the threshold; None without a map."""
        areas = self._context.areas
        heatmap = areas.heatmap
        if heatmap is None:
            return None
        with np.errstate(invalid="ignore"):
            rows = np.flatnonzero(heatmap.values >= areas.threshold)
        return PatchChoice(heatmap.grid, rows)

    def examples(self, like: bool) -> PatchChoice | None:
        """Return the patches that are similar or dissimilar examples; None without any."""
        query, loaded = self._context.query, self._context.queries.loaded()
        if query is None or not query.here or not loaded:
            return None
        grid = next(iter(loaded.values())).index.features.grid
        patches = query.spec.examples.patches(grid)
        rows = [] if patches is None else patches[0 if like else 1]
        return PatchChoice(grid, rows) if rows else None


def context_of(session: Session) -> SimilarityContext:
    """Return the similarity context of a session, and create it on first use."""
    return session.part(SimilarityContext)
