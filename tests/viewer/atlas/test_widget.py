"""The dock Atlas, used by mouse, with two slides of known features."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from matplotlib.path import Path as Outline
from napari.utils._test_utils import read_only_mouse_event
from napari.utils.interactions import mouse_move_callbacks
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent, QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_mcm.core.features.feature_set import PATCH_ALONE, FeatureSet
from napari_mcm.core.features.interchange.formats import save_features
from napari_mcm.core.features.reading import read_features
from napari_mcm.core.heatmaps import Heatmap
from napari_mcm.core.labelling import ClassifierConfig, PatchClassifier
from napari_mcm.core.runtime.jobs import run
from napari_mcm.viewer.app.features import LoadedFeatures, load_features
from napari_mcm.viewer.app.shared_query import SharedQuery, query_of
from napari_mcm.viewer.atlas.colouring import CHOICES, NOTHING, ColourBy
from napari_mcm.viewer.atlas.controller import SUGGESTED
from napari_mcm.viewer.atlas.widget import AtlasWidget
from napari_mcm.viewer.project.controller import project_of
from napari_mcm.viewer.project.memory import memory_of
from tests.core.conftest import stained_image
from tests.viewer.conftest import MPP, features_of, finish, wait_until

KINDS = 3
LEFT = Qt.MouseButton.LeftButton
NO_KEY, SHIFT = Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ShiftModifier


def write(path: Path, image: NDArray[np.uint8]) -> Path:
    options: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb"}
    resolution = {"resolution": (1e4 / MPP, 1e4 / MPP), "resolutionunit": 3}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(image, subifds=1, **options, **resolution)
        tiff.write(image[::2, ::2], subfiletype=1, **options)
    return path


def kinds_of(grid: Any) -> NDArray[np.int64]:
    """Three kinds of tissue: bands from left to right."""
    return np.asarray(grid.lattice[:, 1] * KINDS // grid.shape[1])


def save(slide: Path) -> Path:
    """Write features of three kinds of tissue."""
    made = features_of(slide).index.features
    rng = np.random.default_rng(len(slide.stem))
    centres = np.random.default_rng(7).normal(size=(KINDS, 16))
    noise = 0.1 * rng.normal(size=(len(made), 16))
    vectors = (centres[kinds_of(made.grid)] + noise).astype(np.float32)
    encoder = {"spec": "made", "fingerprint": "e" * 16, "precision": "float32"}
    encoder |= {"dim": 16}
    features = FeatureSet(vectors, made.grid, made.status, encoder)
    path = slide.parent / "features" / f"{slide.stem}.features.zarr"
    path.parent.mkdir(exist_ok=True)
    save_features(features, path)
    return path


@pytest.fixture
def slides(tmp_path: Path) -> list[Path]:
    """Two slides, of which the second is the first upside down."""
    image = stained_image(1200, 1000)
    made = [
        write(tmp_path / "one.tif", image),
        write(tmp_path / "two.tif", np.ascontiguousarray(image[::-1])),
    ]
    for slide in made:
        save(slide)
    return made


def file_of(slide: Path) -> Path:
    return slide.parent / "features" / f"{slide.stem}.features.zarr"


def open_in(viewer: Any, session: Any, slide: Path) -> LoadedFeatures:
    """Open a slide with its features."""
    viewer.open(slide, plugin="napari-mcm")
    loaded = run(load_features(file_of(slide), slide))
    session.set_features(session.slide, "first", loaded)
    memory = memory_of(session)
    wait_until(lambda: memory.fingerprint_of(session.slide))
    return loaded


@pytest.fixture
def dock(viewer: Any, slides: list[Path]) -> Iterator[AtlasWidget]:
    """The dock, with the first slide open."""
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", "Atlas")
    open_in(viewer, docked.session, slides[0])
    yield docked
    finish(docked)
    docked.controller.worker.wait()
    docked.controller.pictures._worker.wait()


def make(dock: AtlasWidget, source: str = "slide") -> Any:
    """Make an atlas by the button; give it."""
    dock.source.source.setCurrentIndex(dock.source.source.findData(source))
    dock.source.context.setCurrentIndex(0)
    dock.method.count.setValue(KINDS)
    wait_until(lambda: dock.source.make.isEnabled())
    before = dock.controller.atlas
    QTest.mouseClick(dock.source.make, LEFT)
    wait_until(lambda: not dock.session.jobs.status.busy)
    assert dock.controller.atlas is not before, dock.session.jobs.status.message
    dock.map.scatter.resize(400, 300)
    return dock.controller.atlas


def colour_by(dock: AtlasWidget, by: ColourBy) -> None:
    """Choose what colours say."""
    dock.map.by.setCurrentIndex(CHOICES.index(by))
    dock.map.by.activated.emit(CHOICES.index(by))


def move(scatter: Any, at: QPointF, pressed: bool = False, key: Any = NO_KEY) -> None:
    """Move the mouse over the map."""
    down = LEFT if pressed else Qt.MouseButton.NoButton
    there = QPointF(scatter.mapToGlobal(at.toPoint()))
    none = Qt.MouseButton.NoButton
    event = QMouseEvent(QEvent.Type.MouseMove, at, there, none, down, key)
    QApplication.sendEvent(scatter, event)


def lasso(scatter: Any, corners: list[QPointF], key: Any = SHIFT) -> None:
    QTest.mousePress(scatter, LEFT, key, corners[0].toPoint())
    for corner in corners[1:]:
        move(scatter, corner, True, key)
    QTest.mouseRelease(scatter, LEFT, key, corners[-1].toPoint())


def hover_slide(viewer: Any, session: Any, x: float, y: float) -> None:
    """Move the pointer over the canvas, to level-0 pixels of the current slide."""
    world = session.slide.data_to_world((y - 0.5, x - 0.5))
    event = read_only_mouse_event(
        type="mouse_move", pos=np.zeros(2), position=tuple(world), modifiers=[]
    )
    mouse_move_callbacks(viewer, event)


def test_an_atlas_of_a_slide_finds_its_tissue(dock: AtlasWidget) -> None:
    atlas = make(dock)
    features = read_features(atlas.slides[0].features)
    assert len(atlas) == len(features)
    pairs = set(
        zip(kinds_of(features.grid).tolist(), atlas.clusters.tolist(), strict=True)
    )
    assert len(pairs) == KINDS
    assert dock.map.legend.kinds.count() == KINDS
    text = dock.section.line.full_text
    assert text == f"one · {len(atlas):,} patches · patch"


def test_pointing_at_a_point_frames_its_patch_and_shows_it(
    dock: AtlasWidget,
) -> None:
    atlas = make(dock)
    scatter, controller = dock.map.scatter, dock.controller
    for point in (0, len(atlas) // 2, len(atlas) - 1):
        move(scatter, scatter.screen_of(point))
        grid, row = atlas.slides[0].grid, int(atlas.row[point])
        assert controller.pointed == point
        frame = dock.session.layers._top
        x, y = grid.xy[row] + np.asarray(grid.patch_size_level0) / 2
        assert frame._centre.tolist() == [y - 0.5, x - 0.5]
        wait_until(lambda: not dock.map.picture.pixmap().isNull())
        known, pixels = controller.pictures.known(*controller.place_of(point))
        assert known
        assert_shows(pixels, stained_image(1200, 1000), grid, row)
        move(scatter, QPointF(1, 1))
        assert controller.pointed == -1


def assert_shows(pixels: Any, image: NDArray[np.uint8], grid: Any, row: int) -> None:
    """Assert that a picture is of a patch, by the pixels that were written."""
    x, y = (int(v) for v in grid.xy[row])
    width, height = (round(v) for v in grid.patch_size_level0)
    true = image[y : y + height, x : x + width].mean(axis=(0, 1))
    np.testing.assert_allclose(pixels.mean(axis=(0, 1)), true, atol=2)


def test_the_pointer_on_the_slide_marks_its_point(
    dock: AtlasWidget, viewer: Any
) -> None:
    atlas = make(dock)
    grid = atlas.slides[0].grid
    for point in (3, 40):
        x, y = grid.xy[atlas.row[point]]
        width, height = grid.patch_size_level0
        for right, down in ((0.1, 0.1), (0.9, 0.5)):
            hover_slide(viewer, dock.session, x + right * width, y + down * height)
            assert dock.controller.pointed == point
            assert dock.map.scatter._marked == point
    hover_slide(viewer, dock.session, -500, -500)
    assert dock.controller.pointed == dock.map.scatter._marked == -1


def test_the_lasso_selects_what_is_inside_and_outlines_it(dock: AtlasWidget) -> None:
    atlas = make(dock)
    scatter, controller = dock.map.scatter, dock.controller
    angles = np.linspace(0, 2 * np.pi, 25)
    corners = [
        QPointF(200 + 130 * np.cos(a), 150 + (60 + 50 * np.sin(3 * a)) * np.sin(a))
        for a in angles
    ]
    lasso(scatter, corners)
    at = np.array([(p.x(), p.y()) for p in map(scatter.screen_of, range(len(atlas)))])
    # The corners that were told: the first and the last are whole pixels.
    polygon = np.array([(c.x(), c.y()) for c in corners])
    polygon[0] = corners[0].toPoint().x(), corners[0].toPoint().y()
    inside = np.flatnonzero(Outline(polygon).contains_points(at))
    assert 0 < len(inside) < len(atlas)
    wait_until(lambda: len(controller.selected))
    assert np.array_equal(controller.selected, inside)
    outlines = controller._outlines._outlines
    mask = outlines._made[dock.session.slide][1].mask
    grid = atlas.slides[0].grid
    cells = {tuple(grid.lattice[row].tolist()) for row in atlas.row[inside]}
    assert {tuple(cell) for cell in np.argwhere(mask).tolist()} == cells
    layer = outlines.layer_of(dock.session.slide)
    assert layer.visible
    assert layer.units == dock.session.slide.units
    QTest.keyClick(scatter, Qt.Key.Key_Escape)
    assert not len(controller.selected)
    assert not layer.visible


def test_a_lasso_with_the_tool_and_ctrl_adds(dock: AtlasWidget) -> None:
    make(dock)
    scatter, controller = dock.map.scatter, dock.controller
    dock.map.lasso.setChecked(True)
    for middle, key in (
        (scatter.screen_of(0), NO_KEY),
        (scatter.screen_of(60), Qt.KeyboardModifier.ControlModifier),
    ):
        square = [
            middle + QPointF(x, y) for x, y in ((-6, -6), (6, -6), (6, 6), (-6, 6))
        ]
        before = len(controller.selected)
        lasso(scatter, square, key)
        wait_until(lambda before=before: len(controller.selected) > before)
    assert {0, 60} <= set(controller.selected.tolist())


def test_the_selection_gets_a_class_that_is_undone_in_one_step(
    dock: AtlasWidget,
) -> None:
    atlas = make(dock)
    labels, points = dock.session.labels, np.array([4, 9, 30])
    dock.controller.select(points)
    assert dock.selection.line.text() == "3 patches selected on 1 slide"
    assert not dock.selection.label.isEnabled()
    dock.selection.name.setEditText("fat")
    QTest.mouseClick(dock.selection.label, LEFT)
    grid = atlas.slides[0].grid
    corners = {tuple(int(v) for v in grid.xy[atlas.row[p]]) for p in points}
    assert {(one.x, one.y) for one in labels.set.labels} == corners
    assert {(one.label, one.source) for one in labels.set.labels} == {("fat", "lasso")}
    colour_by(dock, "label")
    wait_until(lambda: dock.colours.colouring.by == "label")
    colours = dock.colours.colouring.colours
    assert (colours[points] != NOTHING).any(axis=1).all()
    assert (np.delete(colours, points, axis=0) == NOTHING).all()
    labels.undo()
    assert not labels.set.labels
    wait_until(lambda: (dock.colours.colouring.colours == NOTHING).all())


def test_number_keys_label_the_selection_or_what_is_under_the_pointer(
    dock: AtlasWidget,
) -> None:
    atlas = make(dock)
    labels, scatter = dock.session.labels, dock.map.scatter
    labels.new_class("fat")
    labels.new_class("stroma")
    move(scatter, scatter.screen_of(7))
    pointed = dock.controller.pointed
    assert pointed >= 0
    QTest.keyClick(scatter, Qt.Key.Key_2)
    dock.controller.select(np.array([20, 21]))
    QTest.keyClick(scatter, Qt.Key.Key_1)
    xy = atlas.slides[0].grid.xy[atlas.row]
    made = {((one.x, one.y), one.label, one.source) for one in labels.set.labels}
    assert made == {
        (tuple(xy[pointed]), "stroma", "click"),
        (tuple(xy[20]), "fat", "lasso"),
        (tuple(xy[21]), "fat", "lasso"),
    }
    QTest.keyClick(scatter, Qt.Key.Key_9)
    assert "No class has the key 9" in dock.session.problem


def test_a_number_key_on_the_map_leaves_what_was_pointed_at_on_the_slide(
    dock: AtlasWidget, viewer: Any
) -> None:
    make(dock)
    dock.session.labels.new_class("fat")
    x, y = dock.controller.atlas.slides[0].grid.centres[5]
    hover_slide(viewer, dock.session, x, y)
    assert dock.controller.pointed >= 0
    # The map has the keyboard, and the pointer may be anywhere by now.
    QTest.keyClick(dock.map.scatter, Qt.Key.Key_1)
    assert dock.session.labels.set.labels == ()


def test_a_cluster_is_named_after_its_typical_patches(dock: AtlasWidget) -> None:
    atlas = make(dock)
    kinds = dock.map.legend.kinds
    place = kinds.visualItemRect(kinds.item(1)).center()
    QTest.mouseClick(kinds.viewport(), LEFT, NO_KEY, place)
    assert np.array_equal(dock.controller.selected, np.flatnonzero(atlas.clusters == 1))
    dock.selection.name.setEditText("stroma")
    QTest.mouseClick(dock.selection.name_cluster, LEFT)
    labelled = dock.session.labels.set.labels
    assert len(labelled) == SUGGESTED
    assert {(one.label, one.source) for one in labelled} == {("stroma", "cluster")}
    members = np.flatnonzero(atlas.clusters == 1)
    vectors = atlas.reduced[members].astype(float)
    distance = np.linalg.norm(vectors - vectors.mean(axis=0), axis=1)
    nearest = members[np.argsort(distance)[:SUGGESTED]]
    grid = atlas.slides[0].grid
    corners = {tuple(int(v) for v in grid.xy[atlas.row[p]]) for p in nearest}
    assert {(one.x, one.y) for one in labelled} == corners


def test_naming_a_cluster_keeps_labels_and_says_so(dock: AtlasWidget) -> None:
    atlas, labels = make(dock), dock.session.labels
    kinds, said = dock.map.legend.kinds, dock.selection.said
    grid = atlas.slides[0].grid
    by_hand = [int(atlas.row[p]) for p in dock.controller.typical(1, 2)]
    labels.new_class("fat")
    labels.add(grid, by_hand, "fat")
    place = kinds.visualItemRect(kinds.item(1)).center()
    QTest.mouseClick(kinds.viewport(), LEFT, NO_KEY, place)
    dock.selection.name.setEditText("stroma")
    QTest.mouseClick(dock.selection.name_cluster, LEFT)
    assert labels.set.counts() == {"fat": 2, "stroma": SUGGESTED - 2}
    assert said.text().startswith("18 patches labelled stroma, 2 had a label")
    wait_until(lambda: kinds.item(1).text().startswith("cluster 2: stroma"))
    assert kinds.item(0).text().startswith("cluster 1 ·")
    # What it says is over when it is undone.
    dock.session.order.undo()
    assert labels.set.counts() == {"fat": 2, "stroma": 0}
    assert said.text() == ""
    wait_until(lambda: kinds.item(1).text().startswith("cluster 2 ·"))


def test_a_project_of_two_slides_leads_to_both(
    dock: AtlasWidget, viewer: Any, slides: list[Path]
) -> None:
    session, project = dock.session, project_of(dock.session)
    project.add_slides([slides[1]])

    def marks() -> set[str]:
        return {one.fingerprint for one in project.project.slides}

    wait_until(lambda: len(marks() - {""}) == 2)
    atlas = make(dock, "project")
    assert [slide.name for slide in atlas.slides] == ["one", "two"]
    second = np.flatnonzero(atlas.slide == 1)
    # One that no other point is near to, as a click hits whole pixels.
    apart = dock.controller.tree.query(atlas.map[second], k=2)[0][:, 1]
    point = int(second[apart.argmax()])
    scatter, controller = dock.map.scatter, dock.controller
    # The second slide is not open: its patch is seen all the same, but not framed.
    controller.point(point)
    wait_until(lambda: controller.pictures.known(*controller.place_of(point))[0])
    _, pixels = controller.pictures.known(*controller.place_of(point))
    grid, row = atlas.slides[1].grid, int(atlas.row[point])
    assert_shows(pixels, stained_image(1200, 1000)[::-1], grid, row)
    controller.select(np.array([0, point]))
    assert dock.selection.line.text() == "2 patches selected on 2 slides"
    QTest.mouseClick(scatter, LEFT, NO_KEY, scatter.screen_of(point).toPoint())
    wait_until(lambda: session.metadata.name == "two")
    x, y = (grid.xy[row] + np.asarray(grid.patch_size_level0) / 2 - 0.5) * MPP
    camera = viewer.scene.camera
    wait_until(lambda: np.allclose(camera.center[-2:], (y, x)))
    # Of the two slides, the current one alone is seen, with its outline.
    first, other = session.layers.slides()
    assert (first.visible, other.visible) == (False, True)
    outlines = controller._outlines._outlines
    wait_until(lambda: outlines.layer_of(other) is not None)
    assert outlines._made[other][1].mask.sum() == 1
    assert outlines.layer_of(other).visible
    assert not outlines.layer_of(first).visible
    # And the pointer on it finds its points, not those of the first.
    x, y = grid.centres[row]
    hover_slide(viewer, session, float(x), float(y))
    assert controller.pointed == point


def test_colours_by_similarity_are_the_cosines_of_all_slides(
    dock: AtlasWidget, slides: list[Path]
) -> None:
    atlas = make(dock, "folder")
    assert len(atlas.slides) == 2
    colour_by(dock, "similarity")
    assert "there is no query" in dock.map.legend.note.text()
    direction = np.random.default_rng(3).normal(size=(1, 16)).astype(np.float32)
    direction /= np.linalg.norm(direction)
    key = "e" * 16
    query_of(dock.session).use(SharedQuery({key: direction}, {key: (-1.0, 1.0)}))
    wait_until(lambda: dock.colours.values is not None)
    expected = []
    for slide in slides:
        vectors = read_features(file_of(slide)).features.astype(float)
        lengths = np.linalg.norm(vectors, axis=1)
        expected.append(vectors @ direction[0].astype(float) / lengths)
    np.testing.assert_allclose(dock.colours.values, np.concatenate(expected), atol=1e-5)
    assert not dock.map.legend.note.isVisibleTo(dock)
    query_of(dock.session).use(SharedQuery({"f" * 16: direction}, {}))
    wait_until(lambda: "another encoder" in dock.map.legend.note.text())
    assert (dock.colours.colouring.colours == NOTHING).all()


def test_attention_is_that_of_the_map_on_the_slide(dock: AtlasWidget) -> None:
    atlas = make(dock)
    colour_by(dock, "attention")
    assert "Draw attention" in dock.map.legend.note.text()
    grid = atlas.slides[0].grid
    # Of a part of the patches, and in another order.
    rows = np.random.default_rng(0).permutation(len(grid))[:50]
    part = replace(grid, xy=grid.xy[rows], lattice=grid.lattice[rows])
    values = np.linspace(0, 1, 50, dtype=np.float32)
    heatmap = Heatmap(values, part, (0.0, 1.0), "attention")
    slide = dock.session.slide
    dock.session.layers.show_map(slide, "attention", "attention", heatmap)
    colour_by(dock, "attention")
    expected = np.full(len(grid), np.nan, np.float32)
    expected[rows] = values
    assert np.array_equal(dock.colours.values, expected[atlas.row], equal_nan=True)
    unknown = np.isnan(dock.colours.values)
    assert (dock.colours.colouring.colours[unknown] == NOTHING).all()


def test_classes_are_as_labelled_and_else_as_predicted(
    dock: AtlasWidget, slides: list[Path]
) -> None:
    atlas, labels = make(dock, "folder"), dock.session.labels
    for name in ("fat", "stroma", "tumour"):
        labels.new_class(name)
    colour_by(dock, "class")
    wait_until(lambda: "Labels alone" in dock.map.legend.note.text())
    rng = np.random.default_rng(0)
    # Of two classes, in another order than the dock's.
    weights = rng.normal(size=(16, 2)).astype(np.float32)
    bias = np.zeros(2, np.float32)
    config = ClassifierConfig(neighbourhood=PATCH_ALONE, unsure_below=0.5)
    classifier = PatchClassifier(
        ("tumour", "fat"), weights, bias, 1.0, False, config, (5, 5)
    )
    labels.use_classifier(classifier)
    wait_until(lambda: not dock.map.legend.note.text())
    vectors = np.concatenate([read_features(file_of(s)).features for s in slides])
    logits = vectors.astype(float) @ weights.astype(float)
    expected = np.where(logits[:, 0] > logits[:, 1], 2, 0)
    assert np.array_equal(dock.colours.colouring.kinds, expected)
    grid = atlas.slides[1].grid
    point = int(np.flatnonzero(atlas.slide == 1)[3])
    labels.add(grid, [int(atlas.row[point])], "stroma")
    colour_by(dock, "class")
    expected[point] = 1
    wait_until(lambda: np.array_equal(dock.colours.colouring.kinds, expected))


def test_features_of_other_patches_are_not_mistaken_for_those_of_the_atlas(
    dock: AtlasWidget, slides: list[Path]
) -> None:
    make(dock, "folder")
    made = features_of(slides[1], 80).index.features
    encoder = {"spec": "made", "fingerprint": "e" * 16, "precision": "float32"}
    other = FeatureSet(made.features, made.grid, made.status, encoder | {"dim": 16})
    shutil.rmtree(file_of(slides[1]))
    save_features(other, file_of(slides[1]))
    colour_by(dock, "similarity")
    direction = np.eye(16, dtype=np.float32)[:1]
    key = "e" * 16
    query_of(dock.session).use(SharedQuery({key: direction}, {key: (-1.0, 1.0)}))
    wait_until(lambda: "has other patches than the atlas" in dock.session.problem)
    assert dock.colours.values is None


def test_other_clusters_keep_the_map_and_the_selection(dock: AtlasWidget) -> None:
    atlas = make(dock)
    dock.controller.select(np.array([1, 2]))
    dock.method.count.setValue(5)
    wait_until(lambda: dock.controller.atlas is not atlas)
    wait_until(lambda: not dock.session.jobs.status.busy)
    changed = dock.controller.atlas
    assert changed.cluster_count == 5
    assert changed.map is atlas.map
    assert dock.controller.selected.tolist() == [1, 2]
    assert dock.map.legend.kinds.count() == 5


def test_the_wheel_zooms_and_home_shows_all(dock: AtlasWidget) -> None:
    make(dock)
    scatter = dock.map.scatter
    whole, at = scatter.view, QPointF(50, 60)
    event = QWheelEvent(
        at,
        QPointF(scatter.mapToGlobal(at.toPoint())),
        QPoint(),
        QPoint(0, 120),
        Qt.MouseButton.NoButton,
        NO_KEY,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(scatter, event)
    assert scatter.view.scale > whole.scale
    QTest.keyClick(scatter, Qt.Key.Key_Home)
    assert scatter.view == whole
    QTest.mousePress(scatter, LEFT, NO_KEY, QPoint(10, 10))
    for x in (20, 40, 60):
        move(scatter, QPointF(x, 30), True)
    QTest.mouseRelease(scatter, LEFT, NO_KEY, QPoint(60, 30))
    moved = scatter.view.to_screen(np.zeros((1, 2))) - whole.to_screen(np.zeros((1, 2)))
    assert moved[0].tolist() == pytest.approx([50, 20], abs=1)


def test_nothing_is_cut_off_in_a_narrow_dock(dock: AtlasWidget) -> None:
    assert dock.minimumSizeHint().width() <= 320
    make(dock)
    dock.controller.select(np.flatnonzero(dock.controller.atlas.clusters == 0))
    dock.selection.name.setEditText("a class with a long name, longer than the dock")
    QApplication.processEvents()
    assert dock.minimumSizeHint().width() <= 320


def test_without_features_the_dock_says_what_to_do(
    viewer: Any, slide_path: Path
) -> None:
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", "Atlas")
    assert "Open a slide" in docked.section.sentence.text()
    viewer.open(slide_path, plugin="napari-mcm")
    wait_until(lambda: "compute them in Similarity" in docked.section.sentence.text())
    assert not docked.source.make.isEnabled()
    finish(docked)


def test_a_missing_slide_is_named_and_nothing_is_lost(
    dock: AtlasWidget, slides: list[Path]
) -> None:
    atlas = make(dock, "folder")
    slides[1].unlink()
    point = int(np.flatnonzero(atlas.slide == 1)[0])
    dock.controller.point(point)
    wait_until(lambda: "No picture: slide two is not in" in dock.map.place.text())
    dock.controller.go_to(point)
    wait_until(lambda: "slide two is not in" in dock.session.problem)
    assert dock.controller.atlas is atlas
