"""Labels that are carried to a section whose map is known."""

from __future__ import annotations

import numpy as np

from napari_mcm.core.grid import GridConfig, PatchGrid, make_grid
from napari_mcm.core.labelling import LabelClass, LabelSet, PatchLabel, rows_of_labels
from napari_mcm.core.registration import section_map
from napari_mcm.core.sections import carry_labels
from napari_mcm.core.tissue import TissueMask
from tests.core.registration.test_carry import half_tissue, pair, registration_of

__all__ = ["pair"]


def label(slide, x: int, y: int, name: str = "tumour") -> PatchLabel:
    return PatchLabel(slide.fingerprint, x, y, 20, 20, name, "Ada", "click", "2026")


def labels_on(first, second) -> LabelSet:
    classes = (LabelClass("tumour", "#ff0000", 1), LabelClass("fat", "#00ff00", 2))
    made = [
        label(first, 90, 190),
        label(first, 90, 90, "fat"),  # on the glass of the second
        label(first, 300, 190),  # outside of the second
        label(second, 0, 0),  # of the other slide: not carried
    ]
    return LabelSet(classes).with_labels(made)


def test_labels_keep_class_author_and_place(pair):
    mapping = section_map(registration_of(*pair), *pair)
    found = carry_labels(mapping, labels_on(*pair), half_tissue())
    assert found.states == ("placed", "off tissue", "off slide")
    (one,) = found.labels
    # The centre (100, 200) px of 4 µm arrives at (100, 200) px of 2 µm; 80 µm wide.
    assert one.place == (pair[1].fingerprint, 80, 180, 40, 40)
    assert (one.label, one.author, one.source) == ("tumour", "Ada", "carried")
    assert one.made_at.startswith("20") and one.made_at != "2026"
    assert [(left.what, left.x, left.y, left.state) for left in found.left_out] == [
        ("fat", 100, 100, "off tissue"),
        ("tumour", 310, 200, "off slide"),
    ]


def test_on_a_grid_labels_take_the_place_of_its_patches(pair):
    mapping = section_map(registration_of(*pair), *pair)
    grid: PatchGrid = make_grid(
        pair[1],
        TissueMask(np.ones((50, 50), bool), (8.0, 8.0)),
        GridConfig(mpp=2.0, patch_size=32),
    )
    found = carry_labels(mapping, labels_on(*pair), half_tissue(), grid)
    (one,) = found.labels
    row = grid.index_at(100, 200)
    assert row is not None
    assert (one.x, one.y) == tuple(grid.xy[row]) and one.width == 32
    kept = LabelSet(labels_on(*pair).classes).with_labels(found.labels)
    rows, classes = rows_of_labels(kept, grid)
    assert rows.tolist() == [row] and classes.tolist() == [0]


def test_nothing_to_carry_gives_nothing(pair):
    mapping = section_map(registration_of(*pair), *pair)
    found = carry_labels(mapping, LabelSet())
    assert found.labels == () and found.states == () and found.left_out == ()
