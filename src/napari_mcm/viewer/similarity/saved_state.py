"""The query of a slide as it is stored, and run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args
from weakref import ref

import numpy as np
from psygnal import Signal

from napari_mcm.core.heatmaps.examples import Examples
from napari_mcm.core.heatmaps.similarity_index import Pool
from napari_mcm.core.project import SavedQuery, SlideState
from napari_mcm.core.project.model import SavedContext, SavedDirections
from napari_mcm.viewer.similarity.query import QuerySpec

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.viewer.similarity.context import SimilarityContext


class SavedQueries:
    """Takes the query of the current slide for storage, and runs stored ones.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.

    Attributes
    ----------
    has_query : bool
        Whether there are examples, on whatever slide.
    changed : Signal
        Emitted when the query, its context or the threshold changed.
    """

    changed = Signal()

    def __init__(self, context: SimilarityContext) -> None:
        self._context = context
        self._arriving: tuple[QuerySpec, SlideState] | None = None
        self._had_query = False
        self._cleared_on: ref[Layer] | None = None
        context.query_changed.connect(self._query_changed)
        context.areas.changed.connect(self._relay)
        context.queries.neighbourhood_changed.connect(self._relay)

    def _relay(self) -> None:
        self.changed.emit()

    @property
    def has_query(self) -> bool:
        """Whether there are examples, on whatever slide."""
        spec = self._context.queries.spec
        return bool(len(spec.examples) or spec.directions)

    def take(self, slide: str, before: SlideState) -> dict[str, Any]:
        """Return query, threshold, context and visible map of the current slide.

        A query of another slide that is run on this one does not replace this slide's own.

        Parameters
        ----------
        slide : str
            Fingerprint of the slide.
        before : SlideState
            The slide's earlier state.
        """
        queries, areas = self._context.queries, self._context.areas
        spec = queries.spec
        if not self.has_query:
            # Cleared here, or on another slide: then this one keeps its own.
            here = self._context.session.slide
            cleared = self._cleared_on is not None and self._cleared_on() is here
            return {"query": None, "threshold": None, "shown": ""} if cleared else {}
        own = before.query is not None and before.query.slide == slide
        if self._context.query is None or (spec.slide != slide and own):
            return {}
        shown = queries.shown_map()
        made = _save(spec, here=spec.slide == slide)
        threshold = float(areas.threshold)
        return {
            "query": before.query if _is_same(made, before.query) else made,
            "threshold": threshold if np.isfinite(threshold) else None,
            "shown": shown[0] if shown is not None else "",
            "context": made.context,
        }

    def restore(self, state: SlideState) -> bool:
        """Run a saved query on the current slide; return whether it can be run.

        Parameters
        ----------
        state : SlideState
            The state, whose encoders and patch grids are there.
        """
        spec = None if state.query is None else _load(state.query)
        if spec is None:
            return False
        self._arriving = spec, state
        self._context.queries.run(spec)
        return True

    def _query_changed(self) -> None:
        """Set the threshold once the query that it belongs to is drawn."""
        self._note_clearing()
        query, arriving = self._context.query, self._arriving
        if arriving is not None and query is not None:
            self._arriving = None
            spec, state = arriving
            if query.spec.examples == spec.examples and query.spec.slide == spec.slide:
                self._finish(state)
        self.changed.emit()

    def _note_clearing(self) -> None:
        slide = self._context.session.slide
        if self.has_query:
            self._had_query, self._cleared_on = True, None
        elif self._had_query:
            self._had_query = False
            self._cleared_on = None if slide is None else ref(slide)

    def _finish(self, state: SlideState) -> None:
        queries, areas = self._context.queries, self._context.areas
        if queries.maps().get(state.shown) is not None:
            queries.show(state.shown)
        heatmap = areas.heatmap
        if heatmap is not None and state.threshold is not None:
            low, high = heatmap.limits
            if low <= state.threshold <= high:
                areas.set_threshold(state.threshold)


def _save(spec: QuerySpec, here: bool) -> SavedQuery:
    """Return a query for storage; its vectors only where its slide is another one."""
    directions = () if here else tuple(spec.directions.items())
    return SavedQuery(
        slide=spec.slide,
        name=spec.name,
        like=spec.examples.like,
        unlike=spec.examples.unlike,
        regions=spec.examples.regions,
        pool=spec.examples.pool,
        context=SavedContext.of(spec.neighbourhood),
        directions=tuple(
            SavedDirections(fingerprint=mark, vectors=_rows(vectors))
            for mark, vectors in directions
        ),
    )


def _rows(vectors: Any) -> tuple[tuple[float, ...], ...]:
    # As many digits as a cosine of float32 features can show.
    return tuple(tuple(float(f"{v:.8g}") for v in row) for row in vectors.tolist())


def _load(saved: SavedQuery) -> QuerySpec | None:
    """Return a stored query; None if a later version made it in a way unknown here."""
    around = saved.context.neighbourhood
    if around is None or saved.pool not in get_args(Pool):
        return None
    examples = Examples(saved.like, saved.unlike, saved.regions, saved.pool)  # type: ignore[arg-type]
    directions = {
        one.fingerprint: np.asarray(one.vectors, np.float32)
        for one in saved.directions
        if len({len(row) for row in one.vectors}) == 1
    }
    if not len(examples) and not directions:
        return None
    return QuerySpec(examples, saved.slide, saved.name, directions, around)


def _is_same(one: SavedQuery, other: SavedQuery | None) -> bool:
    """Compare what this version knows: what it does not know is kept."""
    if other is None:
        return False
    return all(
        getattr(one, name) == getattr(other, name) for name in SavedQuery.model_fields
    )
