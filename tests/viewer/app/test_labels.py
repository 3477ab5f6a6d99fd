"""Labels of a viewer: what is added is there, and each change can be undone, in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_mcm.core.grid import PatchGrid
from napari_mcm.viewer.app.labels import SlideLabels
from napari_mcm.viewer.app.undo import UndoOrder

STEP = (100.0, 120.0)


@pytest.fixture
def grid() -> PatchGrid:
    """Four by three patches of 100 × 120 px."""
    lattice = np.indices((3, 4)).reshape(2, -1).T.astype(np.int32)
    xy = (lattice[:, ::-1] * STEP).astype(np.int64)
    slide = {"name": "one", "fingerprint": "f1", "size": [400, 360], "mpp": [0.5, 0.5]}
    return PatchGrid(xy, lattice, 200, 0.5, STEP, (0.0, 0.0), (3, 4), slide)


@pytest.fixture
def labels() -> SlideLabels:
    made = SlideLabels(UndoOrder())
    made.new_class("tumour")
    made.new_class("stroma")
    return made


def test_a_region_labels_the_patches_with_their_centre_inside(
    labels: SlideLabels, grid: PatchGrid
) -> None:
    # Centres at x = 50, 150, 250, 350 and y = 60, 180, 300.
    region = ((40.0, 50.0), (160.0, 50.0), (160.0, 190.0), (40.0, 190.0))
    assert labels.add_regions(grid, [region], "stroma") == 4
    places = {(one.x, one.y, one.width, one.height) for one in labels.set.labels}
    assert places == {(x, y, 100, 120) for x in (0, 100) for y in (0, 120)}
    assert {one.slide for one in labels.set.labels} == {"f1"}
    assert labels.set.slide_name("f1") == "one"


def test_a_label_again_is_no_change_and_another_replaces_it(
    labels: SlideLabels, grid: PatchGrid
) -> None:
    heard: list[int] = []
    labels.changed.connect(lambda: heard.append(1))
    assert labels.add(grid, [2], "tumour") == 1
    assert labels.add(grid, [2], "tumour") == 0
    assert labels.add(grid, [2, 3], "stroma") == 2
    assert len(heard) == 2
    assert labels.set.counts() == {"tumour": 0, "stroma": 2}


def test_each_change_is_undone_and_redone(labels: SlideLabels, grid: PatchGrid) -> None:
    labels.add(grid, [0], "tumour")
    labels.add(grid, [1], "stroma")
    labels.remove(grid, [0])
    assert [one.label for one in labels.set.labels] == ["stroma"]
    labels.undo()
    labels.undo()
    assert [one.label for one in labels.set.labels] == ["tumour"]
    labels.redo()
    assert [one.label for one in labels.set.labels] == ["tumour", "stroma"]
    labels.add(grid, [2], "stroma")
    assert not labels.can_redo


def test_a_key_finds_its_class_and_one_without_class_is_said(
    labels: SlideLabels,
) -> None:
    missing: list[int] = []
    labels.class_needed.connect(missing.append)
    found = labels.class_of_key(2)
    assert found is not None
    assert found.name == "stroma"
    assert labels.class_of_key(7) is None
    assert missing == [7]
    assert labels.new_class().key == 3


class _Steps:
    def __init__(self) -> None:
        self.done, self.undone, self.blocked = 0, 0, False

    @property
    def can_undo(self) -> bool:
        return self.done > 0 and not self.blocked

    @property
    def can_redo(self) -> bool:
        return self.undone > 0 and not self.blocked

    def undo(self) -> None:
        self.done, self.undone = self.done - 1, self.undone + 1

    def redo(self) -> None:
        self.done, self.undone = self.done + 1, self.undone - 1


def _state(*parts: Any) -> list[int]:
    return [part.done for part in parts]


def test_one_key_undoes_what_was_done_last() -> None:
    order, query, labels = UndoOrder(), _Steps(), _Steps()
    order.register("query", query)
    order.register("labels", labels)
    for name, part in (("query", query), ("labels", labels), ("query", query)):
        part.done += 1
        order.note(name)
    order.undo()
    assert _state(query, labels) == [1, 1]
    order.undo()
    assert _state(query, labels) == [1, 0]
    order.redo()
    assert _state(query, labels) == [1, 1]
    # What cannot be undone now, such as the query of another slide, is passed over.
    query.blocked = True
    order.undo()
    order.undo()
    assert _state(query, labels) == [1, 0]
    query.blocked = False
    order.undo()
    assert _state(query, labels) == [0, 0]
