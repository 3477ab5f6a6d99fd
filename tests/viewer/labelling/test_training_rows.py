"""What the window trains on is what the command line trains on, in the same order."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.labelling import ClassifierConfig, LabelSet, labels_of_rows
from napari_mcm.core.labelling.training import gather_labels
from napari_mcm.viewer.labelling.training_rows import LabelledPatches
from tests.viewer.conftest import features_of, write_slide


def _no_files() -> dict[str, Path]:
    return {}


def test_slides_and_patches_are_in_the_order_of_the_command_line(
    tmp_path: Path,
) -> None:
    made = features_of(write_slide(tmp_path / "slide.tif")).index.features
    sets: dict[str, FeatureSet] = {}
    for number, mark in enumerate("ba"):
        slide = {**made.grid.slide, "fingerprint": mark, "name": mark}
        grid = replace(made.grid, slide=slide)
        sets[mark] = replace(made, grid=grid, features=made.features + number)
    labels = LabelSet().with_names(["one", "two"])
    # Clicked in another order than that of slides and patches.
    for mark, row, name in (("b", 30, "two"), ("a", 7, "one"), ("b", 4, "one")):
        new = labels_of_rows(sets[mark].grid, [row], name, author=mark)
        labels = labels.with_labels(new)
    outside = replace(labels.labels[0], slide="a", x=-5000, y=0)
    labels = labels.with_labels([outside])
    config = ClassifierConfig(neighbourhood=NeighbourhoodConfig(radius=1))
    expected = gather_labels(labels, list(sets.values()), config)
    found = LabelledPatches().gather(
        labels, "x", config.neighbourhood, list(sets.values()), _no_files
    )
    assert found.missing == ()
    for one in fields(expected):
        value: Any = getattr(expected, one.name)
        same = getattr(found.labelled, one.name)
        if isinstance(value, np.ndarray):
            assert np.array_equal(same, value), one.name
        else:
            assert same == value, one.name


def test_labels_of_slides_without_features_are_named(tmp_path: Path) -> None:
    made = features_of(write_slide(tmp_path / "slide.tif")).index.features
    other = replace(made.grid, slide={**made.grid.slide, "fingerprint": "gone"})
    labels = LabelSet().with_names(["one"])
    labels = labels.with_labels(labels_of_rows(other, [1], "one"))
    found = LabelledPatches().gather(
        labels, "x", NeighbourhoodConfig(), [made], _no_files
    )
    assert found.missing == ("gone",)
    assert len(found) == 0
