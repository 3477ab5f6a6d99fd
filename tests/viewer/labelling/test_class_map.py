"""The map of classes is that of the newest labels, on the slide that is seen."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_mcm.core.labelling import fit_classifier
from napari_mcm.core.labelling.training import train_on
from napari_mcm.viewer.labelling import fitting
from napari_mcm.viewer.layers.label_frames import FIRST_CLASS, NOTHING
from napari_mcm.viewer.project.memory import memory_of
from napari_mcm.viewer.similarity.context import context_of
from tests.viewer.conftest import wait_until, write_slide
from tests.viewer.labelling.conftest import Labeller, is_left, two_kinds


def pick(user: Labeller) -> tuple[list[int], list[int]]:
    """Return rows of patches of both kinds."""
    left = is_left(user.grid)
    return np.flatnonzero(left).tolist(), np.flatnonzero(~left).tolist()


def expected(user: Labeller, rows: dict[int, int]) -> Any:
    """Compute the picture of the map from the features: 0 left, 1 right, 2 unsure."""
    features = user.session.features("first").index.features
    order = sorted(rows)
    config = user.context.classifier.config
    found = fit_classifier(
        features.features[order],
        np.asarray([rows[row] for row in order]),
        ("left", "right"),
        config,
    )
    logits = features.features.astype(float) @ found.weights + found.bias
    odds = np.exp((logits[:, 1] - logits[:, 0]) / found.temperature)
    right = odds / (1 + odds)
    top = np.maximum(right, 1 - right)
    codes = np.where(top < config.unsure_below, 2, right > 0.5)
    picture = np.full(features.grid.shape, np.nan, np.float32)
    picture[tuple(features.grid.lattice.T)] = (codes + 0.5) / 3
    return picture


def test_two_labels_of_two_classes_make_a_map(user: Labeller) -> None:
    left, right = pick(user)
    assert user.map is None
    user.label(left[0], "1")
    user.settle()
    assert user.map is None
    assert "another class" in user.widget.map.next_thing()
    user.label(right[0], "2")
    user.settle()
    assert np.allclose(
        user.map.data, expected(user, {left[0]: 0, right[0]: 1}), equal_nan=True
    )
    user.label(left[5], "1")
    user.label(right[5], "2")
    user.settle()
    rows = {left[0]: 0, right[0]: 1, left[5]: 0, right[5]: 1}
    assert np.allclose(user.map.data, expected(user, rows), equal_nan=True)
    assert "uncalibrated: 16 more labels" in user.context.trust.text
    assert "uncalibrated" in user.session.viewer.canvas.overlays.text.text


def test_undo_below_two_classes_empties_the_map(user: Labeller) -> None:
    left, right = pick(user)
    user.label(left[0], "1")
    user.label(right[0], "2")
    user.settle()
    assert np.isfinite(user.map.data).any()
    user.session.order.undo()
    user.settle()
    assert not np.isfinite(user.map.data).any()


def test_the_colours_are_those_of_the_classes(user: Labeller) -> None:
    left, right = pick(user)
    user.label(left[0], "1")
    user.label(right[0], "2")
    user.settle()
    user.widget.classes.use_colour("right", "#ff8000")
    user.settle()
    wanted = [user.labels.classes[0].color, "#ff8000"]
    mapped = user.map.colormap.map(np.asarray([0.5 / 3, 1.5 / 3]))
    for rgba, colour in zip(mapped, wanted, strict=True):
        rgb = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        assert np.allclose(rgba[:3], rgb, atol=1 / 255)
    # Colours of classes do not mix, also where maps are smooth.
    user.session.layers.look.use_smooth(True)
    assert user.map.interpolation2d == "nearest"
    assert user.map.data.shape == user.grid.shape
    # It is remembered, also for other tests.
    user.session.layers.look.use_smooth(False)


def test_areas_are_those_of_the_patches_and_the_unsure_part_is_apart(
    user: Labeller,
) -> None:
    left, right = pick(user)
    user.label(left[0], "1")
    user.label(right[0], "2")
    user.settle()
    codes = np.round(user.map.data[np.isfinite(user.map.data)] * 3 - 0.5)
    side = np.prod(user.grid.patch_size_level0) * 0.25 / 1e6
    areas = {one.label: one for one in user.context.classifier.classes.areas}
    for code, name in enumerate(("left", "right", "unsure")):
        assert areas[name].mm2 == pytest.approx((codes == code).sum() * side)
        assert areas[name].patches == (codes == code).sum()
    tree = user.widget.classes.list
    wait_until(lambda: tree.topLevelItemCount() == 3)
    assert float(tree.topLevelItem(0).text(2)) == pytest.approx(
        areas["left"].mm2, abs=0.01
    )


def test_the_newest_label_wins_and_the_last_map_stays_meanwhile(
    user: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = pick(user)
    user.label(left[0], "1")
    user.label(right[0], "2")
    user.settle()
    before = user.map.data.copy()
    go, calls = (threading.Event(), threading.Event()), []

    def slowly(labelled: Any, *rest: Any) -> Any:
        calls.append(len(labelled))
        go[len(calls) - 1].wait(20)
        return train_on(labelled, *rest)

    monkeypatch.setattr(fitting, "train_on", slowly)
    for number in range(1, 6):
        user.label(right[number], "2")
    assert user.context.classifier.busy
    wait_until(lambda: user.widget.map.title.text() != "Map")
    assert np.array_equal(user.map.data, before, equal_nan=True)
    go[0].set()
    wait_until(lambda: not np.array_equal(user.map.data, before, equal_nan=True))
    # A map came, but not that of the newest label.
    assert user.context.classifier.busy
    go[1].set()
    user.settle()
    wait_until(lambda: user.widget.map.title.text() == "Map")
    # The first of the five, and the newest; none in between.
    assert calls == [3, 7]
    rows = {left[0]: 0, **dict.fromkeys([right[0], *right[1:6]], 1)}
    assert np.allclose(user.map.data, expected(user, rows), equal_nan=True)


def test_the_class_under_the_cursor_is_named(user: Labeller) -> None:
    left, right = pick(user)
    user.label(left[0], "1")
    user.label(right[0], "2")
    user.settle()
    classes = user.context.classifier.classes.classes
    for row in (left[0], right[0], right[7]):
        user.point(row)
        user.context.at_cursor.refresh()
        likely = classes.probabilities[row]
        said = f"{('left', 'right')[likely.argmax()]} {likely.max():.2f}"
        assert said in user.context.at_cursor.text
        unsure = "unsure" in user.context.at_cursor.text
        assert unsure == (likely.max() < 0.6)
    user.session.layers.look.use_visible(False)
    assert user.context.at_cursor.text == ""


def test_a_label_shows_classes_and_a_click_similarity(user: Labeller) -> None:
    left, right = pick(user)
    user.label(left[0], "1")
    user.label(right[0], "2")
    user.settle()
    assert user.map.visible
    similarity = context_of(user.session)
    similarity.queries.point(*map(float, user.grid.centres[3]))
    maps = user.session.layers.map_of
    wait_until(lambda: maps(user.session.slide, "first") is not None)
    other = maps(user.session.slide, "first")
    wait_until(lambda: other.visible)
    assert not user.map.visible
    user.label(left[4], "1")
    user.settle()
    assert user.map.visible
    assert not other.visible
    # Without a second class there is no map of classes: similarity is seen again.
    user.session.labels.use(user.labels.without_class("right"))
    user.settle()
    assert other.visible
    user.session.order.undo()
    user.settle()
    assert user.map.visible
    assert not other.visible
    # Another query, of which a map exists already.
    similarity.queries.point(*map(float, user.grid.centres[8]))
    wait_until(lambda: other.visible)
    assert not user.map.visible


def test_the_map_of_another_slide_is_its_own(user: Labeller, tmp_path: Path) -> None:
    left, right = pick(user)
    user.label(left[0], "1")
    user.label(right[0], "2")
    user.settle()
    first, first_map = user.session.slide, user.map
    kept = first_map.data.copy()
    path = write_slide(tmp_path / "other.tif", 0.4)
    user.session.viewer.open(path, plugin="napari-mcm")
    assert not first_map.visible
    frames = user.context.maps._frames
    assert not frames.layer_of(first).visible
    second = user.session.slide
    user.session.set_features(second, "first", two_kinds(path, 0.4))
    user.settle()
    # Both slides' labels train it, and there are none on the new one.
    assert user.map is not first_map
    assert user.map.visible
    assert np.isfinite(user.map.data).any()
    assert frames.layer_of(second) is None
    user.session.choose_slide(first)
    user.settle()
    assert first_map.visible
    assert np.array_equal(first_map.data, kept, equal_nan=True)
    assert not user.session.layers.map_of(second, "classes").visible


def test_accuracy_and_change_are_stated(user: Labeller) -> None:
    left, right = pick(user)
    for number in range(11):
        user.label(left[number], "1")
        user.label(right[number], "2")
        user.settle()
    trust = user.context.trust
    wait_until(lambda: trust.accuracy is not None)
    assert trust.accuracy.mean == 1.0
    assert "uncalibrated" not in trust.text
    assert trust.change is not None
    count, share = trust.change
    assert count == 10
    assert 0 <= share < 0.5
    assert "the last 10 labels changed" in trust.text


def frame_at(user: Labeller, row: int) -> int:
    """Return what the layer of labels shows in the middle of a patch."""
    (layer,) = (
        one for one in user.session.viewer.layers if one.name.startswith("labels: ")
    )
    x, y = user.grid.centres[row] - 0.5
    world = user.session.slide.data_to_world((y, x))
    level, value = layer.get_value(world, world=True)
    # Far out, where napari keeps the pixels of the level.
    assert level == len(layer.data) - 1
    return (int(value) - 1) // 2


def test_far_out_frames_are_those_of_the_labels_of_now(user: Labeller) -> None:
    # A patch is 7.5 pixels wide on the screen, and filled with the colour of its class.
    user.session.viewer.scene.camera.zoom = 0.3
    user.label(3, "1")
    assert frame_at(user, 3) == FIRST_CLASS
    user.label(9, "2")
    user.label(3, "0")
    assert frame_at(user, 3) == NOTHING and frame_at(user, 9) == FIRST_CLASS + 1
    user.session.order.undo()
    assert frame_at(user, 3) == FIRST_CLASS


def test_far_out_frames_that_were_hidden_are_those_of_now(user: Labeller) -> None:
    user.session.viewer.scene.camera.zoom = 0.3
    user.label(3, "1")
    layer = user.session.viewer.layers[f"labels: {user.session.slide.name}"]
    layer.visible = False
    user.label(9, "2")
    layer.visible = True
    assert frame_at(user, 9) == FIRST_CLASS + 1


def test_labels_are_framed_as_soon_as_their_slide_is_known(
    user: Labeller, tmp_path: Path
) -> None:
    # As in a project that is opened: its labels come first, then its slides.
    other = write_slide(tmp_path / "other.tif", mpp=0.4)
    grid = two_kinds(other, mpp=0.4).index.features.grid
    user.session.labels.add(grid, [3, 9], "left")
    user.session.viewer.open(other, plugin="napari-mcm")
    wait_until(lambda: memory_of(user.session).fingerprint_of(user.session.slide))
    layer = user.session.viewer.layers["labels: other"]
    assert layer.visible


def test_marks_of_the_query_are_hidden_on_the_map_of_classes(user: Labeller) -> None:
    left, right = pick(user)
    queries, layers = context_of(user.session).queries, user.session.layers
    queries.point(*map(float, user.grid.centres[left[3]]))
    wait_until(lambda: layers.examples.layer is not None)
    marks = layers.examples.layer
    assert marks.visible
    user.label(left[0], "1")
    user.label(right[0], "2")
    user.settle()
    assert user.map.visible and not marks.visible
    queries.point(*map(float, user.grid.centres[right[3]]))
    wait_until(lambda: not user.map.visible)
    assert marks.visible and len(marks.data)
    # Also where the user opens and closes the eye of the map.
    user.map.visible = True
    assert not marks.visible
    user.map.visible = False
    assert marks.visible
    user.label(right[5], "2")
    user.settle()
    user.session.viewer.layers.remove(marks)
    queries.rerun()
    wait_until(lambda: layers.examples.layer is not None)
    assert user.map.visible and not layers.examples.layer.visible
