"""Queries of several examples: keys, drags, regions, differences, other slides."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.utils._test_utils import read_only_mouse_event
from napari.utils.interactions import mouse_move_callbacks

from napari_mcm.core.heatmaps import SimilarityIndex
from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.shortcuts import HOLD, KEYS
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import Click, features_of, wait_until
from tests.viewer.similarity.test_maps import centre_um, map_of


@pytest.fixture
def ready(widget: SimilarityWidget, loaded: LoadedFeatures) -> SimilarityWidget:
    """The widget with features in its first slot."""
    widget.session.set_features(widget.session.slide, "first", loaded)
    return widget


@pytest.fixture
def press(viewer: Any) -> Iterator[Any]:
    """Give the canvas's own handler of keys."""
    from napari.utils.key_bindings import KeymapHandler

    handler = KeymapHandler()
    handler.keymap_providers = [viewer]
    yield handler


def hover(viewer: Any, world: tuple[float, float]) -> None:
    """Move the mouse over the canvas without a button."""
    fields = {"button": 0, "modifiers": [], "is_dragging": False}
    event = read_only_mouse_event(
        type="mouse_move", pos=np.asarray((9, 9)), position=world, **fields
    )
    viewer.cursor.position = world
    mouse_move_callbacks(viewer, event)


def again(loaded: LoadedFeatures, seed: int) -> LoadedFeatures:
    """Features of the same patches by another encoder."""
    features = loaded.index.features
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal(features.features.shape, np.float32)
    made = replace(features, features=vectors, encoder={"fingerprint": str(seed)})
    return LoadedFeatures(f"encoder {seed}", SimilarityIndex(made), Path("none"))


def values(widget: SimilarityWidget, slot: str = "first") -> Any:
    return context_of(widget.session).query.maps[slot].values


def test_the_map_follows_the_cursor_while_the_key_is_held(
    ready: SimilarityWidget, viewer: Any, press: Any
) -> None:
    places = [centre_um(ready, patch) for patch in (3, 30, 60)]
    index = ready.session.features("first").index
    viewer.cursor.position = places[0]
    press.press_key(HOLD)
    assert not viewer.scene.camera.mouse_pan
    for patch, place in zip((3, 30, 60), places, strict=True):
        hover(viewer, place)
        row, column = index.features.grid.lattice[patch]
        wait_until(
            lambda at=(row, column): (
                map_of(ready) is not None and map_of(ready).data[at] > 0.999
            )
        )
    press.release_key(HOLD)
    assert viewer.scene.camera.mouse_pan
    assert context_of(ready.session).query.maps["first"].query == 60
    hover(viewer, places[0])
    assert context_of(ready.session).query.maps["first"].query == 60


def test_one_piece_of_work_at_a_time_and_the_newest_next(viewer: Any) -> None:
    gate, begun, shown = threading.Semaphore(0), [], []
    running, most = [0], [0]

    def work(place: int) -> int:
        running[0] += 1
        most[0] = max(most[0], running[0])
        begun.append(place)
        gate.acquire(timeout=10)
        running[0] -= 1
        return place

    worker = BackgroundWorker()
    for place in range(50):
        worker.follow("hover", partial(work, place), shown.append, shown.append)
    wait_until(lambda: begun == [0])
    gate.release(2)
    wait_until(lambda: len(shown) == 2)
    assert begun == shown == [0, 49] and most == [1]


def test_dropped_work_is_not_shown(viewer: Any) -> None:
    gate, shown = threading.Semaphore(0), []

    def work(place: int) -> int:
        gate.acquire(timeout=10)
        return place

    worker = BackgroundWorker()
    worker.follow("hover", lambda: work(1), shown.append, shown.append)
    worker.drop("hover")
    gate.release(2)
    worker.follow("hover", lambda: work(2), shown.append, shown.append)
    wait_until(lambda: shown == [2])


def test_shift_adds_and_ctrl_takes_away(
    ready: SimilarityWidget, click: Click, viewer: Any
) -> None:
    index = ready.session.features("first").index
    click(centre_um(ready, 5))
    click(centre_um(ready, 20), modifiers=["Shift"])
    np.testing.assert_allclose(values(ready), index.query([5, 20]), atol=1e-6)
    click(centre_um(ready, 40), modifiers=["Control"])
    np.testing.assert_allclose(values(ready), index.query([5, 20], 40), atol=1e-6)
    symbols = [str(symbol) for symbol in viewer.layers["query patch"].symbol]
    # Two frames, one on the other, and what is in them.
    similar, dissimilar = ["square", "square", "square"], ["square", "square", "x"]
    assert symbols == [*similar, *similar, *dissimilar]
    click(centre_um(ready, 7))
    np.testing.assert_allclose(values(ready), index.query(7), atol=1e-6)
    assert len(viewer.layers["query patch"].data) == 3


def test_unlike_alone_is_no_query(ready: SimilarityWidget, click: Click) -> None:
    click(centre_um(ready, 5), modifiers=["Control"])
    assert context_of(ready.session).query is None
    assert "similar" in ready.problem.text()


def test_backspace_takes_back_and_escape_clears(
    ready: SimilarityWidget, click: Click, viewer: Any, press: Any
) -> None:
    index = ready.session.features("first").index
    click(centre_um(ready, 5))
    click(centre_um(ready, 20), modifiers=["Shift"])
    press.press_key(KEYS["back"])
    np.testing.assert_allclose(values(ready), index.query(5), atol=1e-6)
    press.press_key(KEYS["back"])
    assert context_of(ready.session).query is None
    click(centre_um(ready, 5))
    click(centre_um(ready, 20), modifiers=["Shift"])
    press.press_key(KEYS["clear"])
    assert context_of(ready.session).query is None
    assert np.isnan(map_of(ready).data).all()
    assert not len(viewer.layers["query patch"].data)
    # Clearing is a step like any other.
    press.press_key(KEYS["back"])
    np.testing.assert_allclose(values(ready), index.query([5, 20]), atol=1e-6)


def test_the_middle_of_the_view_serves_without_a_mouse(
    ready: SimilarityWidget, viewer: Any, press: Any
) -> None:
    for key, patch in (("middle", 5), ("middle_like", 9), ("middle_unlike", 30)):
        viewer.scene.camera.center = centre_um(ready, patch)
        press.press_key(KEYS[key])
    index = ready.session.features("first").index
    np.testing.assert_allclose(values(ready), index.query([5, 9], 30), atol=1e-6)


def test_examples_that_cancel_out_are_told(
    ready: SimilarityWidget, click: Click
) -> None:
    click(centre_um(ready, 5))
    before = context_of(ready.session).query
    click(centre_um(ready, 5), modifiers=["Control"])
    assert "cancel each other out" in ready.problem.text()
    assert context_of(ready.session).query is before


def test_the_difference_of_two_encoders(
    ready: SimilarityWidget, click: Click, loaded: LoadedFeatures, press: Any
) -> None:
    session = ready.session
    session.set_features(session.slide, "second", again(loaded, 1))
    session.set_features(session.slide, "third", again(loaded, 2))
    click(centre_um(ready, 5))
    context_of(session).queries.compare(("first", "third"))
    grid = loaded.index.features.grid
    layer = map_of(ready, "difference")
    expected = values(ready, "third") - values(ready, "first")
    shown = layer.data[grid.lattice[:, 0], grid.lattice[:, 1]]
    np.testing.assert_allclose(shown, expected, atol=1e-6)
    low, high = layer.contrast_limits
    assert low == -high
    assert context_of(session).queries.drawn.shown() == ["difference"]
    seen = []
    for _ in range(4):
        press.press_key(KEYS["next"])
        seen += context_of(session).queries.drawn.shown()
    assert seen == ["first", "second", "third", "difference"]
    click(centre_um(ready, 30))
    shown = layer.data[grid.lattice[:, 0], grid.lattice[:, 1]]
    np.testing.assert_allclose(shown, values(ready, "third") - values(ready))


def test_no_difference_of_different_patches(
    ready: SimilarityWidget, click: Click, slide_path: Path
) -> None:
    session = ready.session
    click(centre_um(ready, 30))
    other = features_of(slide_path, patch_size=80)
    session.set_features(session.slide, "second", other)
    context_of(session).queries.compare(("first", "second"))
    assert "different patches" in context_of(session).queries.drawn.problem
    assert map_of(ready, "difference") is None
