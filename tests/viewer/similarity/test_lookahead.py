"""The answer to a click, begun when the button goes down."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from napari_mcm.core.heatmaps import SimilarityIndex
from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import Click
from tests.viewer.similarity.test_findings import take
from tests.viewer.similarity.test_maps import ready
from tests.viewer.similarity.test_query import again

__all__ = ["ready"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each product with all patches, whether the window waited for it."""
    asked: list[bool] = []
    compare = SimilarityIndex.compare

    def watched(self: SimilarityIndex, directions: Any) -> Any:
        asked.append(threading.current_thread() is threading.main_thread())
        return compare(self, directions)

    monkeypatch.setattr(SimilarityIndex, "compare", watched)
    return asked


def place(ready: SimilarityWidget, loaded: LoadedFeatures, patch: int) -> Any:
    slide = ready.session.slide
    assert slide is not None
    return slide.data_to_world(loaded.index.features.grid.centres[patch][::-1])


def test_a_click_takes_what_its_press_began(
    ready: SimilarityWidget, loaded: LoadedFeatures, click: Click, asked: list[bool]
) -> None:
    click(place(ready, loaded, 3))
    assert asked == [False]
    query = context_of(ready.session).query
    assert query is not None
    expected = loaded.index.query(3)
    heatmap = query.maps["first"]
    assert heatmap is not None
    assert heatmap.values == pytest.approx(expected)


def test_each_click_has_its_own_answer(
    ready: SimilarityWidget, loaded: LoadedFeatures, click: Click, asked: list[bool]
) -> None:
    for patch, modifiers in ((3, []), (5, ["Shift"]), (7, ["Control"])):
        click(place(ready, loaded, patch), modifiers=modifiers)
    query = context_of(ready.session).query
    assert query is not None
    heatmap = query.maps["first"]
    assert heatmap is not None
    assert heatmap.values == pytest.approx(loaded.index.query([3, 5], [7]))
    assert asked == [False] * 3 + [True]


def test_a_press_that_becomes_a_drag_asks_nothing(
    ready: SimilarityWidget, loaded: LoadedFeatures, click: Click
) -> None:
    click(place(ready, loaded, 3), moved_px=30)
    assert context_of(ready.session).query is None
    # What was begun for it is not taken for the answer to another question.
    context_of(ready.session).queries.point(*loaded.index.features.grid.centres[5])
    query = context_of(ready.session).query
    assert query is not None
    heatmap = query.maps["first"]
    assert heatmap is not None
    assert heatmap.values == pytest.approx(loaded.index.query(5))


@pytest.mark.parametrize("encoders", [1, 2])
def test_a_click_does_not_wait_for_the_query_of_a_drag(
    ready: SimilarityWidget,
    loaded: LoadedFeatures,
    click: Click,
    monkeypatch: pytest.MonkeyPatch,
    encoders: int,
) -> None:
    if encoders == 2:
        take(ready, again(loaded, 1), "second")
    begun, dragged, release = (threading.Event() for _ in range(3))
    compare = SimilarityIndex.compare

    def blocked(self: SimilarityIndex, directions: Any) -> Any:
        if not dragged.is_set():
            begun.set()
            release.wait(60)
        return compare(self, directions)

    monkeypatch.setattr(SimilarityIndex, "compare", blocked)
    context = context_of(ready.session)
    event = SimpleNamespace(
        type="mouse_press",
        button=1,
        modifiers=[],
        pos=(100, 100),
        position=place(ready, loaded, 3),
    )
    mouse = context.clicks._pressed(ready.session.viewer, event)
    next(mouse)
    assert begun.wait(60)
    event.type, event.pos = "mouse_move", (130, 100)
    next(mouse, None)
    assert context.queries._speculation._started is None
    dragged.set()
    # A click that waits is let go in the end, so that the test fails and does not hang.
    late = threading.Timer(20, release.set)
    late.start()
    try:
        click(place(ready, loaded, 5))
        assert not release.is_set()
    finally:
        late.cancel()
        release.set()
    assert context.query is not None
    heatmap = context.query.maps["first"]
    assert heatmap is not None
    assert heatmap.values == pytest.approx(loaded.index.query(5))
