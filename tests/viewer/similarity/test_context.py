"""The slider of the context: what is shown, when, and what follows it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.features.neighbourhood import average_neighbourhood
from napari_mcm.core.heatmaps import SimilarityIndex, read_query, usual_range
from napari_mcm.core.heatmaps.config import DEFAULT_RADIUS
from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.preparation import NeighbourhoodPreparation
from napari_mcm.viewer.similarity.query import load_query, save_query
from napari_mcm.viewer.similarity.shortcuts import HOLD
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import Click, features_of, wait_until, write_slide
from tests.viewer.similarity.test_findings import named, take
from tests.viewer.similarity.test_maps import centre_um, map_of, ready
from tests.viewer.similarity.test_query import again, hover, press, values

__all__ = ["press", "ready"]


def averaged(loaded: LoadedFeatures, radius: int) -> SimilarityIndex:
    """The features averaged themselves, which the viewer never does."""
    config = NeighbourhoodConfig(radius=radius)
    return SimilarityIndex(average_neighbourhood(loaded.index.features, config))


def move_to(widget: SimilarityWidget, radius: int) -> None:
    """Move the slider, and wait for the map of that context."""
    widget.query.around.slider.setValue(radius)
    context = context_of(widget.session)
    wait_until(
        lambda: context.query and context.query.spec.neighbourhood.radius == radius
    )


def test_the_slider_repaints_the_map_of_all_examples(
    ready: SimilarityWidget, click: Click, loaded: LoadedFeatures
) -> None:
    click(centre_um(ready, 5))
    click(centre_um(ready, 40), modifiers=["Shift"])
    click(centre_um(ready, 90), modifiers=["Control"])
    for radius in (1, 3, 2, 0):
        move_to(ready, radius)
        expected = averaged(loaded, radius).query([5, 40], [90])
        assert_allclose(values(ready), expected, atol=1e-5)
        grid = loaded.index.features.grid
        assert_allclose(map_of(ready).data, grid.raster(expected), atol=1e-5)
        named_by = NeighbourhoodConfig(radius=radius).describe()
        title = context_of(ready.session).query.maps["first"].title
        assert title.endswith(f"context {named_by}") == bool(radius)
        assert map_of(ready).name == f"similarity: random 50 (slide, {named_by})"
    # Clicks and steps back go on with that context.
    move_to(ready, 2)
    context_of(ready.session).queries.undo()
    assert_allclose(values(ready), averaged(loaded, 2).query([5, 40]), atol=1e-5)
    click(centre_um(ready, 7))
    assert_allclose(values(ready), averaged(loaded, 2).query(7), atol=1e-5)


def test_the_map_of_a_context_follows_the_cursor(
    ready: SimilarityWidget, loaded: LoadedFeatures, viewer: Any, press: Any
) -> None:
    context = context_of(ready.session)
    ready.query.around.slider.setValue(1)
    viewer.cursor.position = centre_um(ready, 3)
    press.press_key(HOLD)
    expected = loaded.index.features.grid.raster(averaged(loaded, 1).query(30))
    hover(viewer, centre_um(ready, 30))
    wait_until(
        lambda: (
            map_of(ready) is not None
            and np.allclose(map_of(ready).data, expected, atol=1e-5, equal_nan=True)
        )
    )
    press.release_key(HOLD)
    assert context.query.spec.neighbourhood.radius == 1
    assert_allclose(values(ready), averaged(loaded, 1).query(30), atol=1e-5)


def test_a_new_dock_has_the_default_and_keys_move_its_slider(
    viewer: Any, slide_path: Any, plugin: Any
) -> None:
    viewer.open(slide_path, plugin="napari-mcm")
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")
    slider, queries = docked.query.around.slider, context_of(docked.session).queries
    assert slider.value() == queries.neighbourhood.radius == DEFAULT_RADIUS
    QTest.keyClick(slider, Qt.Key.Key_End)
    assert queries.neighbourhood == NeighbourhoodConfig(radius=3)
    bold = [one.text() for one in docked.query.around.labels if one.font().bold()]
    assert bold == ["7 × 7"]


def test_colours_and_thresholds_follow_the_context(
    ready: SimilarityWidget, click: Click, loaded: LoadedFeatures
) -> None:
    areas = context_of(ready.session).areas
    click(centre_um(ready, 5))
    areas.set_threshold(0.11)
    move_to(ready, 2)
    low, high = usual_range(averaged(loaded, 2))
    ends = map_of(ready).contrast_limits
    assert ends[0] <= low < high <= ends[1] and ends[1] - ends[0] < high - low + 0.1
    assert areas.threshold == pytest.approx(ends[0] + 0.75 * (ends[1] - ends[0]))
    areas.set_threshold(0.22)
    move_to(ready, 0)
    assert areas.threshold == 0.11
    move_to(ready, 2)
    assert areas.threshold == 0.22
    expected = np.count_nonzero(averaged(loaded, 2).query(5) >= 0.22)
    assert areas.area[1] == expected


def test_regions_and_differences_have_the_context(
    ready: SimilarityWidget, click: Click, loaded: LoadedFeatures
) -> None:
    other = again(loaded, 1)
    take(ready, other, "second")
    context = context_of(ready.session)
    grid = loaded.index.features.grid
    x, y = grid.centres[[5, 40]].mean(axis=0)
    corners = ((x - 60, y - 60), (x + 60, y - 60), (x + 60, y + 60), (x - 60, y + 60))
    context.queries.use_regions([corners])
    context.queries.compare(("first", "second"))
    move_to(ready, 2)
    inside = (np.abs(grid.centres - (x, y)) < 60).all(axis=1)
    rows = np.flatnonzero(inside).tolist()
    assert len(rows) > 1
    first, second = (averaged(one, 2).query(rows) for one in (loaded, other))
    assert_allclose(values(ready), first, atol=1e-5)
    difference = context.queries.drawn.difference
    assert_allclose(difference.values, second - first, atol=1e-5)
    assert difference.title.endswith("context 5 × 5")


def test_what_is_not_prepared_is_waited_for_without_blocking(
    ready: SimilarityWidget,
    click: Click,
    loaded: LoadedFeatures,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import napari_mcm.core.heatmaps.similarity_index as module

    gate, measure = threading.Event(), module.measure_averages
    begun = threading.Event()

    def slow(*arguments: Any) -> Any:
        begun.set()
        assert gate.wait(60)
        return (yield from measure(*arguments))

    other = again(loaded, 1)
    monkeypatch.setattr(module, "measure_averages", slow)
    context = context_of(ready.session)
    context.queries.use_neighbourhood(NeighbourhoodConfig(radius=2))
    take(ready, other)
    assert begun.wait(60)
    click(centre_um(ready, 5))
    click(centre_um(ready, 9))
    # The clicks came back; the last one is answered once its averages are there.
    assert context.query is None and context.queries.preparation.waiting
    assert ready.query.around.state.text() == "preparing…"
    gate.set()
    wait_until(lambda: context.query is not None)
    assert_allclose(values(ready), averaged(other, 2).query(9), atol=1e-5)
    assert not context.queries.preparation.waiting
    assert ready.query.around.state.text() == ""


def test_features_are_prepared_ahead_and_not_once_their_slide_is_closed(
    loaded: LoadedFeatures, viewer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, other = again(loaded, 1), again(loaded, 2)
    problems: list[str] = []
    preparation = NeighbourhoodPreparation(problems.append)
    preparation.activate([ready])
    radii = [NeighbourhoodConfig(radius=radius) for radius in range(4)]
    wait_until(lambda: all(ready.is_ready(one) for one in radii))
    steps = threading.Semaphore(0)
    begun = threading.Event()
    ended: list[str] = []

    def endless(self: LoadedFeatures, neighbourhood: NeighbourhoodConfig) -> Any:
        try:
            while True:
                begun.set()
                assert steps.acquire(timeout=60)
                yield
        finally:
            ended.append(neighbourhood.describe())

    monkeypatch.setattr(LoadedFeatures, "prepare", endless)
    preparation.activate([other])
    assert begun.wait(60)
    preparation.activate([])
    steps.release(10)
    wait_until(lambda: ended)
    preparation._worker.wait()
    assert set(ended) <= {"3 × 3", "5 × 5", "7 × 7"} and not problems
    QApplication.processEvents()


def test_a_saved_query_brings_its_context(
    ready: SimilarityWidget, click: Click, loaded: LoadedFeatures, tmp_path: Any
) -> None:
    take(ready, named(loaded, "alpha"))
    context = context_of(ready.session)
    click(centre_um(ready, 5))
    move_to(ready, 2)
    before, saved = values(ready).copy(), []
    save_query(context, tmp_path / "a.query.json", saved.append)
    wait_until(lambda: saved)
    assert read_query(saved[0]).encoders[0].neighbourhood.radius == 2
    click(centre_um(ready, 30))
    move_to(ready, 0)
    load_query(context, saved[0])
    wait_until(lambda: ready.query.around.slider.value() == 2)
    wait_until(lambda: context.query is not None)
    assert_allclose(values(ready), before, atol=1e-6)


def test_on_another_slide_the_context_changes_while_the_first_is_open(
    ready: SimilarityWidget,
    click: Click,
    viewer: Any,
    loaded: LoadedFeatures,
    tmp_path: Any,
) -> None:
    session, context = ready.session, context_of(ready.session)
    first = session.slide
    take(ready, named(loaded, "alpha"))
    click(centre_um(ready, 5))
    path = write_slide(tmp_path / "other.tif", mpp=0.6)
    viewer.open(path, plugin="napari-mcm")
    there = features_of(path, patch_size=60)
    take(ready, named(there, "alpha"))
    assert not context.query.here
    move_to(ready, 1)
    direction = averaged(loaded, 1).directions(5)
    assert_allclose(values(ready), averaged(there, 1).compare(direction), atol=1e-5)
    # Once it is closed, query vectors of another context cannot be made.
    viewer.layers.remove(first)
    ready.query.around.slider.setValue(3)
    wait_until(lambda: "made with context 3 × 3" in session.problem)
    assert ready.query.around.slider.value() == 1
    assert context.query.spec.neighbourhood.radius == 1


def test_a_click_on_a_step_or_in_the_groove_chooses_it(ready: SimilarityWidget) -> None:
    around, left = ready.query.around, Qt.MouseButton.LeftButton
    around.resize(280, 60)
    around.show()
    QApplication.processEvents()
    queries = context_of(ready.session).queries
    for radius in (3, 0, 2, 1):
        QTest.mouseClick(around.labels[radius], left)
        assert around.slider.value() == queries.neighbourhood.radius == radius
    slider = around.slider
    for radius in (3, 0, 2):
        # One click, however far it is: the steps divide the groove evenly.
        at = slider.rect().center()
        at.setX(8 + round((slider.width() - 16) * radius / 3))
        QTest.mouseClick(slider, left, pos=at)
        assert slider.value() == queries.neighbourhood.radius == radius
