"""Tissue masks over a slide: found, painted on, saved, used, and found again."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.utils._test_utils import read_only_mouse_event
from napari.utils.interactions import (
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
)

from napari_mcm.core.grid import make_grid
from napari_mcm.core.runtime.jobs import Progress
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import find_tissue, read_mask
from napari_mcm.viewer.app import tissue as controller
from napari_mcm.viewer.app.features import compute_features
from napari_mcm.viewer.app.jobs import JobState
from napari_mcm.viewer.app.tissue import EditableMask
from napari_mcm.viewer.layers.metadata import slide_of
from napari_mcm.viewer.slide.widget import SlideWidget
from tests.viewer.conftest import finish, wait_until, write_slide


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save shortly after a stroke."""
    monkeypatch.setattr(controller, "SAVE_MS", 50)


@pytest.fixture
def found(slide_widget: SlideWidget) -> SlideWidget:
    """The widget with the tissue found."""
    slide_widget.tissue.search.click()
    wait_until(lambda: slide_widget.session.jobs.status.state is JobState.DONE)
    return slide_widget


def drawing(widget: SlideWidget) -> EditableMask:
    got = widget.session.tissue.mask_of(widget.session.slide)
    assert got is not None
    return got


def paint(widget: SlideWidget, label: int = 1) -> None:
    """Paint over the upper left corner, where there is no tissue."""
    layer = drawing(widget).layer
    layer.brush_size = 12
    layer.paint((6, 6), label)


def kept(slide_path: Path) -> Path:
    return slide_path.parent / "napari-mcm" / "slide.geojson"


def test_the_mask_lies_on_the_tissue(found: SlideWidget, slide_path: Path) -> None:
    layer, slide_layer = drawing(found).layer, found.session.slide
    assert slide_layer is not None
    with open_slide(slide_path) as slide:
        expected = find_tissue(slide)
    np.testing.assert_array_equal(layer.data, expected.mask)
    assert layer.units == slide_layer.units
    # Corners of mask and slide coincide, half a pixel outside of the first centre.
    for corner in (0, 1):
        shape = np.array([layer.data.shape, (1000, 1200)])[:, :2] * corner - 0.5
        world = layer.data_to_world(shape[0]), slide_layer.data_to_world(shape[1])
        np.testing.assert_allclose(*world, atol=1e-6)
    assert "as found" in found.tissue.state.text()
    assert found.session.viewer.layers.index(layer) == 1


def test_a_search_can_be_cancelled(
    slide_widget: SlideWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go, ended = threading.Event(), threading.Event()

    def slow(_slide: object) -> None:
        let_go.wait(60)
        ended.set()

    monkeypatch.setattr("napari_mcm.core.tissue.find_tissue", slow)
    slide_widget.tissue.search.click()
    status = slide_widget.session.jobs.status
    wait_until(lambda: isinstance(status.progress, Progress))
    slide_widget.job.cancel.click()
    wait_until(lambda: status.state is JobState.CANCELLED)
    assert not ended.is_set()
    let_go.set()
    assert slide_widget.session.tissue.mask_of(slide_widget.session.slide) is None


def test_a_slide_closed_while_it_is_searched_gets_no_mask(
    slide_widget: SlideWidget, viewer: Any
) -> None:
    slide_widget.tissue.search.click()
    viewer.layers.clear()
    wait_until(lambda: slide_widget.session.jobs.status.state is JobState.DONE)
    assert not viewer.layers


def test_a_found_mask_is_not_kept(found: SlideWidget, slide_path: Path) -> None:
    found.session.tissue.flush()
    found.session.disk.wait()
    assert not kept(slide_path).parent.exists()
    assert found.session.tissue.drawn_mask(found.session.slide) is None


def test_a_stroke_is_saved(found: SlideWidget, slide_path: Path) -> None:
    before = drawing(found).mask.mask.sum()
    paint(found)
    wait_until(kept(slide_path).exists)
    with open_slide(slide_path) as slide:
        mask = read_mask(kept(slide_path), slide).mask
    assert mask[6, 6] and mask.sum() > before
    wait_until(lambda: "saved in" in found.tissue.state.text())


def test_a_real_stroke_is_noticed(found: SlideWidget, viewer: Any) -> None:
    found.tissue.edit.click()
    layer = drawing(found).layer
    # From outside the tissue, dragged along the upper edge.
    start, end = (layer.data_to_world((4, x)) for x in (4, 40))

    def event(kind: str, at: Any) -> Any:
        fields = {"is_dragging": kind == "mouse_move", "dims_displayed": [0, 1]}
        return read_only_mouse_event(
            type=kind, button=1, modifiers=[], pos=(0, 0), position=at, **fields
        )

    mouse_press_callbacks(layer, event("mouse_press", start))
    mouse_move_callbacks(layer, event("mouse_move", end))
    mouse_release_callbacks(layer, event("mouse_release", end))
    wait_until(lambda: drawing(found).drawn)
    assert drawing(found).mask.mask[4, [4, 20, 40]].all()


@pytest.mark.parametrize("again", ["undo", "redo"])
def test_undo_and_redo_are_noticed(
    found: SlideWidget, slide_path: Path, again: str
) -> None:
    paint(found)
    wait_until(lambda: drawing(found).mask.mask[6, 6])
    drawing(found).layer.undo()
    wait_until(lambda: not drawing(found).mask.mask[6, 6])
    if again == "redo":
        drawing(found).layer.redo()
        wait_until(lambda: drawing(found).mask.mask[6, 6])


def test_what_is_drawn_is_taken_up_again(
    found: SlideWidget, viewer: Any, slide_path: Path
) -> None:
    paint(found)
    painted = drawing(found).layer.data.copy()
    # Closed at once: nothing may wait for the last stroke's debounce.
    viewer.layers.clear()
    found.session.disk.wait()
    assert kept(slide_path).exists()
    viewer.open(slide_path, plugin="napari-mcm")
    wait_until(lambda: found.session.tissue.mask_of(found.session.slide))
    np.testing.assert_array_equal(drawing(found).layer.data, painted)
    assert "drawn mask found" in found.tissue.state.text()
    assert found.session.tissue.drawn_mask(found.session.slide) is not None


def test_a_damaged_drawing_is_told(
    viewer: Any, slide_path: Path, slide_widget: SlideWidget
) -> None:
    viewer.layers.clear()
    kept(slide_path).parent.mkdir()
    kept(slide_path).write_text("{", encoding="utf-8")
    viewer.open(slide_path, plugin="napari-mcm")
    wait_until(slide_widget.problem.text)
    assert "slide.geojson" in slide_widget.problem.text()


def test_a_new_search_keeps_the_old_drawing(
    found: SlideWidget, slide_path: Path
) -> None:
    paint(found)
    wait_until(kept(slide_path).exists)
    found.tissue.search.click()
    wait_until(lambda: "kept in" in found.tissue.state.text())
    assert not kept(slide_path).exists()
    assert kept(slide_path).with_name("slide.before.geojson").exists()
    assert not drawing(found).drawn and not drawing(found).layer.data[6, 6]


def test_masks_are_saved_and_loaded(found: SlideWidget, tmp_path: Path) -> None:
    session, slide = found.session, found.session.slide
    assert slide is not None
    paint(found)
    for ending in ("geojson", "png"):
        session.tissue.save(slide, tmp_path / f"mine.{ending}")
    session.disk.wait()
    features = json.loads((tmp_path / "mine.geojson").read_text())["features"]
    assert features and features[0]["geometry"]["type"] == "Polygon"
    painted = drawing(found).layer.data.copy()
    told: list[str] = []

    def listen() -> None:
        if (there := session.tissue.mask_of(slide)) is not None:
            told.append(there.note)

    # It is soon told that the mask is saved, too, perhaps before anybody looks.
    session.tissue.changed.connect(listen)
    for ending in ("geojson", "png"):
        paint(found, 0)
        session.tissue.load(slide, tmp_path / f"mine.{ending}")
        wait_until(lambda ending=ending: f"loaded from mine.{ending}" in told)
        np.testing.assert_array_equal(drawing(found).layer.data, painted)


def test_the_brush_is_at_hand(found: SlideWidget) -> None:
    viewer, layer = found.session.viewer, drawing(found).layer
    assert viewer.layers.selection.active is found.session.slide
    found.tissue.edit.click()
    assert viewer.layers.selection.active is layer and layer.mode == "paint"
    assert "undo" in found.tissue.state.text()
    found.tissue.edit.click()
    assert layer.mode == "pan_zoom" and not found.tissue.edit.isChecked()


def test_a_deleted_mask_is_let_go(found: SlideWidget, viewer: Any) -> None:
    viewer.layers.remove(drawing(found).layer)
    assert found.session.tissue.mask_of(found.session.slide) is None
    assert not found.tissue.save.isEnabled()


def test_features_are_computed_where_it_was_drawn(
    found: SlideWidget, viewer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")[1]
    found.grid.fields.patch_size.setValue(50)
    paint(found)
    asked: list[Any] = []
    monkeypatch.setattr(
        "napari_mcm.viewer.similarity.encoder_panel.compute_features", asked.append
    )
    monkeypatch.setattr(other.session, "run_features", lambda *call, **_: call[2]())
    other.options.folder.setText(str(tmp_path / "out"))
    other.first.encoder.setCurrentText("resnet18")
    other.first.start()
    (request,) = asked
    slide = slide_of(found.session.slide)
    assert slide is not None and request.mask is not None and request.mask.mask[6, 6]
    expected = make_grid(slide, request.mask, found.session.patches)
    seen: list[Any] = []

    def extract(config: Any) -> Any:
        assert config.compile == "off", "it needs Triton, which the window cannot have"
        mask = find_tissue(slide, config.tissue)
        seen.append(make_grid(slide, mask, config.grid))
        raise RuntimeError
        yield

    monkeypatch.setattr(
        "napari_mcm.core.features.batch_extraction.extract_slides", extract
    )
    with pytest.raises(RuntimeError):
        list(compute_features(request))
    np.testing.assert_array_equal(seen[0].xy, expected.xy)
    assert seen[0].index_at(75, 75) is not None, "the corner was drawn as tissue"
    finish(other)


def test_a_slide_without_resolution_has_no_tissue_yet(
    viewer: Any, tmp_path: Path, slide_widget: SlideWidget
) -> None:
    viewer.open(write_slide(tmp_path / "unknown.tif", mpp=None), plugin="napari-mcm")
    assert not slide_widget.tissue.search.isEnabled()
    slide_widget.slide.set_mpp.click()
    assert slide_widget.tissue.search.isEnabled()
