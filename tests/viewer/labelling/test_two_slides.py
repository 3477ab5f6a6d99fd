"""Labels of two slides: which maps are seen side by side, and how far to trust them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_mcm.viewer.similarity.context import context_of
from tests.viewer.conftest import features_of, wait_until, write_slide
from tests.viewer.labelling.conftest import Labeller, is_left, two_kinds


def label(user: Labeller, kind: str, start: int, count: int) -> None:
    """Label patches of one kind of the current slide."""
    left = is_left(user.grid)
    rows = np.flatnonzero(left if kind == "left" else ~left)
    for row in rows[start : start + count]:
        user.label(int(row), "1" if kind == "left" else "2")


def open_second(user: Labeller, folder: Path, features: Any = two_kinds) -> Any:
    path = write_slide(folder / "other.tif", 0.4)
    user.session.viewer.open(path, plugin="napari-mcm")
    second = user.session.slide
    user.session.set_features(second, "first", features(path, mpp=0.4))
    user.settle()
    return second


def seen(user: Labeller, slide: Any) -> list[str]:
    """The kinds of map that are seen on a slide."""
    found = {s: user.session.layers.map_of(slide, s) for s in ("classes", "first")}
    return [
        slot for slot, layer in found.items() if layer is not None and layer.visible
    ]


def ask(user: Labeller, row: int) -> None:
    """Start a query at a patch of the current slide, and wait for its map."""
    context_of(user.session).queries.point(*map(float, user.grid.centres[row]))
    slide = user.session.slide
    wait_until(lambda: seen(user, slide) == ["first"])


def test_side_by_side_all_slides_show_the_kind_that_was_asked_last(
    user: Labeller, tmp_path: Path
) -> None:
    # A map of an earlier query, which is not made anew.
    ask(user, 3)
    label(user, "left", 0, 2)
    label(user, "right", 0, 2)
    user.settle()
    first = user.session.slide
    second = open_second(user, tmp_path)
    ask(user, 3)
    assert seen(user, first) == []
    user.session.show_side_by_side(True)
    user.settle()
    wait_until(lambda: seen(user, first) == ["first"])
    assert seen(user, second) == ["first"]
    label(user, "left", 4, 1)
    user.settle()
    assert [seen(user, one) for one in (first, second)] == [["classes"]] * 2
    ask(user, 8)
    wait_until(lambda: seen(user, first) == ["first"])


def test_side_by_side_a_slide_without_the_map_that_was_asked_shows_none(
    user: Labeller, tmp_path: Path
) -> None:
    label(user, "left", 0, 2)
    label(user, "right", 0, 2)
    user.settle()
    first = user.session.slide
    # Of another encoder: its patches have no classes.
    second = open_second(user, tmp_path, features_of)
    ask(user, 3)
    user.session.choose_slide(first)
    label(user, "left", 4, 1)
    user.settle()
    user.session.show_side_by_side(True)
    user.settle()
    assert seen(user, first) == ["classes"]
    assert seen(user, second) == []
    user.session.choose_slide(second)
    ask(user, 8)
    assert seen(user, first) == []


def test_labels_here_are_told_from_those_of_all_slides(
    user: Labeller, tmp_path: Path
) -> None:
    tree = user.widget.classes.list
    label(user, "left", 0, 2)
    label(user, "right", 0, 2)
    wait_until(lambda: tree.topLevelItem(0).text(1) == "2")
    open_second(user, tmp_path)
    wait_until(lambda: tree.topLevelItem(0).text(1) == "0 / 2")
    label(user, "left", 0, 1)
    wait_until(lambda: tree.topLevelItem(0).text(1) == "1 / 3")
    assert tree.headerItem().text(1) == "Here / all"


def test_the_line_says_what_was_held_out_and_why(
    user: Labeller, tmp_path: Path
) -> None:
    trust = user.context.trust
    name = user.session.slide.name
    label(user, "left", 0, 3)
    label(user, "right", 0, 3)
    user.settle()
    wait_until(lambda: trust.accuracy is not None)
    assert trust.text.split(" · ")[0].endswith("over labels")
    open_second(user, tmp_path)
    wait_until(lambda: f"over labels of {name} ·" in trust.text)
    label(user, "left", 0, 2)
    user.settle()
    assert "(updating…)" in trust.text
    reason = "over labels: right is labelled on one slide only ·"
    wait_until(lambda: reason in trust.text)
    label(user, "right", 0, 2)
    wait_until(lambda: "over slides ·" in trust.text)


def test_the_caption_lists_the_classes_that_are_on_the_map(user: Labeller) -> None:
    label(user, "left", 0, 2)
    label(user, "right", 0, 2)
    user.session.labels.new_class("fat")
    user.settle()
    caption = user.session.viewer.canvas.overlays.text
    assert "classes 1 left, 2 right" in caption.text
    assert "fat" not in caption.text
