"""A docked *Classes* widget, and a user who points at patches and presses digits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_mcm.core.heatmaps import SimilarityIndex
from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.labelling.context import LabellingContext, labelling_of
from napari_mcm.viewer.labelling.widget import ClassesWidget
from tests.viewer.conftest import features_of, finish, wait_until


def two_kinds(path: Path, mpp: float = 0.5) -> LoadedFeatures:
    """Features that differ between the left and the right half of the tissue."""
    made = features_of(path, mpp=mpp)
    features = made.index.features
    left = is_left(features.grid)
    vectors = features.features.copy()
    vectors[:, 0] += np.where(left, 4.0, -4.0)
    encoder = {
        "spec": "two kinds",
        "fingerprint": "two kinds",
        "dim": 16,
        "precision": "float32",
    }
    index = SimilarityIndex(replace(features, features=vectors, encoder=encoder))
    return LoadedFeatures("two kinds", index, Path("none"))


def is_left(grid: Any) -> Any:
    return grid.centres[:, 0] < np.median(grid.centres[:, 0])


class Labeller:
    """Points at patches of the current slide, and presses keys on the canvas."""

    def __init__(self, widget: ClassesWidget) -> None:
        self.widget, self.session = widget, widget.session
        self.context: LabellingContext = labelling_of(widget.session)
        self.canvas = self.session.viewer.window._qt_viewer.canvas.native

    @property
    def grid(self) -> Any:
        return self.session.features("first").index.features.grid

    @property
    def labels(self) -> Any:
        return self.session.labels.set

    def point(self, row: int) -> None:
        """Move the pointer to the centre of a patch."""
        x, y = self.grid.centres[row] - 0.5
        world = self.session.slide.data_to_world((y, x))
        self.session.viewer.cursor.position = tuple(world)

    def press(self, key: Any) -> None:
        QTest.keyClick(self.canvas, key)
        QApplication.processEvents()

    def label(self, row: int, key: str) -> None:
        self.point(row)
        self.press(key)

    def settle(self) -> None:
        """Wait for the map of the newest labels."""
        wait_until(lambda: not self.context.classifier.busy)
        QApplication.processEvents()

    @property
    def map(self) -> Any:
        """The layer of the map of classes."""
        return self.session.layers.map_of(self.session.slide, "classes")


@pytest.fixture(autouse=True)
def _own_settings(plugin_settings: Any) -> None:
    """Keep the look of maps, which is remembered, in a folder of the test."""


@pytest.fixture
def user(viewer: Any, slide_path: Path) -> Iterator[Labeller]:
    """A user with two classes and features of two kinds, patches alone."""
    viewer.open(slide_path, plugin="napari-mcm")
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", "Classes")
    made = Labeller(docked)
    made.context.classifier.use_radius(0)
    made.session.set_features(made.session.slide, "first", two_kinds(slide_path))
    made.session.labels.new_class("left")
    made.session.labels.new_class("right")
    made.settle()
    yield made
    finish(docked)
    made.context.classifier.wait()
