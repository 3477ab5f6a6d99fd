"""Each slide keeps its own query, whatever is shown on it in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.search import SlideMatch
from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.similarity.context import SimilarityContext, context_of
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import features_of, wait_until, write_slide
from tests.viewer.seen import problems, settle
from tests.viewer.similarity.test_findings import named, take


@pytest.fixture
def two(
    widget: SimilarityWidget, viewer: Any, loaded: LoadedFeatures, tmp_path: Path
) -> tuple[SimilarityContext, Any, Any]:
    """Two slides with features of the same encoder; the first one is current."""
    widget.session.layers.look.use_smooth(False)
    first = widget.session.slide
    take(widget, named(loaded, "alpha"))
    path = write_slide(tmp_path / "other.tif", mpp=0.6)
    (second,) = viewer.open(path, plugin="napari-mcm")
    take(widget, named(features_of(path, patch_size=60), "alpha"))
    widget.session.choose_slide(first)
    return context_of(widget.session), first, second


def place(context: SimilarityContext, row: int) -> tuple[float, float]:
    x, y = context.session.features("first").index.features.grid.centres[row]
    return float(x), float(y)


def ask(context: SimilarityContext, row: int) -> Any:
    """Ask by a patch; return the examples of the query that is shown then."""
    context.queries.point(*place(context, row), "new")
    return shown(context)


def shown(context: SimilarityContext) -> Any:
    settle(context.session)
    assert problems(context.session) == []
    return None if context.query is None else context.query.spec.examples


def test_a_slide_shows_its_own_query_when_it_is_chosen_again(two: Any) -> None:
    context, first, second = two
    session = context.session
    here = ask(context, 5)
    session.choose_slide(second)
    # Without one of its own, it shows that of the first.
    assert shown(context) == here and not context.query.here
    there = ask(context, 9)
    assert there != here and context.query.here
    session.choose_slide(first)
    assert shown(context) == here and context.query.here
    session.choose_slide(second)
    assert shown(context) == there and context.query.here


def test_a_slide_shows_its_query_in_its_own_context(two: Any) -> None:
    context, first, second = two
    context.queries.use_neighbourhood(NeighbourhoodConfig(radius=0))
    here = ask(context, 5)
    context.session.choose_slide(second)
    ask(context, 9)
    context.queries.use_neighbourhood(NeighbourhoodConfig(radius=2))
    shown(context)
    context.session.choose_slide(first)
    assert shown(context) == here
    assert context.queries.neighbourhood.radius == 0
    # A context that is chosen while the same query is on the other slide stays.
    context.queries.clear()
    here = ask(context, 6)
    context.session.choose_slide(second)
    context.queries.clear()
    context.session.choose_slide(first)
    context.session.choose_slide(second)
    assert shown(context) == here
    context.queries.use_neighbourhood(NeighbourhoodConfig(radius=1))
    shown(context)
    context.session.choose_slide(first)
    assert shown(context) == here and context.queries.neighbourhood.radius == 1


def test_undo_and_redo_are_of_the_slide(two: Any) -> None:
    context, first, second = two
    queries, session = context.queries, context.session
    before, after = ask(context, 5), ask(context, 6)
    session.choose_slide(second)
    there = ask(context, 9)
    session.choose_slide(first)
    assert shown(context) == after and queries.can_undo
    queries.undo()
    assert shown(context) == before and queries.can_redo
    session.choose_slide(second)
    assert shown(context) == there and not queries.can_redo
    # What the first query of this slide replaced comes back.
    queries.undo()
    assert shown(context) == after and not context.query.here
    queries.redo()
    assert shown(context) == there and context.query.here
    session.choose_slide(first)
    assert shown(context) == before
    queries.redo()
    assert shown(context) == after


def test_a_cleared_query_does_not_come_back_by_itself(two: Any) -> None:
    context, first, second = two
    here = ask(context, 5)
    context.queries.clear()
    context.session.choose_slide(second)
    there = ask(context, 9)
    context.session.choose_slide(first)
    assert shown(context) == there
    context.queries.undo()
    assert shown(context) == here and context.query.here


def test_a_search_leads_to_its_query_and_undo_back_to_the_slides_own(two: Any) -> None:
    context, first, second = two
    session = context.session
    session.choose_slide(second)
    there = ask(context, 9)
    mark = context.query.spec.slide
    session.choose_slide(first)
    here = ask(context, 5)
    context.cross_slide.open(SlideMatch("other", mark, Path("none"), 1, 1, 1))
    wait_until(lambda: session.slide is second)
    assert shown(context) == here and not context.query.here
    assert context.queries.can_undo
    context.queries.undo()
    assert shown(context) == there and context.query.here


def test_undo_brings_back_what_an_opened_query_replaced(two: Any) -> None:
    context, _, _ = two
    before = ask(context, 5)
    other = context.queries.spec
    after = ask(context, 6)
    context.queries.run(other)
    assert shown(context) == before
    context.queries.undo()
    assert shown(context) == after
    assert np.isfinite(context.areas.threshold)
