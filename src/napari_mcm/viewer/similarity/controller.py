"""The query of one viewer: its examples, its results and its maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_mcm.core.errors import McmError
from napari_mcm.core.heatmaps.color_limits import Limits
from napari_mcm.core.heatmaps.examples import Examples, Point, Polygon
from napari_mcm.core.heatmaps.query import fingerprint_of
from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.app.features import SLOTS
from napari_mcm.viewer.layers.mouse import ClickMode
from napari_mcm.viewer.similarity.lookahead import SpeculativeQuery
from napari_mcm.viewer.similarity.maps import DIFFERENCE, QueryMaps
from napari_mcm.viewer.similarity.query import (
    QueryResult,
    QuerySpec,
    query_all,
    slide_of_features,
)

if TYPE_CHECKING:
    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.core.heatmaps.similarity_index import Pool
    from napari_mcm.viewer.app.features import LoadedFeatures
    from napari_mcm.viewer.similarity.context import SimilarityContext

_MOST_UNDO = 100

_HOVER = "hover"


@dataclass(frozen=True, eq=False)
class Query:
    """A query and its results.

    Attributes
    ----------
    spec : QuerySpec
        Examples and query vectors.
    here : bool
        Whether the examples are on the active slide.
    um : tuple of float or None
        Position (x, y) of the newest example in microns; None if it is on another slide
        or the resolution is unknown.
    results : mapping
        Slot to result; None for a slot without features at the examples.
    """

    spec: QuerySpec
    here: bool
    um: tuple[float, float] | None
    results: Mapping[str, QueryResult | None]

    @property
    def xy(self) -> Point:
        """Position (x, y) of the newest example in level-0 pixels."""
        return _newest(self.spec.examples)

    @property
    def maps(self) -> dict[str, Heatmap | None]:
        """Slot to heatmap; None for a slot without a result."""
        return {
            slot: None if one is None else one.heatmap
            for slot, one in self.results.items()
        }


class SimilarityController:
    """Runs queries on the features of the active slide, and draws their maps.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.

    Attributes
    ----------
    query : Query or None
        The query that the maps show; None if there is none.
    limits : Limits
        How the range of colours is chosen.
    pool : Pool
        How several examples are combined.
    drawn : QueryMaps
        The maps, their difference and the markers.
    """

    def __init__(self, context: SimilarityContext) -> None:
        session = context.session
        self._context = context
        self._session = session
        self._query: Query | None = None
        self.limits: Limits = "encoder"
        self.pool: Pool = "mean"
        self.drawn = QueryMaps(session)
        self._spec = QuerySpec()
        self._undo_stack: list[Examples] = []
        self._speculation = SpeculativeQuery()
        self._hover = BackgroundWorker()

    @property
    def query(self) -> Query | None:
        """The query that the maps show; None if there is none."""
        return self._query

    @query.setter
    def query(self, query: Query | None) -> None:
        self._query = query
        self._session.has_query = query is not None

    @property
    def examples(self) -> Examples:
        """The examples of the query, which may be on another slide."""
        return self._spec.examples

    @property
    def spec(self) -> QuerySpec:
        """Examples and query vectors, which can be run on other slides."""
        return self._spec

    def point(self, x: float, y: float, mode: ClickMode = "new") -> None:
        """Query by the patch at a position, or add the patch to the examples.

        Parameters
        ----------
        x, y : float
            Position in level-0 pixels from the slide's upper left corner.
        mode : {"new", "like", "unlike"}
            A new query, or a similar or dissimilar example to add.
        """
        self._hover.drop(_HOVER)
        examples = self._examples_with(x, y, mode)
        if examples is None:
            self._session.report_error("Click on a similar example first")
        else:
            self._apply(examples)

    def speculate(self, x: float, y: float, mode: ClickMode = "new") -> None:
        """Start the query of a press of the button, which will probably be a click.

        Parameters
        ----------
        x, y, mode
            As :meth:`point` takes them.
        """
        examples, loaded = self._examples_with(x, y, mode), self._loaded()
        if examples is not None and loaded:
            spec = QuerySpec(examples, *self._identity())
            self._speculation.begin(loaded, spec, self.limits)

    def cancel_speculation(self) -> None:
        """Cancel the query that :meth:`speculate` started: the press became a drag."""
        self._speculation.cancel()

    def _examples_with(self, x: float, y: float, mode: ClickMode) -> Examples | None:
        """Return the examples with a new one; None for a dissimilar one on its own."""
        here = self.query is not None and self.query.here
        if mode == "unlike" and not (here and len(self.examples)):
            return None
        start = self.examples if here and mode != "new" else Examples(pool=self.pool)
        return start.more((x, y), like=mode != "unlike")

    def use_regions(self, polygons: Sequence[Polygon]) -> None:
        """Query by the patches in regions, and by the current point examples.

        Parameters
        ----------
        polygons : sequence of Polygon
            Outlines of the regions, (x, y) in level-0 pixels.
        """
        here = self.query is not None and self.query.here
        points = self.examples if here else Examples(pool=self.pool)
        if points.regions == () and polygons:
            # The first region starts a new query.
            points = Examples(pool=self.pool)
        self._apply(replace(points, regions=tuple(polygons)))

    def use_pool(self, pool: Pool) -> None:
        """Choose how examples are combined: their mean, or the nearest one."""
        self.pool = pool
        if self.query is not None and self.query.here:
            self._apply(replace(self.examples, pool=pool))

    def use_limits(self, limits: Limits) -> None:
        """Choose how the range of colours is determined."""
        self.limits = limits
        self.rerun()

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
            self._session.layers.show_only(slide, DIFFERENCE)
            self._context.query_changed.emit()

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

    def maps(self) -> dict[str, Heatmap | None]:
        """Return the maps of the query by slot."""
        return self.query.maps if self.query is not None else {}

    def has_features(self) -> bool:
        """Return whether the active slide has features."""
        return bool(self._loaded())

    def undo(self) -> None:
        """Remove the newest example."""
        if self._undo_stack:
            before = self._undo_stack.pop()
            if not len(before):
                self.clear()
            elif self._run_query(replace(self._spec, examples=before, directions={})):
                self._context.query_changed.emit()

    def clear(self) -> None:
        """Remove all examples, and their maps."""
        self._hover.drop(_HOVER)
        self._spec, self.query, self._undo_stack = QuerySpec(), None, []
        self.drawn.clear()
        self._context.query_changed.emit()

    def run(self, spec: QuerySpec) -> None:
        """Run a query from a file or another slide.

        Parameters
        ----------
        spec : QuerySpec
            The query. It is kept if no features can answer it yet.
        """
        self._undo_stack, self._spec = [], spec
        self.query = None
        # Quiet: features that can answer may be loaded later.
        self._run_query(spec, quiet=True)
        self._context.query_changed.emit()

    def rerun(self) -> None:
        """Run the query again on the current slide and features."""
        has_query = len(self.examples) or self._spec.directions
        if has_query and self._run_query(self._spec, quiet=True):
            self._context.query_changed.emit()

    def slide_chosen(self) -> None:
        """Run the query on the slide that has become the active one."""
        self._hover.drop(_HOVER)
        self.query = self.drawn.difference = None
        self._session.layers.unmark()
        self.rerun()

    def follow_cursor(self, x: float, y: float) -> None:
        """Show the maps of the position under the cursor.

        If the cursor moves faster than maps are computed, positions are skipped.

        Parameters
        ----------
        x, y : float
            Position in level-0 pixels.
        """
        loaded = self._loaded()
        visible = [slot for slot in self.drawn.shown() if slot in loaded]
        if self.drawn.pair is not None and DIFFERENCE in self.drawn.shown():
            visible += [slot for slot in self.drawn.pair if slot not in visible]
        if loaded:
            wanted = {slot: loaded[slot] for slot in visible or list(loaded)[:1]}
            self._hover.follow(
                _HOVER,
                lambda: self._compute_preview((x, y), wanted),
                self._show_preview,
                self._session.report_error,
            )

    def shown_map(self) -> tuple[str, Heatmap] | None:
        """Return slot and heatmap of the uppermost visible map; else of the first map."""
        maps = self.query.maps if self.query else {}
        for slot in [*reversed(self.drawn.shown()), *SLOTS]:
            if (heatmap := maps.get(slot)) is not None:
                return slot, heatmap
        return None

    def show(self, slot: str) -> None:
        """Show one map and hide the others."""
        if self._session.slide is not None:
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

    def _apply(self, examples: Examples) -> None:
        """Run other examples; keep the current ones if no encoder has their patches."""
        before = self.examples if self.query is not None and self.query.here else None
        spec = QuerySpec(examples, *self._identity())
        if not self._run_query(spec):
            return
        self._undo_stack = [] if before is None else [*self._undo_stack, before]
        del self._undo_stack[:-_MOST_UNDO]
        if before is None:
            self._undo_stack = [Examples()]
        self._context.query_changed.emit()

    def _identity(self) -> tuple[str, str]:
        for loaded in self._loaded().values():
            slide = loaded.index.features.grid.slide
            return slide_of_features(loaded), str(slide.get("name", ""))
        return "", ""

    def _loaded(self) -> dict[str, LoadedFeatures]:
        found = {slot: self._session.features(slot) for slot in SLOTS}
        return {slot: loaded for slot, loaded in found.items() if loaded is not None}

    def _run_query(self, spec: QuerySpec, quiet: bool = False) -> bool:
        """Run a query on all slots and draw; return whether any slot has a map."""
        slide, loaded = self._session.slide, self._loaded()
        if slide is None or not loaded:
            return False
        try:
            results = self._speculation.results(loaded, spec, self.limits)
        except McmError as error:
            self._session.report_error(str(error))
            return False
        if not any(results.values()):
            if not quiet:
                self._context.no_patch_at_click.emit()
            return False
        here = any(spec.is_on(one) for one in loaded.values())
        known = {
            fingerprint_of(loaded[slot].index.features.encoder): one.directions
            for slot, one in results.items()
            if one is not None
        }
        # Features that do not state their encoder cannot be matched on other slides.
        known.pop("", None)
        self._spec = replace(spec, directions={**spec.directions, **known})
        self.drawn.draw(slide, loaded, results, spec.examples)
        self.query = Query(self._spec, here, self._um(spec, here), results)
        return True

    def _um(self, spec: QuerySpec, here: bool) -> tuple[float, float] | None:
        metadata = self._session.metadata
        if not here or metadata is None or not metadata.mpp or not len(spec.examples):
            return None
        x, y = _newest(spec.examples)
        return x * metadata.mpp[0], y * metadata.mpp[1]

    def _compute_preview(
        self, point: Point, loaded: Mapping[str, LoadedFeatures]
    ) -> tuple[QuerySpec, Mapping[str, LoadedFeatures], dict[str, QueryResult | None]]:
        first = next(iter(loaded.values()))
        spec = QuerySpec(Examples((point,)), slide_of_features(first))
        return spec, loaded, query_all(loaded, spec, self.limits)

    def _show_preview(
        self,
        preview: tuple[
            QuerySpec, Mapping[str, LoadedFeatures], dict[str, QueryResult | None]
        ],
    ) -> None:
        spec, loaded, results = preview
        slide = self._session.slide
        # Features may have been replaced while the preview was computed.
        current = all(
            self._session.features(slot) is one for slot, one in loaded.items()
        )
        if slide is not None and current and any(results.values()):
            self.drawn.draw(slide, loaded, results, spec.examples)


def _newest(examples: Examples) -> Point:
    """Return the newest point, or the mean of the newest region's corners."""
    for points in (examples.unlike, examples.like):
        if points:
            return points[-1]
    if not examples.regions:
        return 0.0, 0.0
    x, y = np.mean(examples.regions[-1], axis=0)
    return float(x), float(y)
