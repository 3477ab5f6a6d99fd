"""Search all slides: patches of all slides in one gallery, and slides in a table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_mcm.core.project import Project, write_project
from napari_mcm.core.search import SlideMatch
from napari_mcm.core.slides import open_slide
from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.layers.thumbnails import read_thumbnails
from napari_mcm.viewer.project.controller import project_of
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.cross_slide import SIDE_PX
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.core.evaluation.conftest import write_features
from tests.viewer.conftest import Click, features_of, unfold, wait_until, write_slide
from tests.viewer.similarity.test_findings import named, take
from tests.viewer.similarity.test_maps import centre_um, ready

__all__ = ["ready"]

HERE, THERE = 5, 33
"""The example's patch on the slide, and its copy on the other one."""


@pytest.fixture
def cohort(
    ready: SimilarityWidget, click: Click, loaded: LoadedFeatures, tmp_path: Path
) -> LoadedFeatures:
    """Give features of another slide, which is not open and has a copy of the example."""
    path = write_slide(tmp_path / "other.tif", mpp=0.6)
    here = named(loaded, "alpha").index.features
    there = named(features_of(path, patch_size=60, mpp=0.6), "alpha")
    made = there.index.features
    made.features[THERE] = here.features[HERE] * 3
    folder = tmp_path / "features"
    write_features(folder / "slide.features.zarr", here)
    write_features(folder / "other.features.zarr", made)
    take(ready, replace(named(loaded, "alpha"), path=folder / "slide.features.zarr"))
    click(centre_um(ready, HERE))
    return there


def searched(widget: SimilarityWidget) -> Any:
    """Press the button, and give what was found once its thumbnails are there."""
    found = context_of(widget.session).cross_slide
    widget.cross_slide.search.click()
    wait_until(lambda: found.tops and not any(top.pending for top in found.tops))
    return found


def test_the_gallery_shows_patches_of_all_slides(
    ready: SimilarityWidget, cohort: LoadedFeatures, loaded: LoadedFeatures
) -> None:
    found = searched(ready)
    unit = loaded.index.units(HERE)[0]
    here = loaded.index.compare(unit[None])
    there = named(cohort, "alpha").index.features.features
    values = [("slide", row, v) for row, v in enumerate(here) if row != HERE]
    lengths = np.linalg.norm(there, axis=1)
    values += [("other", row, v) for row, v in enumerate(there @ unit / lengths)]
    wanted = sorted(values, key=lambda one: -one[2])[:60]
    assert [(p.slide, p.row) for p in found.patches] == [one[:2] for one in wanted]
    np.testing.assert_allclose(
        [p.value for p in found.patches], [one[2] for one in wanted], atol=1e-6
    )
    assert (found.patches[0].slide, found.patches[0].row) == ("other", THERE)
    # What is seen is the patch at its place, of the slide that is not open, too.
    for top, patch in list(zip(found.tops, found.patches, strict=True))[:6]:
        features = cohort if patch.slide == "other" else loaded
        grid = features.index.features.grid
        path = ready.session.metadata.path
        if patch.slide == "other":
            path = str(Path(path).with_name("other.tif"))
        with open_slide(path) as slide:
            (read,) = read_thumbnails(slide, grid, [patch.row], [0.0], SIDE_PX)
        np.testing.assert_array_equal(top.pixels, read.pixels)
        assert top.slide == patch.slide
    panel = ready.cross_slide
    wait_until(lambda: panel.gallery.count() == 60)
    assert "slide other" in str(panel.gallery.item(0).toolTip())
    rows = [
        [panel.table.item(row, column).text() for column in range(4)]
        for row in range(panel.table.rowCount())
    ]
    assert rows == [
        [m.name, f"{m.best:.3f}", f"{m.mean:.3f}", f"{m.area_mm2:.3f}"]
        for m in found.matches
    ]
    assert panel.summary() == "All slides: 2 found, best 1.00 on other"


def test_a_click_opens_the_slide_at_the_place(
    ready: SimilarityWidget, cohort: LoadedFeatures, viewer: Any
) -> None:
    session = ready.session
    searched(ready)
    unfold(ready)
    gallery = ready.cross_slide.gallery
    wait_until(lambda: gallery.count() == 60)
    place = gallery.cell_of(0).center()
    QTest.mouseClick(gallery.viewport(), Qt.MouseButton.LeftButton, pos=place)
    wait_until(lambda: session.metadata.path.endswith("other.tif"))
    wait_until(lambda: session.features("first") is not None)
    wait_until(lambda: context_of(session).query is not None)
    grid = cohort.index.features.grid
    x, y = grid.centres[THERE]
    wanted = session.slide.data_to_world((y - 0.5, x - 0.5))
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], wanted, atol=1e-6)
    assert not context_of(session).query.here
    shown = context_of(session).queries.shown_map()[1]
    assert np.nanargmax(shown.values) == THERE
    # The place is framed on the new map, too.
    wait_until(lambda: len(viewer.layers["top patch"].data))
    frame = viewer.layers["top patch"].data
    corners = frame[:, 0]
    side = cohort.index.features.grid.patch_size_level0[0]
    np.testing.assert_allclose(
        corners.min(axis=0), [y - side / 2 - 0.5, x - side / 2 - 0.5]
    )
    # And back, to a patch of the slide that was open.
    found = context_of(session).cross_slide
    at = next(n for n, patch in enumerate(found.patches) if patch.slide == "slide")
    found.open_top(found.tops[at])
    wait_until(lambda: session.metadata.path.endswith("slide.tif"))
    x, y = found.patches[at].centre
    wanted = session.slide.data_to_world((y - 0.5, x - 0.5))
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], wanted, atol=1e-6)


def test_at_most_so_many_patches_of_a_slide(
    ready: SimilarityWidget, cohort: LoadedFeatures
) -> None:
    ready.cross_slide.per_slide.setValue(2)
    found = searched(ready)
    assert (
        sorted(patch.slide for patch in found.patches) == ["other"] * 2 + ["slide"] * 2
    )


def test_a_project_is_searched_where_there_is_one(
    ready: SimilarityWidget, cohort: LoadedFeatures, tmp_path: Path
) -> None:
    panel, session = ready.cross_slide, ready.session
    wait_until(lambda: panel.where.count() == 1)
    assert panel.where.currentText() == "Folder features"
    mark = cohort.index.features.grid.slide["fingerprint"]
    saved = {"path": "features/other.features.zarr", "encoder": "alpha"}
    slides = [
        {"path": "other.tif", "name": "other", "fingerprint": mark}
        | {"state": {"features": {"first": saved}}},
        {"path": "gone.tif", "name": "gone", "fingerprint": "0" * 16},
    ]
    project = tmp_path / "study.mcm.json"
    content = Project.new().model_dump() | {"slides": slides}
    write_project(project, Project.model_validate(content))
    project_of(session).open(project)
    wait_until(lambda: panel.where.count() == 2)
    assert panel.where.itemText(0) == "Project study"
    panel.where.setCurrentIndex(0)
    wait_until(lambda: not session.jobs.status.busy)
    found = searched(ready)
    assert {match.name for match in found.matches} >= {"other"}
    assert "gone: has no features yet, skipped" in found.report
    assert "1 not searched" in panel.hint.text()
    assert panel.where.currentText() == "Project study"


def test_slides_that_are_not_found_stay_grey_and_are_named(
    ready: SimilarityWidget, cohort: LoadedFeatures, tmp_path: Path
) -> None:
    (tmp_path / "other.tif").unlink()
    found = searched(ready)
    assert found.patches[0].slide == "other" and found.tops[0].pixels is None
    assert any(top.pixels is not None for top in found.tops)
    found.open_top(found.tops[0])
    wait_until(lambda: "slide other is not in" in ready.session.problem)


def test_the_table_has_the_best_of_very_many_slides(ready: SimilarityWidget) -> None:
    found, panel = context_of(ready.session).cross_slide, ready.cross_slide
    found.matches = [
        SlideMatch(f"s{n}", f"{n}", Path("f"), 1 - n / 1000, 0.1, 9, 0.5)
        for n in range(900)
    ]
    found.report = "900 slides found, 8,100 patches searched"
    found.changed.emit()
    assert panel.table.rowCount() == 500
    assert panel.table.item(499, 0).text() == "s499"
    assert panel.hint.text().endswith("the table has the best 500")
