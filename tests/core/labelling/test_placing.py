"""Labels find their patches, whatever the grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from napari_mcm.core.features.feature_set import Status
from napari_mcm.core.labelling import (
    LabelSet,
    PatchLabel,
    labels_of_rows,
    place_labels,
    rows_of_labels,
)
from tests.core.labelling.made_labels import label_rows, make_features, make_grid


def brute_force(labels: LabelSet, grid):
    """Find the patches one by one: the last label that holds a centre counts."""
    found = {}
    for row, (x, y) in enumerate(grid.centres):
        for one in labels.labels:
            if (
                one.slide == grid.slide["fingerprint"]
                and one.x <= x < one.x + one.width
                and one.y <= y < one.y + one.height
            ):
                found[row] = labels.names.index(one.label)
    return found


def test_labels_of_the_same_grid_find_their_patches() -> None:
    features = make_features(step=154.3)
    rows = np.array([0, 3, 14, 15, 100, 179])
    labels = label_rows(features, rows)
    found, classes = rows_of_labels(labels, features.grid)
    assert found.tolist() == rows.tolist()
    assert dict(zip(found, classes, strict=True)) == brute_force(labels, features.grid)


def test_labels_of_other_grids_find_the_patches_whose_centre_they_hold() -> None:
    labels = LabelSet().with_names("ab")
    rng = np.random.default_rng(1)
    for step in (50, 100, 130, 330):
        grid = make_grid(step=step, rows=1200 // step, columns=1500 // step)
        rows = rng.choice(len(grid), 6, replace=False)
        labels = labels.with_labels(labels_of_rows(grid, rows[:3], "a"))
        labels = labels.with_labels(labels_of_rows(grid, rows[3:], "b"))
    grid = make_grid()
    rows, classes = rows_of_labels(labels, grid)
    assert dict(zip(rows, classes, strict=True)) == brute_force(labels, grid)
    assert len(rows) > 20


def test_labels_of_other_slides_do_not_count() -> None:
    labels = label_rows(make_features("s1"), np.arange(9))
    rows, classes = rows_of_labels(labels, make_grid("s2"))
    assert rows.size == classes.size == 0


def test_labels_that_mean_no_patch_are_reported() -> None:
    features = make_features()
    status, values = features.status.copy(), features.features.copy()
    status[1], values[2, 3] = Status.BLANK, np.nan
    features = replace(features, status=status, features=values)
    labels = label_rows(features, np.array([0, 1, 2]))
    beside = PatchLabel("s1", -100, 100, 100, 100, "fat")
    # Counted through row by row, it is where another row's patch is.
    wrapped = PatchLabel("s1", -101, 101, 100, 100, "fat")
    far = PatchLabel("s1", 99_000, 0, 100, 100, "fat")
    labels = labels.with_labels([beside, wrapped, far])
    placed = place_labels(labels, features)
    assert placed.rows.tolist() == [0]
    assert [one.x for one in placed.outside] == [100, 200, -100, -101, 99_000]
    # On the grid alone, the patch without features has its label.
    assert place_labels(labels, features.grid).rows.tolist() == [0, 1, 2]
