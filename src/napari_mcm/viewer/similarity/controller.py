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
from napari_mcm.core.heatmaps.examples import Examples, Polygon
from napari_mcm.core.heatmaps.query import fingerprint_of
from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.layers.mouse import ClickMode
from napari_mcm.viewer.similarity.cursor import CursorPreview
from napari_mcm.viewer.similarity.history import ExampleHistory, OwnQueries, is_same
from napari_mcm.viewer.similarity.lookahead import SpeculativeQuery
from napari_mcm.viewer.similarity.map_choice import MapChoice
from napari_mcm.viewer.similarity.other_slides import OtherSlides
from napari_mcm.viewer.similarity.preparation import NeighbourhoodPreparation
from napari_mcm.viewer.similarity.query import (
    Query,
    QueryResult,
    QuerySpec,
    query_from,
    slide_of_features,
)
from napari_mcm.viewer.similarity.query_text import name_query

if TYPE_CHECKING:
    from napari_mcm.core.heatmaps.similarity_index import Pool
    from napari_mcm.viewer.app.features import LoadedFeatures
    from napari_mcm.viewer.similarity.context import SimilarityContext

_REPAINT = "repaint"


class SimilarityController(MapChoice):
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
    cursor : CursorPreview
        The map of what is under the cursor.
    history : ExampleHistory
        Earlier examples, for undo and redo; its signal `changed` tells buttons.
    neighbourhood_changed : Signal
        Emitted when `neighbourhood` changed, or was refused.
    """

    neighbourhood_changed = Signal()

    def __init__(self, context: SimilarityContext) -> None:
        super().__init__(context)
        session = context.session
        self._query: Query | None = None
        self.limits: Limits = "encoder"
        self.pool: Pool = "mean"
        self.neighbourhood = NeighbourhoodConfig(radius=DEFAULT_RADIUS)
        self.preparation = NeighbourhoodPreparation(session.report_error)
        self.history = ExampleHistory()
        self._spec, self._own = QuerySpec(), OwnQueries()
        self._turn = 0
        self._speculation = SpeculativeQuery()
        self._worker = BackgroundWorker()
        self.cursor = CursorPreview(self, self._worker)
        self._others = OtherSlides(self, self._worker)

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
        self.cursor.stop()
        examples = self._examples_with(x, y, mode)
        if not self.has_features():
            self._context.no_features_at_click.emit()
        elif examples is None:
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
        examples, loaded = self._examples_with(x, y, mode), self.loaded()
        if examples is not None and loaded and self.is_ready(loaded):
            spec = self._new_spec(examples)
            self._speculation.begin(loaded, spec, self.limits)

    def cancel_speculation(self) -> None:
        """Cancel the query that :meth:`speculate` started: the press became a drag."""
        self._speculation.cancel()

    def _examples_with(self, x: float, y: float, mode: ClickMode) -> Examples | None:
        """Return the examples with a new one; None for a dissimilar one on its own."""
        here = self._is_here()
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
        points = self.examples if self._is_here() else Examples(pool=self.pool)
        if points.regions == () and polygons:
            # The first region starts a new query.
            points = Examples(pool=self.pool)
        self._apply(replace(points, regions=tuple(polygons)))

    def use_pool(self, pool: Pool) -> None:
        """Choose how examples are combined: their mean, or the nearest one."""
        self.pool = pool
        if self._is_here():
            self._apply(replace(self.examples, pool=pool))

    def use_limits(self, limits: Limits) -> None:
        """Choose how the range of colours is determined."""
        self.limits = limits
        # Also in layers whose limits the user has changed.
        self._session.layers.look.release("contrast_limits")
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
        loaded, origin = self.loaded(), self._origin()
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
        loaded, origin = self.loaded(), self._origin()
        spec = replace(self._spec, neighbourhood=self.neighbourhood, directions={})
        limits, before = self.limits, self._spec
        if not self._has_query() or not loaded:
            return

        def show(results: tuple[QuerySpec, dict[str, QueryResult | None]]) -> None:
            current = self._spec is before and self.neighbourhood == spec.neighbourhood
            if current and self.loaded() == loaded:
                if any(results[1].values()):
                    self._accept(loaded, *results)
                else:
                    self._unanswered()
                self._context.query_changed.emit()

        self._worker.follow(
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

    def is_ready(self, loaded: Mapping[str, LoadedFeatures]) -> bool:
        """Return whether features can be queried with the neighbourhood at once."""
        return all(one.is_ready(self.neighbourhood) for one in loaded.values())

    def _when_ready(self, call: Callable[[], None]) -> None:
        """Call a function once the features are ready for the neighbourhood.

        It is not called if another slide was chosen, or the query cleared, meanwhile.
        """
        needed, turn = self.loaded().values(), self._turn

        def ready() -> None:
            if turn == self._turn:
                call()

        self.preparation.when_ready(needed, self.neighbourhood, ready)

    @property
    def can_undo(self) -> bool:
        """Whether there is an earlier set of examples on this slide."""
        return self._step(-1) is not None

    @property
    def can_redo(self) -> bool:
        """Whether a set of examples was undone on this slide."""
        return self._step(1) is not None

    def undo(self) -> None:
        """Go back to the examples before the latest change."""
        self._travel(-1)

    def redo(self) -> None:
        """Make the change again that was undone last."""
        self._travel(1)

    def _step(self, by: int) -> Examples | None:
        here = self.loaded() and self.history.slide == self._identity()[0]
        moved = self._moved(by)
        return self.history.step(moved) if here and moved is not None else None

    def _moved(self, by: int) -> int | None:
        away = self.query is not None and not self.query.here
        return self.history.moved(by, away)

    def _travel(self, by: int) -> None:
        examples = self._step(by)
        if examples is not None:
            self.cursor.stop()
            self._when_ready(lambda: self._go_to(examples, by))

    def _go_to(self, examples: Examples, by: int) -> None:
        moved = self._moved(by)
        if self._step(by) is not examples or moved is None:
            return
        self.history.move(moved)
        self.pool = examples.pool
        replaced = self._own.replaced_on(self.history.slide)
        if not len(examples):
            self._forget()
            if replaced is not None and self.history.at_start:
                self.run(replaced)
        elif self._run_query(self._new_spec(examples)):
            self._context.query_changed.emit()
        else:
            self.history.move(-moved)

    def clear(self) -> None:
        """Remove all examples, and their maps."""
        self.cursor.stop()
        if self._is_here():
            self.history.add(self._identity()[0], Examples(pool=self.pool))
        self._forget()

    def _forget(self) -> None:
        self._turn += 1
        if self._spec.slide == self._identity()[0]:
            self._own.forget(self._spec.slide)
        self._spec, self.query = QuerySpec(), None
        self.drawn.clear()
        self._context.query_changed.emit()

    def _is_here(self) -> bool:
        """Return whether there is a query with examples on the current slide."""
        return self.query is not None and self.query.here

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
        self._turn += 1
        self._spec = spec
        self.history.switch(self._identity()[0])
        self.history.restart(spec.slide, spec.examples)
        self.query, self.neighbourhood = None, spec.neighbourhood
        self.neighbourhood_changed.emit()

        def ready() -> None:
            # Quiet: features that can answer may be loaded later.
            answered = self._spec is spec and self._run_query(spec, quiet=True)
            if not answered and self.query is None:
                # What is seen are the maps of an earlier query.
                self.drawn.clear()
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
        if not self._has_query():
            return
        origin = self._origin()
        if self._spec.neighbourhood == self.neighbourhood or not origin:
            # Of a slide that is closed, there are vectors of one context only.
            self._follow_context(self._spec.neighbourhood)
            self._when_ready(lambda: self._rerun_now(then))
        else:
            # The context was chosen on a slide without features.
            needed = (*self.loaded().values(), *origin)
            self.preparation.when_ready(needed, self.neighbourhood, self._repaint)

    def _follow_context(self, neighbourhood: NeighbourhoodConfig) -> None:
        if neighbourhood != self.neighbourhood:
            self.neighbourhood = neighbourhood
            self.neighbourhood_changed.emit()

    def _rerun_now(self, then: Callable[[], None] | None) -> None:
        if self._has_query():
            if not self._run_query(self._spec, quiet=True):
                self._unanswered()
            self._context.query_changed.emit()
        if then is not None:
            then()

    def slide_chosen(self) -> None:
        """Run the slide's own query, or that of another one, on the slide chosen."""
        self.cursor.stop()
        self._turn += 1
        self.history.switch(slide := self._identity()[0])
        own = self._own.of(slide)
        if own is not None and not is_same(own, self._spec):
            self._spec, self.pool = own, own.examples.pool
            self._follow_context(own.neighbourhood)
        self.query = self.drawn.difference = None
        self._session.layers.unmark()
        self.prepare()
        self.rerun()
        if self.query is None:
            # Its maps are of an earlier query, until this one is answered.
            self.drawn.clear(self._session.slide)
            self._context.query_changed.emit()
        self.history.changed.emit()

    def prepare(self) -> None:
        """Prepare all neighbourhoods of the active slide's features."""
        self.preparation.activate(self.loaded().values())

    def _apply(self, examples: Examples) -> None:
        """Run other examples; keep the current ones if no encoder has their patches."""
        self._when_ready(lambda: self._apply_now(examples))

    def _apply_now(self, examples: Examples) -> None:
        spec, before = self._new_spec(examples), self.query
        if self._run_query(spec):
            if before is not None and not before.here:
                self._own.note_replaced(spec.slide, before.spec)
            self._session.map_asked.emit("similarity")
            self._context.query_changed.emit()
        elif self.drawn.previewing:
            # What was seen under the cursor is not the query that the dock names.
            self.redraw()

    def redraw(self) -> None:
        """Draw the current query again, or clear the maps if there is none."""
        if self.query is not None:
            self._draw(self.loaded(), self.query)
        else:
            self.drawn.clear()

    def _unanswered(self) -> None:
        """Clear the maps of a query that the current features cannot answer."""
        self.query = None
        self.drawn.clear()

    def _new_spec(self, examples: Examples) -> QuerySpec:
        around = self.neighbourhood
        return QuerySpec(examples, *self._identity(), neighbourhood=around)

    def _identity(self) -> tuple[str, str]:
        for loaded in self.loaded().values():
            slide = loaded.index.features.grid.slide
            return slide_of_features(loaded), str(slide.get("name", ""))
        return "", ""

    def _run_query(self, spec: QuerySpec, quiet: bool = False) -> bool:
        """Run a query on all slots and draw; return whether any slot has a map."""
        slide, loaded = self._session.slide, self.loaded()
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
        self._own.note(self._spec, here)
        if here:
            self.history.add(spec.slide, spec.examples)
        else:
            self.history.switch(self._identity()[0])
        newest = self.history.newest if here else ""
        metadata = self._session.metadata
        mpp = metadata.mpp if here and metadata is not None else None
        self.query = Query(self._spec, here, results, newest, mpp)
        self._draw(loaded, self.query)
        self._others.ask(self.query, self.limits)

    def _draw(self, loaded: Mapping[str, LoadedFeatures], query: Query) -> None:
        slide = self._session.slide
        if slide is not None:
            examples, asked = query.spec.examples, name_query(query)
            self.drawn.draw(slide, loaded, query.results, examples, asked)
