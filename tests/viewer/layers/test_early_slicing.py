"""A view that moved is drawn once, with the pixels of where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_mcm.viewer.layers.early_slicing import canvas_of, slice_before_drawing
from tests.viewer.conftest import wait_until


def opened(make_napari_viewer: Any, path: Path) -> Any:
    """A window whose view is smaller than the slide."""
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(900, 600)
    viewer.open(path, plugin="napari-mcm")
    native = canvas_of(viewer).native
    near: list[bool] = []

    def is_near() -> bool:
        # A dock that opens with the slide fits the view once more.
        near.append(viewer.scene.camera.zoom == 6 and viewer.layers[0].data_level == 0)
        viewer.scene.camera.center, viewer.scene.camera.zoom = (100, 100), 6
        return native.isVisible() and len(near) > 100 and all(near[-50:])

    wait_until(is_near)
    settle()
    return viewer


def settle() -> None:
    for _ in range(20):
        QApplication.processEvents()


class Drawings:
    """The slice of the slide at each drawing of the scene."""

    def __init__(self, viewer: Any) -> None:
        self.slices: list[Any] = []
        self._layer = viewer.layers[0]
        scene = canvas_of(viewer)._scene_canvas
        original = scene._draw_scene

        def draw(*args: Any, **kwargs: Any) -> None:
            self.slices.append(np.array(self._layer.corner_pixels))
            original(*args, **kwargs)

        scene.unfreeze()
        scene._draw_scene = draw


def test_a_pan_is_drawn_once_with_the_new_pixels(
    make_napari_viewer: Any, plugin: Any, slide_path: Path
) -> None:
    viewer = opened(make_napari_viewer, slide_path)
    drawings = Drawings(viewer)
    before = np.array(viewer.layers[0].corner_pixels)
    viewer.scene.camera.center = (350, 450)
    wait_until(lambda: drawings.slices)
    settle()
    after = np.array(viewer.layers[0].corner_pixels)
    assert not np.array_equal(after, before)
    assert len(drawings.slices) == 1
    np.testing.assert_array_equal(drawings.slices[0], after)


def test_the_mouse_pans_likewise(
    make_napari_viewer: Any, plugin: Any, slide_path: Path
) -> None:
    viewer = opened(make_napari_viewer, slide_path)
    native, drawings = canvas_of(viewer).native, Drawings(viewer)
    middle = native.rect().center()
    button = Qt.MouseButton.LeftButton
    QTest.mousePress(native, button, pos=middle)
    for step in range(1, 5):
        QTest.mouseMove(native, middle - QPoint(60 * step, 40 * step))
        settle()
    QTest.mouseRelease(native, button, pos=middle - QPoint(240, 160))
    settle()
    final = np.array(viewer.layers[0].corner_pixels)
    np.testing.assert_array_equal(drawings.slices[-1], final)
    # A drawing of other pixels than those that are there afterwards would be seen.
    assert len(drawings.slices) <= 5


def test_a_caption_that_changes_is_drawn_once(
    make_napari_viewer: Any, plugin: Any, slide_path: Path
) -> None:
    viewer = opened(make_napari_viewer, slide_path)
    overlay = viewer.canvas.overlays.text
    overlay.visible = True
    overlay.text = "one"
    settle()
    drawings = Drawings(viewer)
    overlay.text = "a longer text than before"
    wait_until(lambda: drawings.slices)
    settle()
    assert len(drawings.slices) == 1


def test_a_viewer_is_prepared_once(
    make_napari_viewer: Any, plugin: Any, slide_path: Path
) -> None:
    viewer = opened(make_napari_viewer, slide_path)
    number = len(canvas_of(viewer).events.draw.callbacks)
    slice_before_drawing(viewer)
    assert len(canvas_of(viewer).events.draw.callbacks) == number
