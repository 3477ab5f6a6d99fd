"""The query of one viewer: its examples, its results and its maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.core.errors import McmError
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.heatmaps.color_limits import Limits
from napari_mcm.core.heatmaps.config import DEFAULT_RADIUS
from napari_mcm.core.heatmaps.examples import Examples, Point, Polygon
from napari_mcm.core.heatmaps.query import fingerprint_of
from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.app.features import SLOTS
from napari_mcm.viewer.layers.mouse import ClickMode
from napari_mcm.viewer.similarity.lookahead import SpeculativeQuery
from napari_mcm.viewer.similarity.maps import DIFFERENCE, QueryMaps
from napari_mcm.viewer.similarity.preparation import NeighbourhoodPreparation
from napari_mcm.viewer.similarity.query import (
    Query,
    QueryResult,
    QuerySpec,
    newest_point,
    query_all,
    query_from,
    slide_of_features,
)

if TYPE_CHECKING:
    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.core.heatmaps.similarity_index import Pool
    from napari_mcm.viewer.app.features import LoadedFeatures
    from napari_mcm.viewer.similarity.context import SimilarityContext

_MOST_UNDO = 100

_HOVER, _REPAINT = "hover", "repaint"


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
    neighbourhood : NeighbourhoodConfig
        Over which patches features are averaged; the patch alone for none.
    preparation : NeighbourhoodPreparation
        Prepares features for queries with neighbourhoods, in the background.
    drawn : QueryMaps
        The maps, their difference and the markers.
    neighbourhood_changed : Signal
        Emitted when `neighbourhood` changed, or was refused.
    """

    neighbourhood_changed = Signal()

    def __init__(self, context: SimilarityContext) -> None:
        session = context.session
        self._context = context
        self._session = session
        self._query: Query | None = None
        self.limits: Limits = "encoder"
        self.pool: Pool = "mean"
        self.neighbourhood = NeighbourhoodConfig(radius=DEFAULT_RADIUS)
        self.preparation = NeighbourhoodPreparation(session.report_error)
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
        if examples is not None and loaded and self._is_ready(loaded):
            spec = self._new_spec(examples)
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

    def use_neighbourhood(self, neighbourhood: NeighbourhoodConfig) -> None:
        """Choose over which patches features are averaged, and repaint the maps.

        Parameters
        ----------
        neighbourhood : NeighbourhoodConfig
            The neighbourhood. It is refused for a query of a slide that is closed.
        """
        if neighbourhood == self.neighbourhood:
            return
        loaded, origin = self._loaded(), self._origin()
        if self._has_query() and loaded and not origin:
            made = self._spec.neighbourhood.describe()
            self._session.report_error(
                f"This query was made with context {made}, on slide {self._spec.name}: "
                "open that slide and its features to change it"
            )
            self.neighbourhood_changed.emit()
            return
        self.neighbourhood = neighbourhood
        self.neighbourhood_changed.emit()
        if self._has_query() and loaded:
            needed = (*loaded.values(), *origin)
            self.preparation.when_ready(needed, neighbourhood, self._repaint)

    def _repaint(self) -> None:
        """Run the query with another neighbourhood in the background, and draw it."""
        loaded, origin = self._loaded(), self._origin()
        spec = replace(self._spec, neighbourhood=self.neighbourhood, directions={})
        limits, before = self.limits, self._spec
        if not self._has_query() or not loaded:
            return

        def show(results: tuple[QuerySpec, dict[str, QueryResult | None]]) -> None:
            current = self._spec is before and self.neighbourhood == spec.neighbourhood
            if current and self._loaded() == loaded and any(results[1].values()):
                self._accept(loaded, *results)
                self._context.query_changed.emit()

        self._hover.follow(
            _REPAINT,
            lambda: query_from(origin, loaded, spec, limits),
            show,
            self._session.report_error,
        )

    def _origin(self) -> list[LoadedFeatures]:
        """Return the features of the slide with the examples; empty if it is closed."""
        features = self._session.all_features()
        return [one for one in features if self._spec.is_on(one)]

    def _has_query(self) -> bool:
        return bool(len(self.examples) or self._spec.directions)

    def _is_ready(self, loaded: Mapping[str, LoadedFeatures]) -> bool:
        return all(one.is_ready(self.neighbourhood) for one in loaded.values())

    def _when_ready(self, call: Callable[[], None]) -> None:
        """Call a function once the features are ready for the neighbourhood."""
        needed = self._loaded().values()
        self.preparation.when_ready(needed, self.neighbourhood, call)

    def encoders(self) -> set[str]:
        """Return the fingerprints of the encoders with features of the active slide."""
        loaded = self._loaded().values()
        return {fingerprint_of(one.index.features.encoder) for one in loaded}

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
            else:
                self._when_ready(lambda: self._return_to(before))

    def _return_to(self, examples: Examples) -> None:
        if self._run_query(replace(self._spec, examples=examples, directions={})):
            self._context.query_changed.emit()

    def clear(self) -> None:
        """Remove all examples, and their maps."""
        self._hover.drop(_HOVER)
        self._spec, self.query, self._undo_stack = QuerySpec(), None, []
        self.drawn.clear()
        self._context.query_changed.emit()

    def run(
        self, spec: QuerySpec, unanswered: Callable[[], None] | None = None
    ) -> None:
        """Run a query from a file or another slide, with its own neighbourhood.

        Parameters
        ----------
        spec : QuerySpec
            The query. It is kept if no features can answer it yet.
        unanswered : callable, optional
            Called without arguments if no features can answer it.
        """
        self._undo_stack, self._spec = [], spec
        self.query, self.neighbourhood = None, spec.neighbourhood
        self.neighbourhood_changed.emit()

        def ready() -> None:
            # Quiet: features that can answer may be loaded later.
            answered = self._spec is spec and self._run_query(spec, quiet=True)
            self._context.query_changed.emit()
            if not answered and self._spec is spec and unanswered is not None:
                unanswered()

        self._when_ready(ready)

    def rerun(self, then: Callable[[], None] | None = None) -> None:
        """Run the query again on the current slide and features.

        Parameters
        ----------
        then : callable, optional
            Called without arguments after the maps were drawn.
        """
        if self._has_query():
            self._when_ready(lambda: self._rerun_now(then))

    def _rerun_now(self, then: Callable[[], None] | None) -> None:
        if self._has_query() and self._run_query(self._spec, quiet=True):
            self._context.query_changed.emit()
        if then is not None:
            then()

    def slide_chosen(self) -> None:
        """Run the query on the slide that has become the active one."""
        self._hover.drop(_HOVER)
        self.query = self.drawn.difference = None
        self._session.layers.unmark()
        self.prepare()
        self.rerun()

    def prepare(self) -> None:
        """Prepare all neighbourhoods of the active slide's features."""
        self.preparation.activate(self._loaded().values())

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
        if loaded and self._is_ready(loaded):
            wanted = {slot: loaded[slot] for slot in visible or list(loaded)[:1]}
            around = self.neighbourhood
            self._hover.follow(
                _HOVER,
                lambda: self._compute_preview((x, y), wanted, around),
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
        self._when_ready(lambda: self._apply_now(examples))

    def _apply_now(self, examples: Examples) -> None:
        before = self.examples if self.query is not None and self.query.here else None
        if not self._run_query(self._new_spec(examples)):
            return
        self._undo_stack = [] if before is None else [*self._undo_stack, before]
        del self._undo_stack[:-_MOST_UNDO]
        if before is None:
            self._undo_stack = [Examples()]
        self._context.query_changed.emit()

    def _new_spec(self, examples: Examples) -> QuerySpec:
        around = self.neighbourhood
        return QuerySpec(examples, *self._identity(), neighbourhood=around)

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
        self._accept(loaded, spec, results)
        return True

    def _accept(
        self,
        loaded: Mapping[str, LoadedFeatures],
        spec: QuerySpec,
        results: Mapping[str, QueryResult | None],
    ) -> None:
        """Draw the results of a query, which is the current one from now on."""
        slide = self._session.slide
        assert slide is not None
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

    def _um(self, spec: QuerySpec, here: bool) -> tuple[float, float] | None:
        metadata = self._session.metadata
        if not here or metadata is None or not metadata.mpp or not len(spec.examples):
            return None
        x, y = newest_point(spec.examples)
        return x * metadata.mpp[0], y * metadata.mpp[1]

    def _compute_preview(
        self,
        point: Point,
        loaded: Mapping[str, LoadedFeatures],
        around: NeighbourhoodConfig,
    ) -> tuple[QuerySpec, Mapping[str, LoadedFeatures], dict[str, QueryResult | None]]:
        first = next(iter(loaded.values()))
        fingerprint = slide_of_features(first)
        spec = QuerySpec(Examples((point,)), fingerprint, neighbourhood=around)
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
