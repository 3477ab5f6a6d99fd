"""The dock *Sections*: two open slides are registered, linked, and annotated together."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_mcm.core.labelling import LabelClass, LabelSet, PatchLabel
from napari_mcm.core.project import read_project
from napari_mcm.core.registration import Residual, read_registration, write_registration
from napari_mcm.viewer.app.jobs import JobState
from napari_mcm.viewer.app.persistence import drawn_mask_path
from napari_mcm.viewer.app.registrations import registration_path
from napari_mcm.viewer.layers.early_slicing import canvas_of
from napari_mcm.viewer.layers.metadata import kind_of, owner_of, slide_of
from napari_mcm.viewer.layers.mouse import ClickListener
from napari_mcm.viewer.project.controller import project_of
from napari_mcm.viewer.registration.carrying import LABELS, QUERY, TISSUE
from napari_mcm.viewer.registration.controller import sections_of
from napari_mcm.viewer.registration.register_panel import describe, weakness
from napari_mcm.viewer.registration.widget import SectionsWidget
from napari_mcm.viewer.similarity.context import context_of
from tests.core.registration.conftest import MPP, SIZE, bend, sections
from tests.viewer.conftest import features_of, finish, mouse_of, wait_until

__all__ = ["sections"]

TURNED = 20
NEAR_UM = 25.0
"""Within which the registration's own tests find 95 % of places."""


def where_truly(point: tuple[float, float]) -> np.ndarray:
    """Where a place in px of the first section lies in the second.

    `bend` says where places of the second come from; Newton's steps invert it.
    """
    wanted, found = np.array(point) * MPP, np.array(point) * MPP
    for _ in range(50):
        slopes = [
            (bend(found + step, TURNED, False) - bend(found - step, TURNED, False)) / 2
            for step in np.eye(2)
        ]
        off = wanted - bend(found, TURNED, False)
        found = found + np.linalg.solve(np.transpose(slopes), off)
    return found / MPP


@pytest.fixture
def dock(viewer: Any, sections):
    """The dock with two sections, the first of which is current."""
    made: list[SectionsWidget] = []

    def make(**how: Any) -> SectionsWidget:
        pair = sections(TURNED, **how)
        for slide in pair:
            viewer.open(slide.path, plugin="napari-mcm")
        _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", "Sections")
        made.append(docked)
        session = docked.session
        session.choose_slide(session.layers.slides()[0])
        session.disk.wait()
        QApplication.processEvents()
        return docked

    yield make
    for docked in made:
        sections_of(docked.session).worker.wait()
        finish(docked)


def register(docked: SectionsWidget) -> None:
    """Press the button, and wait until the registration is in its file."""
    docked.registration.register.click()
    session = docked.session
    wait_until(lambda: not session.jobs.status.busy, 120)
    session.disk.wait()
    QApplication.processEvents()


def carry(docked: SectionsWidget, kind: str) -> None:
    """Choose something to carry, press the button, and wait."""
    panel = docked.carrying
    panel.refresh()
    kinds = [one.kind for one in panel._found]
    panel.what.setCurrentIndex(kinds.index(kind))
    before = len(panel.outcome.text())
    panel.carry.click()
    wait_until(lambda: len(panel.outcome.text()) > before or not before)
    sections_of(docked.session).worker.wait()
    wait_until(lambda: panel.outcome.text())


def test_the_button_registers_and_the_dock_says_how_far_off_it_is(dock):
    docked = dock()
    session, panel = docked.session, docked.registration
    first, second = session.layers.slides()
    assert not panel.link.isEnabled() and panel.state.text().startswith(
        "Not registered"
    )
    register(docked)
    known = session.registrations.of(second, first)
    assert known is not None and session.jobs.status.state is JobState.DONE
    there = session.registrations.map(first, second).points([(450.0, 520.0)])[0]
    truth = where_truly((450, 520))
    assert np.linalg.norm(there - truth) * MPP < NEAR_UM
    back = session.registrations.map(second, first).points([truth])[0]
    assert np.linalg.norm(back - (450, 520)) * MPP < NEAR_UM
    assert panel.state.text().startswith("✓ first to second: turned -2")
    assert known.registration.residual.describe() == panel.tissue.text()
    assert known.registration.edges.describe() == panel.edges.text()
    assert panel.warning.text() == "" and panel.link.isEnabled()
    stored = registration_path(slide_of(first), slide_of(second))
    assert known.path == stored and stored.exists()


def test_sections_that_do_not_correspond_are_refused_and_nothing_is_shown(dock):
    docked = dock(seed=2)
    session, panel = docked.session, docked.registration
    layers = list(session.viewer.layers)
    register(docked)
    assert session.jobs.status.state is JobState.FAILED
    assert "✕ Not registered: first does not correspond to second" in panel.state.text()
    assert sections_of(session).known is None and not panel.link.isEnabled()
    assert not docked.carrying.carry.isEnabled() and not panel.show_edges.isEnabled()
    assert list(session.viewer.layers) == layers
    folder = registration_path(*map(slide_of, session.layers.slides())).parent
    assert not list(folder.glob("*.npz"))
    # What was registered to what is said, whichever is current.
    session.choose_slide(session.layers.slides()[1])
    assert "✕ Not registered: first does not correspond to second" in panel.state.text()


@pytest.mark.parametrize(("near", "is_weak"), [(0.46, True), (0.9, False)])
def test_a_weak_registration_has_no_check_mark_and_one_number(near, is_weak):
    residual = Residual(32.0, 60.0, 26, 0.31, near)
    found = SimpleNamespace(
        first={"name": "C2"},
        second={"name": "C3"},
        mirrored=False,
        angle_deg=3.0,
        overlap=0.9,
        residual=residual,
    )
    text = describe(SimpleNamespace(registration=found, path=None))
    assert ("✓" in text) != is_weak
    assert bool(weakness(found)) == is_weak
    assert not any(word.isdigit() for word in weakness(found).split())
    assert "31%" in residual.describe()


def test_a_cancelled_registration_leaves_nothing(dock):
    docked = dock()
    session = docked.session
    docked.registration.register.click()
    wait_until(lambda: session.jobs.status.progress is not None)
    docked.job.cancel.click()
    wait_until(lambda: not session.jobs.status.busy)
    assert session.jobs.status.state is JobState.CANCELLED
    assert sections_of(session).known is None
    assert docked.registration.state.text().startswith("Not registered yet")


def test_linked_views_show_the_same_place_in_both_halves(dock):
    docked = dock()
    session, viewer = docked.session, docked.session.viewer
    register(docked)
    first, second = session.layers.slides()
    mapping = session.registrations.map(first, second)
    camera = viewer.scene.camera
    zoom = camera.zoom
    docked.registration.link.click()
    assert viewer.canvas.grid.enabled and session.side_by_side
    assert camera.zoom == pytest.approx(zoom / 2)
    halves = viewer.canvas.grid
    for place in ((450.0, 520.0), (300.0, 600.0), (620.0, 430.0)):
        camera.center = first.data_to_world((place[1] - 0.5, place[0] - 0.5))
        camera.zoom = 1.0
        view = session.layers.view.link
        wait_until(lambda view=view: not view._timer.isActive())
        x, y = mapping.points([place])[0]
        shown = np.array(second.data_to_world((y - 0.5, x - 0.5)))
        # In world units, which are microns and, at zoom 1, screen pixels.
        assert np.linalg.norm(shown - camera.center[-2:]) < 1.6
        for layer in viewer.layers:
            box = halves.position(viewer.layers.index(layer), viewer.layers)
            assert box == (0, int(owner_of(layer) is second))
    docked.registration.link.click()
    assert not viewer.canvas.grid.enabled and not session.side_by_side
    np.testing.assert_array_equal(second.affine.affine_matrix, np.eye(3))
    assert "_viewbox_groups" not in vars(viewer.canvas.grid)


def test_a_click_in_the_right_half_is_one_on_the_other_section(dock):
    docked = dock()
    session, viewer = docked.session, docked.session.viewer
    register(docked)
    first, second = session.layers.slides()
    docked.registration.link.click()
    heard: list[tuple[Any, float, float]] = []

    def clicked(x: float, y: float, _mode: str) -> None:
        heard.append((session.slide, x, y))

    listener = ClickListener(
        viewer, session.slide_at, clicked, lambda *_: None, choose=session.choose_slide
    )
    listener.attach()
    place = first.data_to_world((520.0, 450.0))
    viewer.cursor.viewbox = (0, 1)
    mouse_of(viewer)(place)
    viewer.cursor.viewbox = (0, 0)
    mouse_of(viewer)(place)
    (slide, x, y), (same, x0, y0) = heard
    assert slide is second and same is first and (x0, y0) == (450.5, 520.5)
    truth = where_truly((x0, y0))
    # The affine transform is that of the middle of the view, some 100 px away.
    assert np.linalg.norm(truth - (x, y)) * MPP < 2 * NEAR_UM
    # Both stay beside each other, whichever is current.
    assert session.layers.view.link.is_on and first.visible and second.visible


def test_one_at_a_time_the_view_stays_at_its_place(dock):
    docked = dock()
    session, camera = docked.session, docked.session.viewer.scene.camera
    register(docked)
    first, second = session.layers.slides()
    docked.registration.link.click()
    session.show_side_by_side(False)
    camera.center = first.data_to_world((519.5, 449.5))
    camera.zoom = 0.7
    session.choose_slide(second)
    x, y = session.registrations.map(first, second).points([(450.0, 520.0)])[0]
    np.testing.assert_allclose(
        camera.center[-2:], second.data_to_world((y - 0.5, x - 0.5)), atol=1e-6
    )
    assert camera.zoom == pytest.approx(0.7)
    session.choose_slide(first)
    np.testing.assert_allclose(
        camera.center[-2:], first.data_to_world((519.5, 449.5)), atol=0.1
    )


def test_a_third_slide_ends_the_division_and_gives_it_back(dock, slide_path):
    docked = dock()
    session, viewer = docked.session, docked.session.viewer
    register(docked)
    first, second = session.layers.slides()
    docked.registration.link.click()
    viewer.open(slide_path, plugin="napari-mcm")
    third = session.slide
    assert third not in (first, second) and not viewer.canvas.grid.enabled
    np.testing.assert_array_equal(second.affine.affine_matrix, np.eye(3))
    session.choose_slide(first)
    assert viewer.canvas.grid.enabled and not third.visible
    viewer.layers.remove(second)
    wait_until(lambda: not viewer.canvas.grid.enabled)


def test_labels_arrive_at_their_true_place_and_others_are_listed(dock):
    docked = dock()
    session = docked.session
    register(docked)
    first, second = session.layers.slides()
    marks = [slide_of(one).fingerprint for one in (first, second)]
    classes = (LabelClass("tumour", "#ff0000", 1),)
    made = [
        PatchLabel(marks[0], 430, 500, 40, 40, "tumour", "Ada"),
        PatchLabel(marks[0], 480, 80, 40, 40, "tumour", "Ada"),
    ]
    session.labels.use(LabelSet(classes).with_labels(made))
    carry(docked, LABELS)
    (there,) = session.labels.set.of_slide(marks[1]).labels
    assert (there.label, there.author, there.source) == ("tumour", "Ada", "carried")
    at = np.array([there.x + there.width / 2, there.y + there.height / 2])
    assert np.linalg.norm(at - where_truly((450, 520))) * MPP < NEAR_UM
    panel = docked.carrying
    assert panel.outcome.text() == (
        "first to second: 1 of 2 labels placed; 1 off tissue"
    )
    assert panel.table.rowCount() == 1
    assert panel.table.item(0, 1).text() == "off tissue"
    # The list leads to the label, and the step can be undone.
    panel._go(panel.table.item(0, 0))
    centre = first.world_to_data(session.viewer.scene.camera.center[-2:])
    np.testing.assert_allclose(centre, (99.5, 499.5), atol=0.01)
    session.labels.undo()
    assert len(session.labels.set.of_slide(marks[1])) == 0


def test_labels_take_the_patches_of_the_other_sections_features(dock):
    docked = dock()
    session = docked.session
    register(docked)
    first, second = session.layers.slides()
    path = slide_of(second).path
    session.set_features(second, "first", features_of(path, 40, mpp=MPP))
    marks = [slide_of(one).fingerprint for one in (first, second)]
    one = PatchLabel(marks[0], 430, 500, 40, 40, "tumour")
    session.labels.use(LabelSet((LabelClass("tumour", "#ff0000"),)).with_labels([one]))
    carry(docked, LABELS)
    (there,) = session.labels.set.of_slide(marks[1]).labels
    grid = session.features_of(second)["first"].index.features.grid
    row = grid.index_at(*where_truly((450, 520)))
    assert (there.x, there.y) == tuple(grid.xy[row])


def test_a_tissue_mask_and_regions_arrive(dock):
    docked = dock()
    session = docked.session
    register(docked)
    first, second = session.layers.slides()
    drawn = np.zeros((SIZE // 2, SIZE // 2), bool)
    drawn[245:275, 205:245] = True
    from napari_mcm.core.tissue import TissueMask

    session.tissue.show_found(first, TissueMask(drawn, (2.0, 2.0)))
    carry(docked, TISSUE)
    wait_until(lambda: session.tissue.mask_of(second) is not None)
    mask = session.tissue.mask_of(second).mask
    rows, columns = np.nonzero(mask.mask)
    at = (np.array([columns.mean(), rows.mean()]) + 0.5) * mask.downsample
    assert np.linalg.norm(at - where_truly((450, 520))) * MPP < NEAR_UM
    session.tissue.flush()
    session.disk.wait()
    assert drawn_mask_path(slide_of(second)).exists()

    # Regions of a layer of the user, one of them on the glass.
    box = np.array([(500, 430), (500, 470), (540, 470), (540, 430)], float) - 0.5
    shapes = session.viewer.add_shapes(
        [box * MPP, (box - 480) * MPP],
        shape_type="polygon",
        features={"name": ["duct", "glass"]},
        units=first.units,
        axis_labels=first.axis_labels,
    )
    session.tissue._masks.pop(second)
    session.layers.activate(first)
    carry(docked, "")
    wait_until(lambda: any(kind_of(one) == "carried" for one in session.viewer.layers))
    (layer,) = [one for one in session.viewer.layers if kind_of(one) == "carried"]
    assert owner_of(layer) is second and not layer.visible
    assert layer.features["name"].tolist() == ["duct"]
    world = layer.data_to_world(layer.data[0].mean(axis=0))
    y, x = second.world_to_data(world)
    assert np.linalg.norm(where_truly((450, 520)) - (x + 0.5, y + 0.5)) * MPP < NEAR_UM
    assert [one.what for one in docked.carrying._carrier.left_out] == ["glass"]
    assert shapes in session.viewer.layers


def test_a_query_is_asked_of_the_other_section_at_the_same_place(dock):
    docked = dock()
    session, viewer = docked.session, docked.session.viewer
    viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")
    register(docked)
    first, second = session.layers.slides()
    for slide in (first, second):
        session.set_features(
            slide, "first", features_of(slide_of(slide).path, 40, mpp=MPP)
        )
    context = context_of(session)
    docked.registration.link.click()
    context.queries.point(450.0, 520.0)
    wait_until(lambda: context.query is not None)
    visuals = canvas_of(viewer).layer_to_visual

    def is_drawn_with(layer: Any, slide: Any) -> bool:
        return visuals[layer].node.parent is visuals[slide].node.parent

    (frame,) = [one for one in viewer.layers if kind_of(one) == "query"]
    assert is_drawn_with(frame, first) and not is_drawn_with(second, first)
    carry(docked, QUERY)
    wait_until(lambda: session.slide is second and context.query is not None)
    query = context.query
    assert query.here and query.spec.slide == slide_of(second).fingerprint
    ((x, y),) = query.spec.examples.like
    assert np.linalg.norm(where_truly((450, 520)) - (x, y)) * MPP < NEAR_UM
    assert "1 of 1 examples placed" in docked.carrying.outcome.text()
    # Its frame is in the half of the section that was asked.
    assert owner_of(frame) is second and is_drawn_with(frame, second)


def test_a_stored_registration_comes_back_and_one_of_others_does_not(dock, tmp_path):
    docked = dock()
    session, panel = docked.session, docked.registration
    register(docked)
    first, second = session.layers.slides()
    path = registration_path(slide_of(first), slide_of(second))
    other = read_registration(path)
    copy = tmp_path / "copy.npz"
    panel._sections.save(copy)
    session.disk.wait()
    assert read_registration(copy).describe() == other.describe()
    session.registrations.forget(first, second)
    assert panel.state.text().startswith("Not registered yet")
    # As when both slides are opened again.
    session.registrations._sought.clear()
    sections_of(session)._look()
    session.disk.wait()
    wait_until(lambda: sections_of(session).known is not None)
    other.second["fingerprint"] = "0" * 16
    write_registration(tmp_path / "other.npz", other)
    session.registrations.forget(first, second)
    sections_of(session).load(tmp_path / "other.npz")
    wait_until(lambda: session.problem)
    assert "the registration is of first and second" in session.problem
    assert sections_of(session).known is None


def test_a_project_names_the_registrations_of_its_slides(dock, tmp_path):
    docked = dock()
    session = docked.session
    project = project_of(session)
    path = tmp_path / "block.mcm.json"
    wait_until(lambda: len(project.project.slides) == 2)
    project.save_as(path)
    wait_until(lambda: project.path == path)
    register(docked)
    session.disk.wait()
    first, second = session.layers.slides()
    beside = registration_path(slide_of(first), slide_of(second))
    (entry,) = read_project(path).registrations
    assert entry.path == beside.relative_to(tmp_path).as_posix()
    marks = [slide_of(one).fingerprint for one in (first, second)]
    assert [entry.first, entry.second] == marks
    # One that was loaded from elsewhere is found by the project alone.
    elsewhere = tmp_path / "other" / "mine.npz"
    elsewhere.parent.mkdir()
    beside.rename(elsewhere)
    sections_of(session).load(elsewhere)
    wait_until(lambda: sections_of(session).known.path == elsewhere)
    session.disk.wait()
    (entry,) = read_project(path).registrations
    assert entry.path == "other/mine.npz"
    session.registrations.forget(first, second)
    project._registrations._asked = None  # as if another project was open
    project.open(path)
    wait_until(lambda: sections_of(session).known is not None)
    assert sections_of(session).known.path == elsewhere
    # Saved elsewhere, it names the same file.
    project.save_as(tmp_path / "deep" / "block.mcm.json")
    wait_until(lambda: project.path.parent.name == "deep")
    session.disk.wait()
    (entry,) = read_project(project.path).registrations
    assert entry.path == "../other/mine.npz"


def test_edges_of_each_section_are_drawn_on_the_other(dock):
    docked = dock()
    session = docked.session
    register(docked)
    docked.registration.show_edges.click()
    names = {"neighbour's edges: first", "neighbour's edges: second"}
    wait_until(lambda: names <= {one.name for one in session.viewer.layers}, 60)
    layer = session.viewer.layers["neighbour's edges: second"]
    assert owner_of(layer) is session.layers.slides()[1] and not layer.visible
    assert session.viewer.layers["neighbour's edges: first"].visible
    docked.registration.show_edges.click()
    assert not session.viewer.layers["neighbour's edges: first"].visible


def test_the_command_is_that_of_both_slides(dock):
    docked = dock()
    docked.registration.command.copy.trigger()
    text = QApplication.clipboard().text()
    first, second = (Path(slide_of(s).path) for s in docked.session.layers.slides())
    assert text.startswith("napari-mcm register")
    assert text.index(first.name) < text.index(second.name)
