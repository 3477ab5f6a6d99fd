"""Labels are kept: in files, in the project, and where the program is killed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_mcm.core.labelling import (
    LabelSet,
    labels_of_rows,
    read_labels,
    write_labels,
)
from napari_mcm.core.project import read_project
from napari_mcm.viewer.app.session import session_of
from napari_mcm.viewer.project.controller import project_of
from napari_mcm.viewer.project.labels import file_of, labels_in
from napari_mcm.viewer.project.memory import memory_of
from tests.viewer.conftest import wait_until
from tests.viewer.labelling.conftest import Labeller


def known(user: Labeller) -> str:
    """Wait until the slide is known by its fingerprint."""
    memory = memory_of(user.session)
    wait_until(lambda: memory.fingerprint_of(user.session.slide))
    return memory.fingerprint_of(user.session.slide)


def places(labels: LabelSet) -> dict[Any, str]:
    return {one.place: one.label for one in labels.labels}


def test_each_label_is_in_the_slide_s_file_at_once(user: Labeller) -> None:
    mark = known(user)
    for number, row in enumerate((3, 9, 12), 1):
        user.label(row, "1")
        user.session.disk.wait()
        # What a program that is killed now leaves behind.
        assert places(read_labels(file_of(mark))) == places(user.labels)
        assert len(user.labels) == number
    user.session.order.undo()
    user.session.disk.wait()
    assert len(read_labels(file_of(mark))) == 2


def test_labels_come_back_with_the_slide(
    user: Labeller, make_napari_viewer: Any, slide_path: Path
) -> None:
    known(user)
    user.label(3, "1")
    user.label(9, "2")
    user.session.disk.wait()
    before = places(user.labels)
    again = make_napari_viewer()
    again.open(slide_path, plugin="napari-mcm")
    _, other = again.window.add_plugin_dock_widget("napari-mcm", "Classes")
    session = session_of(again)
    wait_until(lambda: len(session.labels.set) == 2)
    assert places(session.labels.set) == before
    assert session.labels.set.classes == user.labels.classes
    # It is no step of the user.
    assert not session.labels.can_undo
    other.session.jobs.close()
    session.disk.wait()


def test_undo_of_earlier_steps_keeps_labels_that_came_back(user: Labeller) -> None:
    known(user)
    user.label(3, "1")
    other = replace(user.grid, slide={**user.grid.slide, "fingerprint": "f2"})
    stored = LabelSet().with_names(["left", "new"])
    stored = stored.with_labels(labels_of_rows(other, [1, 2], "new"))
    user.session.labels.bring(stored)
    assert len(user.labels) == 3
    # The key of a class that exists stays with it.
    keys = {one.name: one.key for one in user.labels.classes}
    assert keys == {"left": 1, "right": 2, "new": None}
    user.session.order.undo()
    assert {one.label for one in user.labels.labels} == {"new"}


def test_a_project_holds_the_labels_and_replaces_those_of_the_session(
    user: Labeller, tmp_path: Path
) -> None:
    mark = known(user)
    project = project_of(user.session)
    wait_until(lambda: project.project.index_of(mark) is not None)
    user.label(3, "1")
    user.label(9, "2")
    project.save_as(tmp_path / "mine")
    wait_until(lambda: project.path is not None)
    file = project.path
    user.label(12, "2")
    user.session.disk.wait()
    stored = labels_in(read_project(file))
    assert places(stored) == places(user.labels)
    assert stored.classes == user.labels.classes
    assert {one.author for one in stored.labels} == {
        one.author for one in user.labels.labels
    }
    kept = places(user.labels)
    # Another program's change of the labels, and the project opened again.
    content = json.loads(file.read_text())
    content["slides"][0]["labels"]["left"] = []
    other = file.with_name("other.mcm.json")
    other.write_text(json.dumps(content))
    project.open(other)
    wait_until(lambda: project.path == other)
    wait_until(lambda: len(user.labels) == 2)
    assert set(places(user.labels)) < set(kept)
    project.open(file)
    wait_until(lambda: places(user.labels) == kept)


def test_damaged_labels_of_a_project_are_left_out(user: Labeller) -> None:
    project = project_of(user.session).project
    damaged = project.model_copy(
        update={"classes": ({"name": "a", "color": "red", "key": 99},)}
    )
    assert labels_in(damaged) == LabelSet()


def test_a_damaged_file_is_kept_aside_and_said(
    user: Labeller, make_napari_viewer: Any, slide_path: Path
) -> None:
    mark = known(user)
    user.label(3, "1")
    user.session.disk.wait()
    file_of(mark).write_text("{broken")
    again = make_napari_viewer()
    again.open(slide_path, plugin="napari-mcm")
    again.window.add_plugin_dock_widget("napari-mcm", "Classes")
    session = session_of(again)
    wait_until(lambda: session.problem)
    assert "cannot be read" in session.problem
    assert not file_of(mark).exists()
    assert list(file_of(mark).parent.glob("*.damaged"))
    session.disk.wait()


def test_labels_of_others_are_merged_and_disagreements_settled(
    user: Labeller, tmp_path: Path
) -> None:
    for row, key in ((1, "1"), (2, "1"), (3, "2")):
        user.label(row, key)
    others = []
    for name, choice in (("ann", "right"), ("bob", "left")):
        labels = LabelSet().with_names(["left", "right"])
        own = labels_of_rows(user.grid, [2], choice, name)
        own += labels_of_rows(user.grid, [3], "left", name)
        own += labels_of_rows(user.grid, [7], "right", name)
        others.append(
            write_labels(tmp_path / f"{name}.labels.json", labels.with_labels(own))
        )
    files = user.widget.files.files
    files.merge(others)
    wait_until(lambda: files.disagreements)
    corner = {tuple(xy): row for row, xy in enumerate(user.grid.xy.tolist())}
    merged = {corner[one.x, one.y]: one.label for one in user.labels.labels}
    # Two of three said left of 2, two said left of 3; all say right of 7.
    assert merged == {1: "left", 2: "left", 3: "left", 7: "right"}
    listed = {corner[one.place[1:3]]: one for one in files.disagreements}
    assert set(listed) == {2, 3}
    panel = user.widget.files
    wait_until(lambda: panel.disagreements.count() == 2)
    assert "ann: right" in panel.disagreements.item(0).text()
    files.settle(listed[3], "right")
    merged = {corner[one.x, one.y]: one.label for one in user.labels.labels}
    assert merged[3] == "right"
    user.session.order.undo()
    user.session.order.undo()
    assert len(user.labels) == 3


def test_regions_of_qupath_label_their_patches(user: Labeller, tmp_path: Path) -> None:
    low, step = user.grid.xy[0] - 5.0, np.asarray(user.grid.patch_size_level0)
    x0, y0 = low
    x1, y1 = low + step * (2.2, 1.2)
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    file = tmp_path / "regions.geojson"
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"classification": {"name": "vessel"}},
    }
    file.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    user.label(20, "1")
    user.widget.files.files.import_geojson(file)
    wait_until(lambda: "vessel" in user.labels.names)
    centres = user.grid.centres
    inside = ((centres > (x0, y0)) & (centres < (x1, y1))).all(axis=1)
    wanted = {tuple(xy) for xy in user.grid.xy[inside].tolist()}
    found = {(one.x, one.y) for one in user.labels.labels if one.label == "vessel"}
    assert found == wanted
    assert len(user.labels) == len(wanted) + 1


@pytest.mark.parametrize("kind", ["shapes", "labels"])
def test_regions_of_a_layer_label_their_patches(user: Labeller, kind: str) -> None:
    viewer, slide = user.session.viewer, user.session.slide
    x, y = user.grid.xy[4] + np.asarray(user.grid.patch_size_level0) / 2
    if kind == "shapes":
        corners = [(y - 8, x - 8), (y - 8, x + 8), (y + 8, x + 8), (y + 8, x - 8)]
        layer = viewer.add_shapes(
            [np.asarray(corners) - 0.5],
            scale=slide.scale,
            units=slide.units,
            features={"class": ["nerve"]},
        )
    else:
        data = np.zeros((100, 120), np.uint8)
        data[int(y / 10), int(x / 10)] = 3
        layer = viewer.add_labels(
            data,
            scale=slide.scale * 10,
            translate=slide.scale * 4.5,
            units=slide.units,
            features={"index": [0, 3], "class": ["none", "nerve"]},
        )
    user.widget.files.files.import_layer(layer)
    found = [(one.x, one.y, one.label, one.source) for one in user.labels.labels]
    assert found == [(*user.grid.xy[4].tolist(), "nerve", "import")]
