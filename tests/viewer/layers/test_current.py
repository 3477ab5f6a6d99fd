"""One slide at a time: what is visible, where the view is, and what the canvas says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QApplication

from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.heatmaps import SimilarityIndex
from napari_mcm.core.tissue import TissueMask
from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.layers.metadata import owner_of
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.slide.widget import SlideWidget
from tests.viewer.conftest import Click, features_of, finish, write_slide
from tests.viewer.seen import problems, settle

PLUGIN = "napari-mcm"


@pytest.fixture
def two(viewer: Any, tmp_path: Path) -> Iterator[Session]:
    """Two slides of unlike resolution with features and maps; the second is current."""
    paths = [
        write_slide(tmp_path / name, mpp)
        for name, mpp in (("one.tif", 0.5), ("two.tif", 0.3))
    ]
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, "Slide")
    session = widget.session
    for path in paths:
        viewer.open(path, plugin=PLUGIN)
        mpp = session.metadata.mpp[0]
        session.set_features(session.slide, "first", features_of(path, mpp=mpp))
        context_of(session).queries.point(*centre(session, 30))
        settle(session)
    yield session
    finish(widget)


def centre(session: Session, row: int) -> tuple[float, float]:
    x, y = session.features("first").index.features.grid.centres[row]
    return float(x), float(y)


def layers_of(session: Session, slide: Any) -> set[Any]:
    return {layer for layer in session.viewer.layers if owner_of(layer) is slide}


def visible(session: Session) -> set[Any]:
    return {layer for layer in session.viewer.layers if layer.visible}


def world(session: Session, slide: Any, row: int) -> tuple[float, float]:
    """Return where a patch's centre is on the canvas, as clicks state it."""
    loaded = session.features_of(slide)["first"]
    x, y = loaded.index.features.grid.centres[row]
    return tuple(slide.data_to_world((y - 0.5, x - 0.5)))


def test_the_list_shows_the_slide_and_hides_all_layers_of_the_other(
    two: Session,
) -> None:
    one, other = two.layers.slides()
    mask = TissueMask(np.ones((20, 24), bool), (50.0, 50.0), "found")
    for slide in (one, other):
        two.tissue.show_found(slide, mask)
    assert two.slide is other and visible(two) == layers_of(two, other)
    kinds = {layer.metadata[PLUGIN]["kind"] for layer in visible(two)}
    assert kinds >= {"slide", "heatmap", "tissue", "query"}
    two.choose_slide(one)
    settle(two)
    assert visible(two) == layers_of(two, one)
    assert len(visible(two)) > 2 and problems(two) == []


def test_layers_come_back_as_the_user_had_them(two: Session) -> None:
    one, other = two.layers.slides()
    hidden = two.layers.map_of(other, "first")
    hidden.visible = False
    two.choose_slide(one)
    assert two.layers.map_of(one, "first").visible
    two.choose_slide(other)
    assert other.visible and not hidden.visible
    hidden.visible = True
    two.choose_slide(one)
    two.choose_slide(other)
    assert hidden.visible


@pytest.mark.parametrize("act", ["select", "eye", "map's eye"])
def test_the_layer_list_chooses_the_slide(two: Session, act: str) -> None:
    one, _ = two.layers.slides()
    heatmap = two.layers.map_of(one, "first")
    if act == "select":
        two.viewer.layers.selection.active = heatmap
    else:
        (one if act == "eye" else heatmap).visible = True
    settle(two)
    assert two.slide is one and one.visible and heatmap.visible
    assert visible(two) == layers_of(two, one) and problems(two) == []


def test_deleting_a_layer_does_not_choose_another_slide(two: Session) -> None:
    one, other = two.layers.slides()
    two.viewer.layers.selection.active = two.layers.map_of(other, "first")
    two.viewer.layers.remove_selected()
    assert two.slide is other and other.visible and not one.visible
    QApplication.processEvents()
    two.viewer.layers.selection.active = one
    assert two.slide is one


def test_the_eye_of_a_slide_hides_its_map_and_clicks_ask_nothing(
    two: Session, click: Click
) -> None:
    _, other = two.layers.slides()
    other.visible = False
    assert visible(two) == set()
    assert not two.viewer.canvas.overlays.text.visible
    before = context_of(two).query
    click(world(two, other, 50))
    assert context_of(two).query is before
    other.visible = True
    assert visible(two) == layers_of(two, other)
    other.visible = False
    two.layers.map_of(other, "first").visible = True
    assert other.visible and visible(two) == layers_of(two, other)


def test_layers_of_others_are_left_alone(two: Session) -> None:
    one, _ = two.layers.slides()
    own = two.viewer.add_points([[100, 100]], units=("um", "um"))
    hidden = two.viewer.add_shapes(units=("um", "um"), visible=False)
    two.choose_slide(one)
    assert own.visible and not hidden.visible
    two.viewer.layers.selection.active = own
    assert two.slide is one


def test_each_slide_keeps_its_view(two: Session) -> None:
    one, other = two.layers.slides()
    camera = two.viewer.scene.camera
    camera.center, camera.zoom = (50.0, 60.0), 7.0
    two.choose_slide(one)
    camera.center, camera.zoom = (10.0, 20.0), 3.0
    two.choose_slide(other)
    assert np.allclose(camera.center[-2:], (50, 60)) and camera.zoom == 7
    two.choose_slide(one)
    assert np.allclose(camera.center[-2:], (10, 20)) and camera.zoom == 3


def test_a_slide_is_fitted_once_and_home_fits_the_one_that_is_seen(
    two: Session, tmp_path: Path
) -> None:
    viewer, camera = two.viewer, two.viewer.scene.camera
    viewer.open(write_slide(tmp_path / "three.tif", 2.0), plugin=PLUGIN)
    for slide in two.layers.slides():
        two.choose_slide(slide)
        if slide is two.layers.slides()[2]:
            fitted = camera.zoom
            camera.zoom = 1.0
        viewer.reset_view()
        extent = slide.extent.world
        assert np.allclose(camera.center[-2:], extent.mean(axis=0), atol=1e-6)
        size = (extent[1] - extent[0] + slide.scale)[::-1]
        wanted = 0.95 * np.min(np.array(viewer.canvas.size)[::-1] / size)
        assert camera.zoom == pytest.approx(wanted, rel=1e-6)
    assert camera.zoom == pytest.approx(fitted, rel=1e-6)


def test_units_agree_with_a_slide_without_resolution(
    two: Session, tmp_path: Path
) -> None:
    said: list[str] = []
    hear = notification_manager.notification_ready.connect(
        lambda notification: said.append(notification.message)
    )
    path = write_slide(tmp_path / "unknown.tif", None)
    two.viewer.open(path, plugin=PLUGIN)
    for slide in (*two.layers.slides(), two.layers.slides()[0]):
        two.choose_slide(slide)
        two.viewer.screenshot(flash=False)
        unit = "pixel" if slide.name == "unknown" else "micrometer"
        assert {str(x) for layer in two.viewer.layers for x in layer.units} == {unit}
    notification_manager.notification_ready.disconnect(hear)
    assert said == []


def test_side_by_side_a_click_asks_the_slide_that_is_clicked(
    two: Session, click: Click
) -> None:
    one, other = two.layers.slides()
    two.show_side_by_side(True)
    settle(two)
    assert visible(two) == set(two.viewer.layers)
    boxes = [slide.extent.world for slide in (one, other)]
    assert boxes[0][1][1] < boxes[1][0][1]
    for slide, row in ((one, 40), (other, 77), (one, 12)):
        click(world(two, slide, row))
        settle(two)
        assert two.slide is slide and problems(two) == []
        heatmap = context_of(two).query.maps["first"]
        assert heatmap.query == row
        layer = two.layers.map_of(slide, "first")
        at = layer.world_to_data(world(two, slide, row))
        assert layer.data[tuple(np.rint(at).astype(int))] == pytest.approx(1, abs=1e-5)
        (mark,) = np.unique(two.viewer.layers["query patch"].data, axis=0)
        place = two.viewer.layers["query patch"].data_to_world(mark)
        assert np.allclose(place, world(two, slide, row))
    two.show_side_by_side(False)
    settle(two)
    assert visible(two) == layers_of(two, one) and problems(two) == []
    assert np.allclose(other.translate, 0) and np.allclose(one.translate, 0)


def test_marks_lie_over_the_slide_that_was_clicked(two: Session) -> None:
    one, other = two.layers.slides()
    layers = two.viewer.layers

    def covering(slide: Any) -> list[str]:
        marks = layers["query patch"]
        assert owner_of(marks) is slide and len(marks.data)
        others = layers_of(two, slide) - {marks}
        assert slide in others and two.layers.map_of(slide, "first") in others
        return [x.name for x in others if layers.index(x) > layers.index(marks)]

    # They were made for the first slide, before the second one was opened.
    assert covering(other) == []
    two.choose_slide(one)
    two.viewer.layers.selection.active = one
    settle(two)
    context_of(two).queries.point(*centre(two, 12))
    settle(two)
    assert covering(one) == [] and two.slide is one
    assert set(layers.selection) == {one} and problems(two) == []


def by(loaded: LoadedFeatures, encoder: str) -> LoadedFeatures:
    """Return the same features as if another encoder had made them."""
    made = {"fingerprint": encoder, "spec": encoder}
    features = replace(loaded.index.features, encoder=made)
    return replace(loaded, index=SimilarityIndex(features), label=encoder)


def test_side_by_side_all_maps_are_of_encoders_that_the_dock_names(
    two: Session,
) -> None:
    one, other = two.layers.slides()
    for slide in (one, other):
        two.set_features(slide, "first", by(two.features_of(slide)["first"], "one"))
    two.show_side_by_side(True)
    context_of(two).queries.point(*centre(two, 40))
    settle(two)
    beside = two.layers.map_of(one, "first")
    assert not np.isnan(beside.data).all() and problems(two) == []
    # The vector of the first encoder is still known, and would answer on that slide.
    two.set_features(other, "first", by(two.features("first"), "another"))
    settle(two)
    assert np.isnan(beside.data).all() and problems(two) == []
    assert not np.isnan(two.layers.map_of(other, "first").data).all()


def test_new_features_of_the_slide_beside_give_it_a_new_map(two: Session) -> None:
    one, other = two.layers.slides()
    for slide in (one, other):
        two.set_features(slide, "first", by(two.features_of(slide)["first"], "one"))
    two.show_side_by_side(True)
    context_of(two).queries.point(*centre(two, 40))
    settle(two)
    beside = two.layers.map_of(one, "first")
    assert not np.isnan(beside.data).all()
    # A job for that slide may end while another is current.
    two.set_features(one, "first", by(two.features_of(one)["first"], "another"))
    settle(two)
    assert np.isnan(beside.data).all() and problems(two) == []


def test_a_closed_slide_takes_its_layers_along(two: Session) -> None:
    one, other = two.layers.slides()
    two.tissue.show_found(one, TissueMask(np.ones((20, 24), bool), (50.0, 50.0), "x"))
    two.viewer.layers.remove(one)
    QApplication.processEvents()
    assert set(two.viewer.layers) == layers_of(two, other) and two.slide is other


def test_the_caption_says_what_is_seen(two: Session) -> None:
    overlay = two.viewer.canvas.overlays.text
    one, other = two.layers.slides()
    queries = context_of(two).queries
    around = queries.neighbourhood.describe()
    assert overlay.visible and str(overlay.position) == "top_left"
    assert overlay.text == f"two · random 50 · {around} · 1 similar"
    queries.point(*centre(two, 44), "like")
    queries.point(*centre(two, 7), "unlike")
    settle(two)
    whole = f"two · random 50 · {around} · 2 similar, 1 dissimilar"
    for width in (1200, 400):
        two.viewer.canvas.size = (600, width)
        assert overlay.text.replace("\n", " ") == whole
        lines = overlay.text.split("\n")
        # A letter is 8 pixels, and the last 110 belong to the colour bar.
        assert max(map(len, lines)) * 8 <= width - 110
        assert (len(lines) > 1) == (width == 400)
    two.layers.map_of(other, "first").visible = False
    assert overlay.text == "two"
    other.name = "renamed"
    assert overlay.text == "renamed"
    two.choose_slide(one)
    assert overlay.text.startswith("one")
    two.layers.caption.switch(False)
    assert not overlay.visible
    two.layers.caption.switch(True)
    assert overlay.visible
    # Someone else's text is not overwritten.
    overlay.text = "mine"
    two.choose_slide(other)
    assert overlay.text == "mine"


def test_the_slide_dock_has_the_choice(two: Session, viewer: Any) -> None:
    (widget,) = viewer.window._qt_window.findChildren(SlideWidget)
    box = widget.side_by_side
    assert not box.isHidden() and not box.isChecked()
    box.click()
    assert two.side_by_side
    two.show_side_by_side(False)
    assert not box.isChecked()
    viewer.layers.remove(two.layers.slides()[0])
    assert box.isHidden()


def test_a_context_chosen_on_a_slide_without_features_holds_for_the_next(
    two: Session, tmp_path: Path
) -> None:
    asked = two.layers.slides()[1]
    two.viewer.open(write_slide(tmp_path / "bare.tif", 0.7), plugin=PLUGIN)
    queries = context_of(two).queries
    other = NeighbourhoodConfig(radius=3)
    queries.use_neighbourhood(other)
    two.choose_slide(asked)
    settle(two)
    assert context_of(two).query is not None
    assert context_of(two).query.spec.neighbourhood == other
    assert problems(two) == []
