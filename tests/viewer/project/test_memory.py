"""A slide that is opened again comes back as it was left, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.project import SavedQuery, SlideState
from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.project import memory as module
from napari_mcm.viewer.project.memory import SlideMemory, memory_of
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import Click, features_of, finish, wait_until, write_slide

Reopen = Callable[[], None]


def settle(widget: SimilarityWidget) -> SlideMemory:
    """Wait until the open slides are known and everything is written."""
    memory = memory_of(widget.session)
    wait_until(
        lambda: all(
            memory.fingerprint_of(layer) for layer in widget.session.layers.slides()
        )
    )
    memory.take()
    memory.flush()
    widget.session.disk.wait()
    return memory


@pytest.fixture
def reopen(widget: SimilarityWidget, viewer: Any, slide_path: Path) -> Reopen:
    """Close the slide and forget the query, then open the slide again."""

    def act() -> None:
        settle(widget)
        viewer.layers.clear()
        queries = context_of(widget.session).queries
        queries.clear()
        queries.use_neighbourhood(NeighbourhoodConfig(radius=2))
        context_of(widget.session).areas.set_threshold(float("nan"))
        viewer.open(slide_path, plugin="napari-mcm")
        settle(widget)

    return act


def ask(widget: SimilarityWidget, loaded: LoadedFeatures, click: Click) -> Any:
    """Ask for two patches with context, set a threshold and a view."""
    session = widget.session
    settle(widget)
    session.set_features(session.slide, "first", loaded)
    context = context_of(session)
    context.queries.use_neighbourhood(NeighbourhoodConfig(radius=1))
    click((250, 300))
    click((280, 280), modifiers=["Shift"])
    low, high = context.areas.heatmap.limits
    context.areas.set_threshold(low + 0.4 * (high - low))
    session.viewer.scene.camera.center = (200, 260)
    session.viewer.scene.camera.zoom = 3.5
    return context


def test_query_threshold_context_and_view_come_back(
    widget: SimilarityWidget, loaded: LoadedFeatures, click: Click, reopen: Reopen
) -> None:
    context = ask(widget, loaded, click)
    examples, threshold = context.queries.examples, context.areas.threshold
    values = context.areas.heatmap.values
    area = context.areas.area
    reopen()
    camera = widget.session.viewer.scene.camera
    assert camera.zoom == pytest.approx(3.5)
    assert tuple(camera.center)[-2:] == pytest.approx((200, 260))
    # Without features there is nothing to ask.
    assert context.query is None and not len(context.queries.examples)
    widget.session.set_features(widget.session.slide, "first", loaded)
    wait_until(lambda: context.query is not None)
    assert context.queries.examples == examples and context.query.here
    assert context.queries.neighbourhood == NeighbourhoodConfig(radius=1)
    np.testing.assert_array_equal(context.areas.heatmap.values, values)
    assert context.areas.threshold == threshold and context.areas.area == area


@pytest.mark.parametrize("other", ["encoder", "grid"])
def test_other_features_get_no_old_query(
    widget: SimilarityWidget,
    loaded: LoadedFeatures,
    click: Click,
    reopen: Reopen,
    slide_path: Path,
    other: str,
) -> None:
    ask(widget, loaded, click)
    reopen()
    session = widget.session
    wrong = features_of(slide_path, patch_size=60 if other == "grid" else 50)
    if other == "grid":
        wrong.index.features.encoder.update(loaded.index.features.encoder)
    else:
        wrong.index.features.encoder.update({"spec": "another"})
    session.set_features(session.slide, "first", wrong)
    settle(widget)
    context = context_of(session)
    assert context.query is None and not len(context.queries.examples)
    # It waits for the right ones, and is not forgotten meanwhile.
    session.set_features(session.slide, "first", loaded)
    wait_until(lambda: context.query is not None)
    assert len(context.queries.examples) == 2


def test_a_new_query_is_not_replaced_by_the_old_one(
    widget: SimilarityWidget,
    loaded: LoadedFeatures,
    click: Click,
    reopen: Reopen,
    slide_path: Path,
) -> None:
    context = ask(widget, loaded, click)
    reopen()
    session = widget.session
    wrong = features_of(slide_path, patch_size=60)
    session.set_features(session.slide, "second", wrong)
    click((150, 300))
    # The averages over 5 × 5 patches take a moment.
    wait_until(lambda: len(context.queries.examples) == 1)
    asked = context.queries.examples
    session.set_features(session.slide, "first", loaded)
    memory = settle(widget)
    assert context.queries.examples == asked
    mark = memory.fingerprint_of(session.slide)
    assert module._read(mark).query.like == asked.like


def test_a_cleared_query_stays_cleared(
    widget: SimilarityWidget, loaded: LoadedFeatures, click: Click, reopen: Reopen
) -> None:
    context = ask(widget, loaded, click)
    settle(widget)
    context.queries.clear()
    settle(widget)
    reopen()
    widget.session.set_features(widget.session.slide, "first", loaded)
    settle(widget)
    assert context.query is None


def test_each_slide_keeps_its_own_query(
    widget: SimilarityWidget,
    viewer: Any,
    loaded: LoadedFeatures,
    click: Click,
    tmp_path: Path,
) -> None:
    """That of another slide, run on this one, does not replace what was asked here."""
    loaded.index.features.encoder["fingerprint"] = "e"
    context = ask(widget, loaded, click)
    session, first = widget.session, widget.session.slide
    own = context.queries.examples
    path = write_slide(tmp_path / "other.tif", mpp=0.25)
    (other,) = viewer.open(path, plugin="napari-mcm")
    there = features_of(path, patch_size=100, mpp=0.25)
    there.index.features.encoder["fingerprint"] = "e"
    session.set_features(other, "first", there)
    wait_until(lambda: context.query is not None and not context.query.here)
    memory = settle(widget)
    marks = [memory.fingerprint_of(layer) for layer in (first, other)]
    foreign = module._read(marks[1]).query
    assert foreign.slide == marks[0] and foreign.directions[0].fingerprint == "e"
    click((150, 120))
    asked = context.queries.examples
    session.choose_slide(first)
    wait_until(lambda: context.query is not None and context.query.here)
    assert context.queries.examples == own
    settle(widget)
    stored = [module._read(mark) for mark in marks]
    assert [one.query.slide for one in stored] == marks
    assert stored[0].query.like == own.like and not stored[0].query.directions
    assert stored[1].query.like == asked.like
    # Cleared on one slide, the other's own query comes back when it is chosen.
    context.queries.clear()
    settle(widget)
    session.choose_slide(other)
    wait_until(lambda: context.query is not None)
    assert context.query.here and context.queries.examples == asked
    settle(widget)
    assert module._read(marks[0]).query is None
    assert module._read(marks[1]).query.like == asked.like


def test_what_is_stored_is_bounded_and_checked(
    settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_SLIDES", 3)
    folder = settings.parent / "slides"
    query = SavedQuery(slide="a", like=((1.0, 2.0),))
    for number in range(5):
        module._write(f"{number}", SlideState(query=query))
        os.utime(folder / f"{number}.json", (number + 1, number + 1))
    module._write("5", SlideState(query=query))
    assert {file.stem for file in folder.glob("*.json")} == {"3", "4", "5"}
    assert module._read("4").query == query
    assert module._read("0") == SlideState()
    (folder / "3.json").write_text('{"query": {"like": [[1e999, 0]]}}')
    (folder / "4.json").write_text("{")
    assert module._read("3") == module._read("4") == SlideState()
    monkeypatch.setattr(module, "MOST_BYTES", 10)
    assert module._read("5") == SlideState()


def test_features_whose_file_is_there_are_loaded(
    widget: SimilarityWidget, viewer: Any, click: Click, slide_path: Path
) -> None:
    """The whole way: computed, asked, closed, opened again in another window."""
    context = context_of(widget.session)
    widget.options.patch_size.setValue(100)
    widget.first.encoder.setCurrentText("random:test_resnet")
    widget.first.start()
    wait_until(lambda: widget.session.features("first") is not None, 100)
    click((250, 300))
    values = context.areas.heatmap.values
    settle(widget)
    finish(widget)
    viewer.layers.clear()
    context.queries.clear()
    viewer.open(slide_path, plugin="napari-mcm")
    wait_until(lambda: context.query is not None, 100)
    np.testing.assert_allclose(context.areas.heatmap.values, values, atol=1e-6)
