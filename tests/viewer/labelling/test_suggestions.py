"""Label next: the view follows, answers label, and the slide changes where needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from tests.viewer.conftest import wait_until, write_slide
from tests.viewer.labelling.conftest import Labeller, is_left, two_kinds


def start(user: Labeller) -> None:
    """Label one patch of each kind, and begin to label next."""
    left = is_left(user.grid)
    user.label(int(np.flatnonzero(left)[0]), "1")
    user.label(int(np.flatnonzero(~left)[0]), "2")
    user.settle()
    suggestions = user.context.suggestions
    wait_until(lambda: suggestions.items and suggestions.items[0].label)
    wait_until(lambda: user.widget.next.start.isEnabled())
    user.widget.next.start.click()
    wait_until(lambda: suggestions.current is not None)


def centre_of_view(user: Labeller) -> tuple[float, float]:
    world = user.session.viewer.scene.camera.center[-2:]
    y, x = user.session.slide.world_to_data(world)[-2:]
    return float(x), float(y)


def test_answers_label_and_the_view_follows(user: Labeller) -> None:
    start(user)
    suggestions, strip = user.context.suggestions, user.widget.next.strip
    seen = []
    for key, label in ((Qt.Key.Key_Return, None), ("2", "right"), ("1", "left")):
        one = suggestions.current
        assert np.allclose(
            centre_of_view(user), one.grid.centres[one.row] - 0.5, atol=1
        )
        seen.append((one.key, label or one.label))
        QTest.keyClick(strip, key)
        user.settle()
        wait_until(lambda: suggestions.current is not None)
    labels = {(x.slide, x.x, x.y): x for x in user.labels.labels}
    for key, label in seen:
        assert labels[key].label == label
        assert labels[key].source == "suggestion"
    assert len({key for key, _ in seen}) == 3


def test_the_patch_to_judge_has_a_frame_and_no_tint(user: Labeller) -> None:
    start(user)
    strip = user.widget.next.strip
    strip.show()
    QTest.qWait(50)
    assert strip.item(0).isSelected() and not strip.item(1).isSelected()
    image = strip.viewport().grab().toImage()
    boxes = [strip.visualItemRect(strip.item(number)) for number in (0, 1)]
    # Beside the pictures, inside of the frame.
    inside = [image.pixelColor(b.left() + 4, b.top() + 4).name() for b in boxes]
    assert inside[0] == inside[1]
    edge = image.pixelColor(boxes[0].left() + 1, boxes[0].center().y()).name()
    assert edge == "#f5b800"


def test_a_skipped_patch_is_suggested_no_more(user: Labeller) -> None:
    start(user)
    suggestions = user.context.suggestions
    skipped = suggestions.current.key
    # Over the canvas, too.
    user.press(Qt.Key.Key_Space)
    assert len(user.labels) == 2
    user.press(Qt.Key.Key_Return)
    user.settle()
    wait_until(lambda: not suggestions.reading and not suggestions._timer.isActive())
    assert len(user.labels) == 3
    assert skipped not in {one.key for one in suggestions.items}
    user.press(Qt.Key.Key_Escape)
    assert not suggestions.active
    # The digits are of the pointer again.
    row = int(np.flatnonzero(is_left(user.grid))[7])
    user.label(row, "2")
    assert user.labels.labels[-1].source == "click"


def test_no_labelled_patch_is_suggested(user: Labeller) -> None:
    start(user)
    suggestions = user.context.suggestions
    for _ in range(12):
        user.press("1")
        user.settle()
        wait_until(
            lambda: not suggestions.reading and not suggestions._timer.isActive()
        )
        places = {label.place[:3] for label in user.labels.labels}
        assert not places & {one.key for one in suggestions.items}
    assert len(user.labels) == 14


def test_all_slides_are_suggested_and_the_view_goes_to_theirs(
    user: Labeller, tmp_path: Path
) -> None:
    path = write_slide(tmp_path / "other.tif", 0.4)
    first = user.session.slide
    user.session.viewer.open(path, plugin="napari-mcm")
    second = user.session.slide
    user.session.set_features(second, "first", two_kinds(path, 0.4))
    user.session.choose_slide(first)
    user.settle()
    start(user)
    suggestions = user.context.suggestions
    suggestions.use_scope("project")
    wait_until(lambda: len({one.slide for one in suggestions.items}) == 2)
    mark = user.session.features_of(second)["first"].index.features.grid.slide
    other = next(one for one in suggestions.items if one.slide == mark["fingerprint"])
    suggestions.go_to(other)
    assert user.session.slide is second
    assert np.allclose(
        centre_of_view(user), other.grid.centres[other.row] - 0.5, atol=1
    )
    assert user.map is not None or user.context.classifier.busy
    user.press("2")
    found = [one for one in user.labels.labels if one.slide == other.slide]
    assert [(one.x, one.y, one.label) for one in found] == [(*other.key[1:], "right")]
    # Labels of both slides train the classifier.
    user.settle()
    assert len(user.context.classifier.fit.rows) == 3


def test_closing_the_dock_ends_the_suggestions(user: Labeller) -> None:
    start(user)
    dock = user.widget.parentWidget()
    # Another dock keeps the session.
    user.session.viewer.window.add_plugin_dock_widget("napari-mcm", "Slide")
    dock.destroyOnClose()
    wait_until(lambda: not user.context.suggestions.active)
    count = len(user.labels)
    user.press(Qt.Key.Key_Return)
    assert len(user.labels) == count
