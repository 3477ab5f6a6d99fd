"""A project in the window: saved after each change, moved, opened, and nothing lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari._qt import qt_main_window
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_mcm.core.errors import ProjectError
from napari_mcm.core.project import Project, read_project, thumbnail_of, write_project
from napari_mcm.core.tissue import TissueMask, write_mask
from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.app.persistence import PROJECTS, RUNS, recent, remember_recent
from napari_mcm.viewer.app.session import session_of
from napari_mcm.viewer.layers.metadata import slide_of
from napari_mcm.viewer.project import disk, slide_list
from napari_mcm.viewer.project.controller import ProjectController, project_of
from napari_mcm.viewer.project.memory import memory_of
from napari_mcm.viewer.project.results import results_of
from napari_mcm.viewer.project.widget import ProjectPanel
from napari_mcm.viewer.similarity.area import add_result
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import (
    Click,
    features_of,
    finish,
    mouse_of,
    wait_until,
    write_slide,
)

MakeViewer = Callable[[], Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two slides, which can be moved."""
    made = tmp_path / "study"
    (made / "slides").mkdir(parents=True)
    write_slide(made / "slides" / "a.tif")
    write_slide(made / "slides" / "b.tif", mpp=0.25)
    return made


@pytest.fixture
def docks(viewer: Any) -> Iterator[tuple[SimilarityWidget, ProjectPanel]]:
    """The docks Similarity and Project in an empty viewer."""
    added = [
        viewer.window.add_plugin_dock_widget("napari-mcm", name)[1]
        for name in ("Similarity", "Project")
    ]
    yield added[0], added[1].project
    for one in added:
        finish(one)
    project_of(added[0].session)._worker.wait()


def wait_for_saves(project: ProjectController) -> Project:
    """Save what has changed, wait for it, and read it."""
    project._worker.wait()
    QApplication.processEvents()
    project._memory.take()
    project.save()
    project._session.disk.wait()
    QApplication.processEvents()
    assert project.path is not None
    return read_project(project.path)


def save_two_slides(
    viewer: Any, widget: SimilarityWidget, folder: Path
) -> tuple[ProjectController, dict[str, Any]]:
    """A project with a query and rows on two slides; and what it has to hold."""
    session, project = widget.session, project_of(widget.session)
    click, context = mouse_of(viewer), context_of(widget.session)
    held: dict[str, Any] = {}
    for name, mpp in (("a", 0.5), ("b", 0.25)):
        path = folder / "slides" / f"{name}.tif"
        (layer,) = viewer.open(path, plugin="napari-mcm")
        wait_until(lambda layer=layer: memory_of(session).fingerprint_of(layer))
        context.queries.clear()
        loaded = features_of(path, patch_size=50 if name == "a" else 100, mpp=mpp)
        session.set_features(layer, "first", loaded)
        click((250 * mpp / 0.5, 300 * mpp / 0.5))
        low, high = context.areas.heatmap.limits
        context.areas.set_threshold(low + 0.3 * (high - low))
        add_result(context)
        viewer.scene.camera.zoom = 3.0
        memory_of(session).take()
        held[name] = (
            context.queries.examples,
            context.areas.threshold,
            context.areas.area,
            loaded,
        )
    project.save_as(folder / "study")
    wait_until(lambda: project.path == folder / "study.mcm.json")
    wait_until(lambda: len(project.project.slides) == 2)
    return project, held


def test_a_project_with_two_slides_comes_back_from_a_moved_folder(
    viewer: Any, docks: Any, folder: Path, make_napari_viewer: MakeViewer
) -> None:
    project, held = save_two_slides(viewer, docks[0], folder)
    rows = results_of(docks[0].session).rows
    saved = wait_for_saves(project)
    assert [slide.path for slide in saved.slides] == ["slides/a.tif", "slides/b.tif"]
    assert saved.results == rows and len(rows) == 2
    assert recent(PROJECTS)[0] == folder / "study.mcm.json"
    finish(docks[0])
    viewer.layers.clear()
    folder.rename(folder.with_name("moved"))
    moved = folder.with_name("moved") / "study.mcm.json"
    # Another window, opened as by a drop.
    again = make_napari_viewer()
    again.open(moved, plugin="napari-mcm")
    session = session_of(again)
    wait_until(lambda: session.slide is not None)
    wait_until(lambda: memory_of(session).fingerprint_of(session.slide))
    # The slide that was on the screen is, and only that one is opened.
    assert [layer.name for layer in session.layers.slides()] == ["b"]
    assert results_of(session).rows == rows
    context = context_of(session)
    project = project_of(session)
    for number, name in ((1, "b"), (0, "a")):
        project.open_slide(number)
        wait_until(lambda name=name: session.slide.name == name)
        wait_until(lambda: memory_of(session).fingerprint_of(session.slide))
        examples, threshold, area, loaded = held[name]
        session.set_features(session.slide, "first", loaded)
        wait_until(lambda: context.query is not None and context.query.here)
        assert context.queries.examples == examples
        wait_until(lambda at=threshold: context.areas.threshold == at)
        assert context.areas.area == area
        assert again.scene.camera.zoom == pytest.approx(3.0)
    after = wait_for_saves(project)
    assert [slide.absolute for slide in after.slides] == [
        str(moved.parent / "slides" / f"{name}.tif") for name in "ab"
    ]
    assert after.results == rows
    similarity = again.window.add_plugin_dock_widget("napari-mcm", "Similarity")[1]
    finish(similarity)


def test_a_moved_slide_is_asked_for_once_and_all_are_found(
    viewer: Any, docks: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, _ = save_two_slides(viewer, docks[0], folder)
    wait_for_saves(project)
    viewer.layers.clear()
    far = folder.with_name("archive") / "2026"
    far.parent.mkdir()
    (folder / "slides").rename(far)
    asked: list[str] = []

    def answer(_parent: Any, title: str, _start: str) -> str:
        asked.append(title)
        return str(far.parent) if len(asked) > 1 else ""

    monkeypatch.setattr(QFileDialog, "getExistingDirectory", answer)
    project.open(project.path)
    wait_until(lambda: len(asked) == 1)
    # The list may have seen by then that the other one is not there either.
    assert asked[0] in [
        f"Where is the folder with {o}?" for o in ("a", "b", "2 slides")
    ]
    wait_until(lambda: docks[1].locate.isVisibleTo(docks[1]))
    for number, slide in enumerate(project.project.slides):
        project.open_slide(number)
        wait_until(lambda key=slide.fingerprint: key in project.missing)
    assert len(project.missing) == 2
    # It is not asked again by itself, only when the user wants it.
    assert len(asked) == 1 and "2 not found" in docks[1].name.text()
    assert "not found" in docks[1]._rows.index(0).data()
    docks[1].locate.click()
    wait_until(lambda: not project.missing)
    assert "2 of 2 slides found" in docks[1].note.text()
    saved = wait_for_saves(project)
    assert {slide.absolute for slide in saved.slides} == {
        str(far / "a.tif"),
        str(far / "b.tif"),
    }
    assert str(far) in saved.folders
    project.open_slide(0)
    wait_until(lambda: docks[0].session.slide is not None)


def test_a_damaged_or_newer_file_is_refused_with_its_reason(
    viewer: Any, docks: Any, folder: Path
) -> None:
    project, _ = save_two_slides(viewer, docks[0], folder)
    wait_for_saves(project)
    before = project.project
    bad = folder / "bad.mcm.json"
    bad.write_text('{"format": "napari-mcm project", "version": "9.0"}')
    with pytest.raises(ProjectError, match=r"newer version.*Update napari-mcm"):
        viewer.open(bad, plugin="napari-mcm")
    project.open(bad)
    wait_until(lambda: "newer version" in docks[0].session.problem)
    assert project.project is before and project.path == folder / "study.mcm.json"
    assert bad.read_text().endswith('"9.0"}')


def test_what_was_changed_last_is_saved_when_the_docks_close(
    viewer: Any, docks: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, _ = save_two_slides(viewer, docks[0], folder)
    wait_for_saves(project)
    threads: list[str] = []
    write = disk.write

    def note_thread(*arguments: Any) -> str:
        threads.append(threading.current_thread().name)
        return write(*arguments)

    monkeypatch.setattr(disk, "write", note_thread)
    session = docks[0].session
    areas = context_of(session).areas
    areas.set_threshold(areas.threshold + 0.01)
    add_result(context_of(session))
    for user in list(session._users):
        session.leave(user)
    session.disk.wait()
    assert len(read_project(folder / "study.mcm.json").results) == 3
    assert threads and not any("MainThread" in name for name in threads)


def test_masks_and_runs_belong_to_it(
    viewer: Any, docks: Any, folder: Path, tmp_path: Path
) -> None:
    project, _ = save_two_slides(viewer, docks[0], folder)
    session = docks[0].session
    run = tmp_path / "run"
    run.mkdir()
    (run / "summary.json").write_text("{}")
    remember_recent(RUNS, str(run))
    session.recent.reload()
    wait_until(lambda: len(project.project.runs) == 1)
    slide = slide_of(session.slide)
    assert slide is not None
    drawn = np.zeros((50, 60), bool)
    drawn[10:20, 10:20] = True
    write_mask(tmp_path / "m.png", TissueMask(drawn, (20, 20), "drawn"), slide)
    session.tissue.load(session.slide, tmp_path / "m.png")
    wait_until(lambda: session.tissue.mask_of(session.slide) is not None)
    session.tissue.flush()
    saved = wait_for_saves(project)
    assert saved.runs[0].absolute == str(run)
    mask = folder / "slides" / "napari-mcm" / "b.geojson"
    assert saved.slides[1].tissue.path == "slides/napari-mcm/b.geojson"
    # As from a folder that could not be written to: elsewhere, named by the project.
    viewer.layers.clear()
    mask.rename(folder / "kept.geojson")
    content = (folder / "study.mcm.json").read_text()
    moved = folder / "other.mcm.json"
    moved.write_text(content.replace("slides/napari-mcm/b.geojson", "kept.geojson"))
    (tmp_path / "settings" / "recent.json").unlink()
    project.open(moved)
    wait_until(lambda: session.slide is not None)
    project.open_slide(1)
    wait_until(lambda: session.tissue.mask_of(session.slide) is not None)
    # Asked for twice, as by two double clicks, it is open once.
    assert [layer.name for layer in session.layers.slides()] == ["b"]
    assert session.tissue.mask_of(session.slide).mask.mask.sum() > 0
    assert recent(RUNS) == (run,)
    docks[1]._fill_recent()
    # The other one, which is not there any more, is not offered.
    (folder / "study.mcm.json").unlink()
    session.recent.reload()
    session.disk.wait()
    QApplication.processEvents()
    docks[1]._fill_recent()
    assert not docks[1]._recent_menu.actions() and recent(PROJECTS) == (moved,)


def test_a_file_that_another_window_changed_is_not_overwritten(
    viewer: Any, docks: Any, folder: Path, click: Click
) -> None:
    project, _ = save_two_slides(viewer, docks[0], folder)
    saved = wait_for_saves(project)
    path = folder / "study.mcm.json"
    theirs = saved.model_copy(update={"results": saved.results[:1]})
    write_project(path, theirs)
    assert wait_for_saves(project) == theirs
    assert "changed by another program" in docks[0].session.problem
    # Under another name, nothing is lost.
    project.save_as(folder / "mine")
    wait_until(lambda: project.path == folder / "mine.mcm.json")
    assert len(wait_for_saves(project).results) == 2
    assert read_project(path) == theirs


def test_results_without_a_project_are_kept(
    viewer: Any, docks: Any, slide_path: Path, loaded: LoadedFeatures, settings: Path
) -> None:
    session, project = docks[0].session, project_of(docks[0].session)
    viewer.open(slide_path, plugin="napari-mcm")
    session.set_features(session.slide, "first", loaded)
    mouse_of(viewer)((250, 300))
    assert project.path is None and "Unsaved project" in docks[1].name.text()
    add_result(context_of(session))
    wait_until(lambda: project.path is not None)
    unnamed = project.path
    assert unnamed is not None and unnamed.parent == settings.parent / "projects"
    assert len(wait_for_saves(project).results) == 1
    assert "Unsaved project" in docks[1].name.text()
    project.save_as(slide_path.parent / "named")
    wait_until(lambda: project.path == slide_path.parent / "named.mcm.json")
    assert len(wait_for_saves(project).results) == 1
    wait_until(lambda: not unnamed.exists())
    assert "named" in docks[1].name.text()


def quit_window(viewer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Close the window as Ctrl+Q does: napari removes all layers while it closes."""
    window = viewer.window._qt_window
    # The fixture closes it once more.
    window.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
    monkeypatch.setattr(qt_main_window, "quit_app_", viewer.layers.clear)
    window.show()
    QApplication.processEvents()
    window.close(quit_app=True)
    assert not viewer.layers


def test_a_row_is_kept_and_offered_again_without_any_project_or_its_dock(
    widget: SimilarityWidget,
    viewer: Any,
    click: Click,
    loaded: LoadedFeatures,
    settings: Path,
    make_napari_viewer: MakeViewer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = widget.session
    wait_until(lambda: memory_of(session).fingerprint_of(session.slide))
    session.set_features(session.slide, "first", loaded)
    click((250, 300))
    widget.area.add.click()
    # At once: nothing of what was begun has returned to the window.
    quit_window(viewer, monkeypatch)
    for user in list(session._users):
        session.leave(user)
    session.disk.wait()
    (file,) = (settings.parent / "projects").glob("*.mcm.json")
    (row,) = results_of(session).rows
    assert read_project(file).results == (row,)
    assert file in recent(PROJECTS)
    # As the next day, in another window, with a row of that day.
    other = make_napari_viewer(show=True)
    docked = other.window.add_plugin_dock_widget("napari-mcm", "Results table")[1]
    panel, project = docked.results, project_of(docked.session)
    new = row.model_copy(update={"threshold": 0.125})
    results_of(docked.session).add(new)
    wait_until(lambda: project.path is not None)
    wait_until(lambda: panel.bring_back.isVisible())
    assert "1 row of 20" in panel.offer.text()
    panel.bring_back.click()
    assert results_of(docked.session).rows == (row, new)
    assert not panel.bring_back.isVisible()
    assert wait_for_saves(project).results == (row, new)
    # The file that holds all rows has replaced the older one.
    wait_until(lambda: not file.exists())
    finish(docked)
    project._worker.wait()


def test_quitting_changes_nothing_of_the_project(
    viewer: Any,
    docks: Any,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project, _ = save_two_slides(viewer, docks[0], folder)
    session = docks[0].session
    before = wait_for_saves(project)
    shown = memory_of(session).fingerprint_of(session.slide)
    assert before.current == shown and len(before.slides) == 2
    viewer.scene.camera.zoom = 2.5
    quit_window(viewer, monkeypatch)
    for user in list(session._users):
        session.leave(user)
    session.disk.wait()
    after = read_project(folder / "study.mcm.json")
    assert after.current == shown
    # The view that was on the screen was taken before, that of the other slide was not.
    states = [slide.state for slide in after.slides]
    assert states[0] == before.slides[0].state
    assert states[1].view != before.slides[1].state.view
    assert states[1].query == before.slides[1].state.query


def test_slides_are_added_without_opening_them(
    viewer: Any, docks: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slide_list, "_BATCH", 1)
    panel, project = docks[1], project_of(docks[0].session)
    monkeypatch.setattr(
        QFileDialog, "getExistingDirectory", lambda *_: str(folder / "slides")
    )
    panel._add_folder()
    wait_until(lambda: len(project.project.slides) == 2)
    wait_until(lambda: all(one.fingerprint for one in project.project.slides))
    assert not docks[0].session.layers.slides()
    # The same again, or a copy of it, is no new slide.
    panel._add_folder()
    wait_until(lambda: "No new slides" in panel.note.text())
    copy = folder / "copy.tif"
    copy.write_bytes((folder / "slides" / "a.tif").read_bytes())
    project.add_slides([copy])
    wait_until(lambda: "1 slide added" in panel.note.text())
    wait_until(lambda: len(project.project.slides) == 2)
    project.save_as(folder / "study.mcm.json")
    wait_until(lambda: project.path is not None)
    first = project.project.slides[0]
    icon = panel._rows.index(0)
    from qtpy.QtCore import Qt

    icon.data(Qt.ItemDataRole.DecorationRole)
    kept = thumbnail_of(project.path, first.fingerprint)
    wait_until(kept.is_file)
    panel.slides.setCurrentIndex(panel._rows.index(1))
    panel._activated(panel._rows.index(1))
    wait_until(lambda: docks[0].session.slide is not None)
    assert docks[0].session.slide.name == "b"
    panel.slides.selectAll()
    panel.remove.click()
    assert not project.project.slides and docks[0].session.layers.slides()


def test_the_list_reads_only_what_is_seen(
    docks: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand slides, of which none is there: no file is opened for them."""
    from napari_mcm.core.project import ProjectSlide

    opened: list[Any] = []
    monkeypatch.setattr(
        "napari_mcm.core.project.paths.open_slide", lambda p: opened.append(p)
    )
    slides = tuple(
        ProjectSlide(path=f"x/{n}.tif", name=f"slide {n}", fingerprint=f"f{n}")
        for n in range(10_000)
    )
    path = folder / "large.mcm.json"
    write_project(path, Project.new().model_copy(update={"slides": slides}))
    panel, project = docks[1], project_of(docks[0].session)
    project.open(path)
    wait_until(lambda: panel._rows.rowCount() == 10_000)
    panel.resize(330, 600)
    panel.grab()
    wait_until(lambda: len(project.missing) > 0)
    assert len(project.missing) < 100 and not opened
    assert len(json.loads(path.read_text())["slides"]) == 10_000
