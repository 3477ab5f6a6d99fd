"""What keys, the lasso, the threshold and the gallery label, and how it is undone."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QLineEdit

from napari_mcm.viewer.similarity.context import context_of
from tests.viewer.conftest import wait_until
from tests.viewer.labelling.conftest import Labeller


def labelled(user: Labeller) -> dict[tuple[int, int], str]:
    """Return the class of each labelled patch, by its corner."""
    return {(one.x, one.y): one.label for one in user.labels.labels}


def corners(user: Labeller, rows: Any) -> list[tuple[int, int]]:
    return [tuple(xy) for xy in user.grid.xy[list(rows)].tolist()]


def test_a_digit_labels_the_patch_under_the_pointer(user: Labeller) -> None:
    user.label(3, "1")
    user.label(9, "2")
    (three,), (nine,) = corners(user, [3]), corners(user, [9])
    assert labelled(user) == {three: "left", nine: "right"}
    assert {one.source for one in user.labels.labels} == {"click"}
    # Another digit on the same patch corrects it, and 0 takes it away.
    user.label(3, "2")
    user.label(9, "0")
    assert labelled(user) == {three: "right"}


def test_a_digit_without_class_or_patch_labels_nothing(user: Labeller) -> None:
    user.label(3, "7")
    assert "7" in user.session.problem
    user.session.viewer.cursor.position = (0.0, 0.0)
    user.press("1")
    assert labelled(user) == {}
    assert "no patch" in user.context.labels.note


def test_a_layer_that_is_edited_keeps_its_digits(user: Labeller) -> None:
    layer = user.session.viewer.add_labels(np.zeros((4, 4), np.uint8))
    user.session.layers.activate(layer)
    layer.mode = "paint"
    user.label(3, "1")
    assert labelled(user) == {}
    # napari's own key, the eraser.
    assert str(layer.mode) == "erase"


def test_a_digit_labels_the_lasso_s_region_and_removes_the_lasso(
    user: Labeller,
) -> None:
    user.press("L")
    lasso = user.context.labels.lasso
    layer = user.session.layers.active
    assert str(layer.mode) == "add_polygon_lasso"
    low = user.grid.xy[0] + (-5.0, -5.0)
    width, height = user.grid.patch_size_level0
    high = low + (2.2 * width, 1.2 * height)
    outline = [
        (low[1], low[0]),
        (low[1], high[0]),
        (high[1], high[0]),
        (high[1], low[0]),
    ]
    layer.add(np.asarray(outline) - 0.5, shape_type="polygon")
    wait_until(lambda: lasso.regions)
    centres = user.grid.centres
    inside = np.flatnonzero(((centres > low) & (centres < high)).all(axis=1))
    assert len(inside) > 1
    user.press("2")
    assert labelled(user) == dict.fromkeys(corners(user, inside), "right")
    assert {one.source for one in user.labels.labels} == {"lasso"}
    assert lasso.regions == ()
    assert layer not in user.session.viewer.layers
    # The slide is what clicks are on again.
    assert user.session.layers.active is user.session.slide


def test_escape_drops_a_region_and_keeps_the_labels(user: Labeller) -> None:
    user.label(3, "1")
    user.press("L")
    assert user.context.labels.lasso.drawing
    user.press(Qt.Key.Key_Escape)
    assert not user.context.labels.lasso.drawing
    assert len(labelled(user)) == 1


def test_the_area_above_the_threshold_and_the_examples_are_labelled(
    user: Labeller,
) -> None:
    similarity = context_of(user.session)
    similarity.queries.point(*map(float, user.grid.centres[3]))
    wait_until(lambda: similarity.areas.heatmap is not None)
    similarity.areas.set_threshold(0.5)
    heatmap = similarity.areas.heatmap
    rows = np.flatnonzero(heatmap.values >= 0.5)
    QTest.keyClick(user.canvas, "1", Qt.KeyboardModifier.ControlModifier)
    assert labelled(user) == dict.fromkeys(corners(user, rows), "left")
    similarity.queries.point(*map(float, user.grid.centres[9]), "unlike")
    similarity.queries.point(*map(float, user.grid.centres[12]), "unlike")
    user.context.labels.label_examples("right", like=False)
    found = [one for one in user.labels.labels if one.label == "right"]
    assert sorted((one.x, one.y) for one in found) == sorted(corners(user, [9, 12]))
    assert {one.source for one in found} == {"gallery"}


def test_a_digit_on_the_gallery_labels_the_selected_patches(user: Labeller) -> None:
    viewer = user.session.viewer
    _, similarity = viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")
    context_of(user.session).queries.point(*map(float, user.grid.centres[3]))
    gallery = context_of(user.session).gallery
    wait_until(lambda: len(gallery.tops) > 4)
    strip = similarity.gallery.strip
    wait_until(lambda: strip.count() == len(gallery.tops))
    strip.item(0).setSelected(True)
    strip.item(2).setSelected(True)
    rows = [gallery.tops[0].row, gallery.tops[2].row]
    QTest.keyClick(strip, "2")
    assert labelled(user) == dict.fromkeys(corners(user, rows), "right")
    wait_until(lambda: gallery.complete)


def test_the_keys_of_undo_follow_the_order_of_queries_and_labels(
    user: Labeller,
) -> None:
    similarity = context_of(user.session)
    user.label(3, "1")
    similarity.queries.point(*map(float, user.grid.centres[5]))
    user.label(9, "2")
    control = Qt.KeyboardModifier.ControlModifier

    def state() -> tuple[int, int]:
        return len(labelled(user)), len(similarity.queries.examples)

    def undo() -> None:
        QTest.keyClick(user.canvas, Qt.Key.Key_Z, control)

    wait_until(lambda: state() == (2, 1))
    undo()
    assert state() == (1, 1)
    undo()
    wait_until(lambda: state() == (1, 0))
    undo()
    assert state() == (0, 0)
    both = control | Qt.KeyboardModifier.ShiftModifier
    QTest.keyClick(user.canvas, Qt.Key.Key_Z, both)
    assert state() == (1, 0)


def test_the_name_of_a_new_class_is_typed_at_once(user: Labeller) -> None:
    panel = user.widget.classes
    before = user.labels.names
    panel.add.click()
    # What else happens meanwhile leaves the editor open.
    user.session.labels.changed.emit()
    for _ in range(3):
        QTest.qWait(30)
    found = panel.list.findChildren(QLineEdit)
    (editor,) = (one for one in found if one.isVisibleTo(panel.list))
    QTest.keyClicks(editor, "fat")
    QTest.keyClick(editor, Qt.Key.Key_Return)
    wait_until(lambda: user.labels.names == (*before, "fat"))


def test_a_class_is_renamed_merged_and_deleted_with_its_labels(user: Labeller) -> None:
    user.label(3, "1")
    user.label(9, "2")
    panel = user.widget.classes
    item = panel.list.topLevelItem(0)
    item.setText(0, "tumour")
    wait_until(lambda: user.labels.names == ("tumour", "right"))
    assert set(labelled(user).values()) == {"tumour", "right"}
    panel.list.topLevelItem(1).setText(0, "tumour")
    wait_until(lambda: user.labels.names == ("tumour",))
    assert list(labelled(user).values()) == ["tumour", "tumour"]
    user.session.order.undo()
    assert user.labels.names == ("tumour", "right")
    panel._delete("right")
    assert user.labels.names == ("tumour",)
    assert list(labelled(user).values()) == ["tumour"]
