"""The present query of one viewer: what it is made of, and the maps it draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_mcm.core.errors import McmError
from napari_mcm.core.heatmaps.query import Examples, Point, Polygon, fingerprint_of
from napari_mcm.core.heatmaps.similarity import Limits
from napari_mcm.viewer.app.background import Background
from napari_mcm.viewer.app.features import SLOTS
from napari_mcm.viewer.layers.mouse import ClickMode
from napari_mcm.viewer.similarity.lookahead import SpeculativeQuery
from napari_mcm.viewer.similarity.maps import DIFFERENCE, QueryMaps
from napari_mcm.viewer.similarity.query import (
    Answer,
    QuerySpec,
    answers,
    slide_of_features,
)

if TYPE_CHECKING:
    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.core.heatmaps.similarity import Pool
    from napari_mcm.viewer.app.features import Loaded
    from napari_mcm.viewer.similarity.context import SimilarityContext

_REMEMBERED = 100

_HOVER = "hover"


@dataclass(frozen=True, eq=False)
class Query:
    """What was asked for, and what each slot answered.

    Attributes
    ----------
    spec : QuerySpec
        The places, and what they are to encoders.
    here : bool
        Whether the places are on the slide that is shown.
    um : tuple of float or None
        The newest place in microns, where it is here and the resolution is known.
    answers : mapping
        Slot to answer; None where the slot has no features at the places.
    """

    spec: QuerySpec
    here: bool
    um: tuple[float, float] | None
    answers: Mapping[str, Answer | None]

    @property
    def xy(self) -> Point:
        """The newest place, in level-0 pixels."""
        return _newest(self.spec.examples)

    @property
    def maps(self) -> dict[str, Heatmap | None]:
        """Slot to heatmap."""
        return {
            slot: None if one is None else one.heatmap
            for slot, one in self.answers.items()
        }


class SimilarityController:
    """Asks the encoders of a :class:`Session`, and draws what they answer.

    Parameters
    ----------
    context : SimilarityContext
        The query and what belongs to it.

    Attributes
    ----------
    query : Query or None
        What the maps show.
    limits : Limits
        What the colours run over.
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
        self._before: list[Examples] = []
        self._expected = SpeculativeQuery()
        self._hover = Background()

    @property
    def query(self) -> Query | None:
        """What the maps show."""
        return self._query

    @query.setter
    def query(self, query: Query | None) -> None:
        self._query = query
        self._session.has_query = query is not None

    @property
    def examples(self) -> Examples:
        """The places that make the query, on whichever slide."""
        return self._spec.examples

    @property
    def spec(self) -> QuerySpec:
        """The query as it can be asked of other slides."""
        return self._spec

    def point(self, x: float, y: float, manner: ClickMode = "new") -> None:
        """Query by the patch at a place, or add it to the examples.

        Parameters
        ----------
        x, y : float
            Level-0 pixels from the slide's upper left corner.
        manner : {"new", "like", "unlike"}
            What the place is.
        """
        self._hover.drop(_HOVER)
        examples = self._with(x, y, manner)
        if examples is None:
            self._session.report_error("Click on a similar example first")
        else:
            self._use(examples)

    def speculate(self, x: float, y: float, manner: ClickMode = "new") -> None:
        """Begin to look for what :meth:`point` will ask for, very likely."""
        examples, loaded = self._with(x, y, manner), self._loaded()
        if examples is not None and loaded:
            spec = QuerySpec(examples, *self._identity())
            self._expected.begin(loaded, spec, self.limits)

    def cancel_speculation(self) -> None:
        """Drop what :meth:`speculate` began: the press was no click."""
        self._expected.cancel()

    def _with(self, x: float, y: float, manner: ClickMode) -> Examples | None:
        """Return the examples with one more; None where it has nothing to add to."""
        here = self.query is not None and self.query.here
        if manner == "unlike" and not (here and len(self.examples)):
            return None
        start = self.examples if here and manner != "new" else Examples(pool=self.pool)
        return start.more((x, y), like=manner != "unlike")

    def use_regions(self, rings: Sequence[Polygon]) -> None:
        """Query by the patches in outlines, beside the present points."""
        here = self.query is not None and self.query.here
        points = self.examples if here else Examples(pool=self.pool)
        if points.regions == () and rings:
            # A drawn region starts a query of its own.
            points = Examples(pool=self.pool)
        self._use(replace(points, regions=tuple(rings)))

    def use_pool(self, pool: Pool) -> None:
        """Choose whether the mean of several examples counts, or the nearest."""
        self.pool = pool
        if self.query is not None and self.query.here:
            self._use(replace(self.examples, pool=pool))

    def use_limits(self, limits: Limits) -> None:
        """Choose what the colours run over."""
        self.limits = limits
        self.rerun()

    def compare(self, pair: tuple[str, str] | None) -> None:
        """Draw the difference of two slots, or of none."""
        self.drawn.pair = pair
        self.rerun()
        slide = self._session.slide
        if slide is not None and pair is not None and not self.drawn.problem:
            self._session.layers.show_only(slide, DIFFERENCE)
            self._context.query_changed.emit()

    def switch_difference(self) -> None:
        """Show the difference of two encoders, or no longer."""
        if self.drawn.pair is not None:
            first = self.drawn.pair[0]
            self.compare(None)
            self.show(first)
            return
        there = [slot for slot, heatmap in self.maps().items() if heatmap]
        if len(there) > 1:
            self.compare((there[0], there[1]))
        else:
            self._session.report_error("A difference needs two encoders with features")

    def maps(self) -> dict[str, Heatmap | None]:
        """Return the maps of the present query."""
        return self.query.maps if self.query is not None else {}

    def has_features(self) -> bool:
        """Return whether there is an encoder to ask."""
        return bool(self._loaded())

    def undo(self) -> None:
        """Remove the newest example."""
        if self._before:
            before = self._before.pop()
            if not len(before):
                self.clear()
            elif self._run_query(replace(self._spec, examples=before, directions={})):
                self._context.query_changed.emit()

    def clear(self) -> None:
        """Remove all examples, and their maps."""
        self._hover.drop(_HOVER)
        self._spec, self.query, self._before = QuerySpec(), None, []
        self.drawn.clear()
        self._context.query_changed.emit()

    def run(self, spec: QuerySpec) -> None:
        """Run a query from a file or another slide."""
        self._before, self._spec = [], spec
        self.query = None
        # Features that can answer may come later.
        self._run_query(spec, quiet=True)
        self._context.query_changed.emit()

    def rerun(self) -> None:
        """Run the query again on the present slide and features."""
        asked = len(self.examples) or self._spec.directions
        if asked and self._run_query(self._spec, quiet=True):
            self._context.query_changed.emit()

    def slide_chosen(self) -> None:
        """Carry the query over to the slide that is worked on now."""
        self._hover.drop(_HOVER)
        self.query = self.drawn.difference = None
        self._session.layers.unmark()
        self.rerun()

    def connect(self, x: float, y: float) -> None:
        """Let the map follow the cursor; only the newest position is computed."""
        loaded = self._loaded()
        visible = [slot for slot in self.drawn.shown() if slot in loaded]
        if self.drawn.pair is not None and DIFFERENCE in self.drawn.shown():
            visible += [slot for slot in self.drawn.pair if slot not in visible]
        if loaded:
            asked = {slot: loaded[slot] for slot in visible or list(loaded)[:1]}
            self._hover.follow(
                _HOVER,
                lambda: self._look_ahead((x, y), asked),
                self._show_ahead,
                self._session.report_error,
            )

    def shown_map(self) -> tuple[str, Heatmap] | None:
        """Return the slot and similarity that is looked at: the uppermost visible one."""
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
        """Switch to the next encoder's map, the difference being the last."""
        slide, layers = self._session.slide, self._session.layers
        if slide is None or self.query is None:
            return
        there = [slot for slot, heatmap in self.query.maps.items() if heatmap]
        if self.drawn.pair is not None and layers.map_of(slide, DIFFERENCE) is not None:
            there.append(DIFFERENCE)
        if there:
            now = [slot for slot in self.drawn.shown() if slot in there]
            at = there.index(now[-1]) + 1 if now else 0
            self.show(there[at % len(there)])

    def _use(self, examples: Examples) -> None:
        """Run with other examples; keep the present ones if no encoder has their patches."""
        before = self.examples if self.query is not None and self.query.here else None
        spec = QuerySpec(examples, *self._identity())
        if not self._run_query(spec):
            return
        self._before = [] if before is None else [*self._before, before]
        del self._before[:-_REMEMBERED]
        if before is None:
            self._before = [Examples()]
        self._context.query_changed.emit()

    def _identity(self) -> tuple[str, str]:
        for loaded in self._loaded().values():
            slide = loaded.index.features.grid.slide
            return slide_of_features(loaded), str(slide.get("name", ""))
        return "", ""

    def _loaded(self) -> dict[str, Loaded]:
        found = {slot: self._session.features(slot) for slot in SLOTS}
        return {slot: loaded for slot, loaded in found.items() if loaded is not None}

    def _run_query(self, spec: QuerySpec, quiet: bool = False) -> bool:
        """Run a query on all slots and draw; return whether any slot has a map."""
        slide, loaded = self._session.slide, self._loaded()
        if slide is None or not loaded:
            return False
        try:
            found = self._expected.answers(loaded, spec, self.limits)
        except McmError as error:
            self._session.report_error(str(error))
            return False
        if not any(found.values()):
            if not quiet:
                self._context.no_patch_at_click.emit()
            return False
        here = any(spec.is_on(one) for one in loaded.values())
        known = {
            fingerprint_of(loaded[slot].index.features.encoder): one.directions
            for slot, one in found.items()
            if one is not None
        }
        known.pop("", None)
        self._spec = replace(spec, directions={**spec.directions, **known})
        self.drawn.draw(slide, loaded, found, spec.examples)
        self.query = Query(self._spec, here, self._um(spec, here), found)
        return True

    def _um(self, spec: QuerySpec, here: bool) -> tuple[float, float] | None:
        metadata = self._session.metadata
        if not here or metadata is None or not metadata.mpp or not len(spec.examples):
            return None
        x, y = _newest(spec.examples)
        return x * metadata.mpp[0], y * metadata.mpp[1]

    def _look_ahead(
        self, place: Point, asked: Mapping[str, Loaded]
    ) -> tuple[QuerySpec, Mapping[str, Loaded], dict[str, Answer | None]]:
        first = next(iter(asked.values()))
        spec = QuerySpec(Examples((place,)), slide_of_features(first))
        return spec, asked, answers(asked, spec, self.limits)

    def _show_ahead(
        self, seen: tuple[QuerySpec, Mapping[str, Loaded], dict[str, Answer | None]]
    ) -> None:
        spec, loaded, found = seen
        slide = self._session.slide
        still = all(self._session.features(slot) is one for slot, one in loaded.items())
        if slide is not None and still and any(found.values()):
            self.drawn.draw(slide, loaded, found, spec.examples)


def _newest(examples: Examples) -> Point:
    """Return the newest point, or the middle of the newest region."""
    for points in (examples.unlike, examples.like):
        if points:
            return points[-1]
    if not examples.regions:
        return 0.0, 0.0
    x, y = np.mean(examples.regions[-1], axis=0)
    return float(x), float(y)
