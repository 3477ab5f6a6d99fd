"""Two windows at a time, each with its slide and its widget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.utils.key_bindings import KeymapHandler
from qtpy.QtWidgets import QApplication

from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.shortcuts import HOLD, KEYS
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import features_of, finish, mouse_of, write_slide
from tests.viewer.similarity.test_maps import centre_um, map_of
from tests.viewer.similarity.test_query import hover, values


class Window:
    """A viewer that shows a slide with features, and the widget docked in it."""

    def __init__(self, viewer: Any, path: Path) -> None:
        write_slide(path)
        viewer.open(path, plugin="napari-mcm")
        dock, widget = viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")
        self.viewer, self.dock = viewer, dock
        self.widget: SimilarityWidget = widget
        loaded = features_of(path)
        widget.session.set_features(widget.session.slide, "first", loaded)
        self._mouse, self.keys = mouse_of(viewer), KeymapHandler()
        self.keys.keymap_providers = [viewer]

    def click(self, patch: int, *modifiers: str) -> None:
        """Click on a patch."""
        self._mouse(centre_um(self.widget, patch), modifiers=list(modifiers))

    def state(self) -> dict[str, Any]:
        """All that a hand in the other window must not change."""
        viewer, session = self.viewer, self.widget.session
        query, layers = context_of(session).query, viewer.layers
        marks = layers["query patch"].data if "query patch" in layers else None
        return {
            "layers": [(layer.name, layer.visible) for layer in layers],
            "active": layers.selection.active,
            "map": None if query is None else map_of(self.widget).data.tobytes(),
            "marks": None if marks is None else marks.tolist(),
            "asked": None if query is None else query.maps["first"].query,
            "threshold": context_of(session).areas.threshold,
            "following": context_of(session).clicks.following,
            "view": (viewer.scene.camera.zoom, tuple(viewer.scene.camera.center)),
            "text": self.widget.query.where.text() + self.widget.query.where.toolTip(),
            "problem": self.widget.problem.text(),
        }


@pytest.fixture
def windows(viewer: Any, make_napari_viewer: Any, tmp_path: Path) -> Any:
    """Two of them."""
    one = Window(viewer, tmp_path / "one.tif")
    two = Window(make_napari_viewer(), tmp_path / "two.tif")
    both = one, two
    yield both
    for window in both:
        finish(window.widget)


def test_clicks_and_keys_stay_in_their_window(windows: Any) -> None:
    one, two = windows
    assert one.widget.session is not two.widget.session
    one.click(5)
    two.click(30)
    for mine, other in (windows, windows[::-1]):
        QApplication.processEvents()
        before = other.state()
        mine.click(9)
        mine.click(20, "Shift")
        mine.keys.press_key(HOLD)
        hover(mine.viewer, centre_um(mine.widget, 12))
        mine.keys.release_key(HOLD)
        for key in ("area", "higher", "region", "back", "clear"):
            mine.keys.press_key(KEYS[key])
        QApplication.processEvents()
        assert context_of(mine.widget.session).query is None
        assert other.state() == before
        mine.viewer.layers.selection.active = mine.widget.session.slide
        mine.click(7)
    assert [w.state()["asked"] for w in windows] == [7, 7]


def test_the_other_window_goes_on_when_one_is_closed(windows: Any) -> None:
    one, two = windows
    one.click(5)
    two.click(30)
    before = two.state()
    one.viewer.window.remove_dock_widget(one.dock)
    QApplication.processEvents()
    assert two.state() == before
    one.viewer.close()
    QApplication.processEvents()
    two.click(40)
    session = two.widget.session
    around = context_of(session).queries.neighbourhood
    index = session.features("first").index_at(around)
    np.testing.assert_allclose(values(two.widget), index.query(40), atol=1e-6)
    two.keys.press_key(KEYS["area"])
    assert "patch 40 of" in two.widget.query.where.toolTip()
    assert sum(type(layer).__name__ == "Labels" for layer in two.viewer.layers) == 1
