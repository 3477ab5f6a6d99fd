"""The dock *Similarity* as people see it: what is in sight, folds, and comes next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QApplication, QLabel, QWidget

from napari_mcm.core.features.lookup import KnownFile
from napari_mcm.core.runtime.jobs import Progress
from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.app.found import found_features
from napari_mcm.viewer.app.persistence import open_sections
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.layers.look import LookValues, MapLook
from napari_mcm.viewer.qt.helpers import short_names
from napari_mcm.viewer.qt.primary_button import PrimaryButton
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import Click, finish, inner_of, wait_until, write_slide
from tests.viewer.similarity.test_maps import centre_um, ready
from tests.viewer.similarity.test_query import again, values

__all__ = ["ready"]

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("scale", [1, 2])
def test_map_area_and_two_rows_are_seen_without_scrolling(
    tmp_path: Path, scale: int
) -> None:
    """In a window of 1280 × 800 points, in both themes, with a tab bar and two maps."""
    environment = os.environ | {
        "QT_SCALE_FACTOR": str(scale),
        "NAPARI_CONFIG": str(tmp_path / "napari.yaml"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.viewer.similarity.dock_geometry", str(tmp_path)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("ratio") == scale
    assert set(found) == {"dark 320", "dark 400", "light 320", "light 400"}
    for name, seen in found.items():
        assert seen["window"] == [1280, 800] and seen["tabs"] == 1, name
        assert abs(seen["width"] - int(name.split()[1])) <= 2, name
        assert seen["scrolls"] == 0 and seen["in sight"] == seen["parts"], name
        assert seen["thumbnails in sight"] >= 6 and seen["columns"] == 3, name
        assert seen["cut off"] == [], name


def shown_primary(docked: SimilarityWidget) -> list[str]:
    """The texts of the buttons that stand out."""
    buttons = docked.findChildren(PrimaryButton)
    return [
        one.text().replace("&", "")
        for one in buttons
        if one.primary and one.isVisible() and one.isEnabled()
    ]


def sentences(docked: SimilarityWidget) -> list[str]:
    """The visible sentences."""
    labels = inner_of(docked).findChildren(QLabel)
    texts = [one.text() for one in labels if one.isVisible()]
    return [t for t in texts if t.endswith(".") and not t.startswith("Takes")]


def test_each_stage_has_a_sentence_and_at_most_one_button_that_stands_out(
    viewer: Any, tmp_path: Path, slide_path: Path, loaded: LoadedFeatures, click: Click
) -> None:
    viewer.window._qt_window.show()
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")
    wait_until(lambda: docked.sections["more"].parent() is inner_of(docked))
    QApplication.processEvents()
    (said,) = sentences(docked)
    assert said.startswith("Open a slide") and shown_primary(docked) == ["Open slide…"]
    unknown = write_slide(tmp_path / "unknown.tif", mpp=None)
    viewer.open(unknown, plugin="napari-mcm")
    QApplication.processEvents()
    (said,) = sentences(docked)
    assert "no resolution" in said and shown_primary(docked) == ["Set"]
    viewer.open(slide_path, plugin="napari-mcm")
    wait_until(lambda: any("No features" in said for said in sentences(docked)))
    assert len(sentences(docked)) == 1
    assert shown_primary(docked) == ["Compute features"]
    wait_until(docked.first.estimate.isVisible)
    assert docked.first.estimate.text().startswith("Takes ")
    assert not docked.area.isVisible() and not docked.gallery.isVisible()
    docked.session.set_features(docked.session.slide, "first", loaded)
    wait_until(lambda: docked.query.where.isVisible())
    (said,) = sentences(docked)
    assert said.startswith("Click on the slide") and shown_primary(docked) == []
    assert not docked.first.compute.isVisible()
    click(centre_um(docked, 5))
    wait_until(lambda: docked.area.add.isVisible())
    docked.sections["compare"].set_open(True)
    assert docked.second.compute.isVisible()
    assert shown_primary(docked) == ["Add to table"]
    finish(docked)


def test_features_on_disk_are_offered_in_place_of_computing(
    widget: SimilarityWidget, viewer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer.window._qt_window.show()
    found = found_features(widget.session)
    wait_until(lambda: not found.loading)
    spec, used = "resnet18", []
    files = [
        KnownFile(Path(f"{name}.features.zarr"), name, name, 315, 154.0, 0.0)
        for name in ("lite9", spec)
    ]
    monkeypatch.setattr(found, "use", lambda *call: used.append(call))
    monkeypatch.setattr(type(found), "files", property(lambda _: tuple(files)))
    widget.first.encoder.setCurrentText(spec)
    found.changed.emit()
    wait_until(widget.first.use.isVisible)
    assert sentences(widget) == [f"Found on disk: {files[1].describe()}."]
    assert shown_primary(widget) == ["Use"] and widget.first.compute.isEnabled()
    widget.first.use.click()
    assert used == [(files[1], "first")]


def test_slide_encoder_and_comparison_are_a_line_each(
    ready: SimilarityWidget, loaded: LoadedFeatures, viewer: Any, tmp_path: Path
) -> None:
    viewer.window._qt_window.show()
    lines = {name: one.line for name, one in ready.sections.items()}
    patches = f"{len(loaded.index.features):,} patches of 25\u00a0µm"
    wait_until(lambda: lines["encoder"].full_text == f"random 50 · {patches}")
    assert lines["slide"].full_text == "slide · 0.5 µm/px"
    assert lines["compare"].full_text == "Compare with another encoder"
    contents = [
        ready.sections[name].content for name in ("slide", "encoder", "compare")
    ]
    assert not any(part.isVisible() for part in contents)
    ready.session.set_features(ready.session.slide, "second", again(loaded, 1))
    label = ready.session.features("second").label
    wait_until(lambda: lines["compare"].full_text == f"Compared with {label}")
    # With two slides the list is in the line, and the name is not said twice.
    viewer.open(write_slide(tmp_path / "b.tif"), plugin="napari-mcm")
    wait_until(lambda: lines["slide"].full_text == "0.5 µm/px")
    assert ready.slide.choice.isVisible() and ready.slide.choice.currentText() == "b"


def test_what_the_user_opened_is_open_the_next_time(
    widget: SimilarityWidget, viewer: Any
) -> None:
    encoder = widget.sections["encoder"]
    assert not encoder.is_open
    QTest.keyClick(encoder.line, Qt.Key.Key_Space)
    assert encoder.is_open and not encoder.content.isHidden()
    wait_until(lambda: open_sections() == {"similarity: encoder": True})
    viewer.window.remove_dock_widget(widget)
    _, again_docked = viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")
    wait_until(lambda: again_docked.sections["encoder"].is_open)
    assert not again_docked.sections["slide"].is_open
    again_docked.sections["encoder"].line.click()
    wait_until(lambda: open_sections() == {"similarity: encoder": False})
    finish(again_docked)


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["efficientnet_lite0", "efficientnet_lite2"], ["lite0", "lite2"]),
        (["resnet18"], ["resnet18"]),
        (["resnet18", "resnet50"], ["resnet18", "resnet50"]),
        (["a_b", "a_b"], ["b", "b"]),
        (["run", "run 2"], ["run", "run 2"]),
        (["a_b_c", "a_b_d", "a_x"], ["b_c", "b_d", "x"]),
    ],
)
def test_names_are_shortened_by_what_they_share(
    names: list[str], short: list[str]
) -> None:
    assert short_names(names) == short


def test_a_button_for_each_map_and_one_for_their_difference(
    ready: SimilarityWidget, loaded: LoadedFeatures, click: Click
) -> None:
    click(centre_um(ready, 5))
    assert ready.maps._choice.isHidden()
    ready.session.set_features(ready.session.slide, "second", again(loaded, 1))
    wait_until(lambda: not ready.maps._choice.isHidden())
    drawn, buttons = context_of(ready.session).queries.drawn, ready.maps.show_slot
    assert drawn.pair is None
    buttons["difference"].click()
    assert drawn.pair == ("first", "second") and drawn.shown() == ["difference"]
    buttons["second"].click()
    assert drawn.shown() == ["second"]
    buttons["difference"].click()
    assert drawn.shown() == ["difference"]


@pytest.fixture
def look(ready: SimilarityWidget) -> Iterator[MapLook]:
    """How maps are drawn, which is remembered: afterwards all is as it was."""
    made = ready.session.layers.look
    yield made
    made.use(LookValues())
    wait_until(lambda: preferences().look == LookValues())


def test_the_controls_show_and_change_the_look(
    ready: SimilarityWidget, click: Click, look: MapLook
) -> None:
    click(centre_um(ready, 5))
    controls = ready.maps.look
    layer = ready.session.layers.map_of(ready.session.slide, "first")
    controls.switch.click()
    assert not layer.visible
    controls.switch.click()
    assert layer.visible
    # By the eye in napari's list of layers, too.
    layer.visible = False
    wait_until(lambda: not controls.switch.isChecked())
    layer.visible = True
    controls.opacity.setValue(35)
    assert look.opacity == pytest.approx(0.35) and layer.opacity == pytest.approx(0.35)
    at = controls.colours.findData("cividis")
    controls.colours.setCurrentIndex(at)
    controls.colours.activated.emit(at)
    assert look.colormap == "cividis" and layer.colormap.name.startswith("cividis")
    controls.smooth.click()
    assert look.smooth and layer.interpolation2d == "linear"
    look.use_style("spotlight")
    wait_until(lambda: controls.style_list.currentText() == "Spotlight")
    assert not controls.colours.isEnabled()
    low, high = layer.contrast_limits
    assert low < context_of(ready.session).areas.threshold < high
    wait_until(lambda: f"{high:.2f}" in ready.maps.legends["first"].high.text())


def press_mark(grid: Any, number: int, like: bool) -> None:
    QTest.mouseClick(
        grid.viewport(),
        Qt.MouseButton.LeftButton,
        pos=grid.mark_of(number, like).center(),
    )


@pytest.fixture
def gallery(ready: SimilarityWidget, click: Click, viewer: Any) -> Any:
    """The grid in sight, of a query at patch 5."""
    viewer.window._qt_window.show()
    click(centre_um(ready, 5))
    tops = context_of(ready.session).gallery
    wait_until(lambda: tops.complete and ready.gallery.strip.count() == len(tops.tops))
    QApplication.processEvents()
    return ready.gallery.strip


def test_marks_make_examples_that_undo_takes_back(
    ready: SimilarityWidget, gallery: Any
) -> None:
    context = context_of(ready.session)
    index = ready.session.features("first").index
    before, wrong = values(ready), context.gallery.tops[1].row
    press_mark(gallery, 1, like=False)
    np.testing.assert_allclose(values(ready), index.query([5], [wrong]), atol=1e-5)
    wait_until(lambda: context.gallery.complete)
    rows = [top.row for top in context.gallery.tops]
    assert wrong not in rows and gallery.count() == len(rows)
    right = rows[2]
    gallery.setCurrentRow(2)
    QTest.keyClick(gallery, Qt.Key.Key_Plus)
    np.testing.assert_allclose(
        values(ready), index.query([5, right], [wrong]), atol=1e-5
    )
    for _ in range(2):
        ready.query.back.click()
    np.testing.assert_allclose(values(ready), before, atol=1e-6)
    QApplication.processEvents()
    ready.query.again.click()
    np.testing.assert_allclose(values(ready), index.query([5], [wrong]), atol=1e-5)


def test_pointing_at_a_thumbnail_frames_it_and_leaves_the_view(
    ready: SimilarityWidget, gallery: Any, viewer: Any
) -> None:
    camera = viewer.scene.camera
    view, tops = camera.center, context_of(ready.session).gallery.tops

    def framed() -> list[Any]:
        if "top patch" not in viewer.layers:
            return []
        layer = viewer.layers["top patch"]
        if not len(layer.data):
            return []
        # The middle of all dashes.
        middle = (layer.data[:, 0] + layer.data[:, 1] / 2).mean(axis=0)
        return [layer.data_to_world(middle)[-2:]]

    def move_to(number: int) -> None:
        at = QPointF(gallery.cell_of(number).center())
        kinds = Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier
        there = gallery.viewport().mapToGlobal(at)
        event = QMouseEvent(
            QEvent.Type.MouseMove, at, there, kinds[0], kinds[0], kinds[1]
        )
        QApplication.sendEvent(gallery.viewport(), event)

    move_to(3)
    np.testing.assert_allclose(framed()[0], centre_um(ready, tops[3].row), atol=1e-6)
    assert camera.center == view
    QApplication.sendEvent(gallery, QEvent(QEvent.Type.Leave))
    assert framed() == []
    # Of one that the view was moved to, the frame comes back.
    gallery.itemClicked.emit(gallery.item(0))
    move_to(4)
    np.testing.assert_allclose(framed()[0], centre_um(ready, tops[4].row), atol=1e-6)
    QApplication.sendEvent(gallery, QEvent(QEvent.Type.Leave))
    np.testing.assert_allclose(framed()[0], centre_um(ready, tops[0].row), atol=1e-6)


def test_no_thumbnail_of_another_query_or_slide_is_shown(
    ready: SimilarityWidget, gallery: Any, click: Click, viewer: Any, tmp_path: Path
) -> None:
    tops, center = context_of(ready.session).gallery, viewer.scene.camera.center
    old = tops.tops
    click(centre_um(ready, 40))
    # What is still on the screen until Qt is idle can be clicked, and does nothing.
    assert all(one not in old for one in tops.tops)
    tops.go_to(old[0])
    tops.judge(old[0], like=True)
    assert viewer.scene.camera.center == center
    assert context_of(ready.session).queries.examples.like == (
        pytest.approx(context_of(ready.session).query.xy),
    )
    wait_until(lambda: tops.complete)
    expected = np.argsort(-values(ready), kind="stable")[1:][: len(tops.tops)]
    assert [one.row for one in tops.tops] == expected.tolist()
    viewer.open(write_slide(tmp_path / "b.tif"), plugin="napari-mcm")
    assert tops.tops == []
    wait_until(lambda: not ready.gallery.isVisible())


def test_tab_goes_down_the_dock(
    ready: SimilarityWidget, gallery: Any, viewer: Any
) -> None:
    """The next widget by Tab is never above the one before."""
    inner, places, part = inner_of(ready), [], ready.sections["slide"].line
    start: QWidget = part
    while True:
        if (
            inner.isAncestorOf(part)
            and part.isVisible()
            and part.focusPolicy() & Qt.FocusPolicy.TabFocus
        ):
            places.append((part.mapTo(inner, QPoint(0, part.height())).y(), part))
        part = part.nextInFocusChain()
        if part is start:
            break
    assert len(places) > 12
    for (above, one), (below, other) in zip(places, places[1:], strict=False):
        assert below >= above - 12, (one, other)


def test_all_that_acts_has_a_name_for_screen_readers(
    ready: SimilarityWidget, gallery: Any
) -> None:
    for button in ready.findChildren(QAbstractButton):
        if button.isVisible() and button.focusPolicy() & Qt.FocusPolicy.TabFocus:
            assert button.accessibleName() or len(button.text()) > 1, button
    item = gallery.item(0)
    spoken = item.data(Qt.ItemDataRole.AccessibleTextRole)
    top = context_of(ready.session).gallery.tops[0]
    assert f"patch {top.row:,}" in spoken and f"{top.value:.3f}" in spoken


def test_the_threshold_goes_back_where_it_began(
    ready: SimilarityWidget, click: Click
) -> None:
    click(centre_um(ready, 5))
    areas = context_of(ready.session).areas
    start = areas.threshold
    wait_until(lambda: not ready.area.reset.isEnabled())
    ready.area.threshold.setValue(start - 0.1)
    wait_until(ready.area.reset.isEnabled)
    ready.area.reset.click()
    assert areas.threshold == pytest.approx(start)
    wait_until(lambda: not ready.area.reset.isEnabled())
    assert ready.area.threshold.value() == pytest.approx(start, abs=1e-3)


def test_the_dock_says_what_runs_and_answers_clicks_without_features(
    widget: SimilarityWidget, viewer: Any, click: Click, tmp_path: Path
) -> None:
    session, first, gate = widget.session, widget.first, Event()
    sentence = widget.sections["encoder"].sentence
    wait_until(lambda: "No features yet" in sentence.text())
    click((250.0, 300.0))
    asked = "No features of this slide yet: press Compute features."
    assert sentence.text() == asked == viewer.status

    def job() -> Iterator[Progress]:
        while not gate.wait(0.01):
            yield Progress("Extracting", 0, 1)

    computed = session.slide
    first.estimate.answer, first.estimate._asked = None, "another question"
    first.estimate.setVisible(True)
    session.run_features(
        "Features of slide", "first", job, doing="Computing the features of slide…"
    )
    assert sentence.text() == "Computing the features of slide…"
    assert first.estimate.isHidden() and session.doing("second") == ""
    click((250.0, 300.0))
    assert "being computed" in sentence.text() and viewer.status == sentence.text()
    # Of another slide, no features are computed; none can be now.
    viewer.open(write_slide(tmp_path / "other.tif"), plugin="napari-mcm")
    wait_until(lambda: "another job is running" in sentence.text())
    session.choose_slide(computed)
    assert sentence.text() == "Computing the features of slide…"
    session.jobs.close()
    gate.set()
    wait_until(lambda: not session.jobs.status.busy)
    assert "No features yet: compute" in sentence.text()
