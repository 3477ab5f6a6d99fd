"""The dock widget: what it says, what it offers, and how it leaves."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtCore import QCoreApplication, QEvent
from qtpy.QtWidgets import QApplication, QWidget

from napari_mcm.viewer.app.features import LoadedFeatures, encoder_label
from napari_mcm.viewer.app.persistence import writable_base
from napari_mcm.viewer.app.session import session_of
from napari_mcm.viewer.layers.mouse import ClickListener
from napari_mcm.viewer.qt.patch_fields import folder_name
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import (
    Click,
    inner_of,
    unfold,
    wait_until,
    write_slide,
)


def listeners(viewer: Any) -> int:
    """How many of the viewer's mouse callbacks are this plugin's."""
    owners = [getattr(call, "__self__", None) for call in viewer.mouse_drag_callbacks]
    return sum(isinstance(owner, ClickListener) for owner in owners)


def test_without_a_slide_buttons_say_why(viewer: Any) -> None:
    _, widget = viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")
    assert not widget.first.compute.isEnabled()
    assert "no slide is open" in widget.first.compute.toolTip()
    assert "Open a slide" in widget.slide.metadata.text()


def test_an_opened_slide_is_the_one_worked_on(widget: SimilarityWidget) -> None:
    assert widget.slide.choice.currentText() == "slide"
    assert "1,200 × 1,000 px, 0.5 µm" in widget.slide.metadata.text()
    assert widget.first.compute.isEnabled() and widget.first.load.isEnabled()


def test_a_renamed_slide_is_renamed_here(widget: SimilarityWidget) -> None:
    widget.session.slide.name = "biopsy 7"
    assert widget.slide.choice.currentText() == "biopsy 7"


def test_a_deleted_slide_is_let_go(widget: SimilarityWidget, viewer: Any) -> None:
    viewer.layers.clear()
    assert widget.session.slide is None
    assert not widget.first.compute.isEnabled()


def test_a_missing_resolution_is_asked_for(viewer: Any, tmp_path: Path) -> None:
    path = write_slide(tmp_path / "unknown.tif", mpp=None)
    _, widget = viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")
    (layer,) = viewer.open(path, plugin="napari-mcm")
    assert "no resolution" in widget.slide.metadata.text()
    assert "resolution is unknown" in widget.first.compute.toolTip()
    widget.slide.mpp.setValue(0.25)
    widget.slide.set_mpp.click()
    assert layer.scale.tolist() == [0.25, 0.25]
    assert str(layer.units[0]) == "micrometer"
    assert widget.session.metadata.mpp_override == 0.25
    assert widget.first.compute.isEnabled()


def test_it_fits_a_narrow_dock(widget: SimilarityWidget) -> None:
    unfold(widget)
    assert inner_of(widget).minimumSizeHint().width() <= 290
    assert widget.minimumSizeHint().width() <= 320


def test_everything_that_acts_has_a_tooltip(widget: SimilarityWidget) -> None:
    from qtpy.QtWidgets import QAbstractButton, QComboBox, QLineEdit, QSpinBox

    for kind in (QAbstractButton, QComboBox, QSpinBox):
        for child in widget.findChildren(kind):
            assert child.toolTip() or child.parent().toolTip(), child
    assert isinstance(widget.options.folder, QLineEdit)


def test_closing_the_dock_lets_go_of_the_viewer(
    widget: SimilarityWidget, viewer: Any, click: Click
) -> None:
    assert listeners(viewer) == 1
    viewer.window.remove_dock_widget(widget)
    QApplication.processEvents()
    assert listeners(viewer) == 0
    again: QWidget
    _, again = viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")
    assert listeners(viewer) == 1
    assert session_of(viewer) is again.session


@pytest.mark.parametrize(
    "name",
    ["Similarity", "Atlas", "Slide", "Features", "Fine-tune", "MIL", "MAE & cells"],
)
def test_a_closed_widget_is_not_held(viewer: Any, slide_path: Path, name: str) -> None:
    viewer.open(slide_path, plugin="napari-mcm")
    widget = viewer.window.add_plugin_dock_widget("napari-mcm", name)[1]
    held = weakref.ref(widget), weakref.ref(widget.session)
    viewer.window.remove_dock_widget(widget)
    del widget

    def let_go() -> bool:
        # Outside an event loop, what is to be deleted later waits for this.
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        gc.collect()
        return not any(reference() for reference in held)

    # What a widget asked the disk for at its start holds it until it is answered.
    wait_until(let_go)


def test_floating_and_hiding_do_not_close_it(
    widget: SimilarityWidget, viewer: Any
) -> None:
    dock = widget.parent()
    dock.setFloating(True)
    dock.setVisible(False)
    dock.setVisible(True)
    dock.setFloating(False)
    assert listeners(viewer) == 1


def test_docks_of_ours_are_tabs_of_each_other(viewer: Any) -> None:
    add = viewer.window.add_plugin_dock_widget
    first, _ = add("napari-mcm", "Slide")
    lone, _ = add("napari-mcm", "Features")
    window = viewer.window._qt_window
    wait_until(lambda: lone in window.tabifiedDockWidgets(first))
    lone.setFloating(True)
    last, _ = add("napari-mcm", "Similarity")
    wait_until(lambda: last in window.tabifiedDockWidgets(first))
    # What the user put elsewhere stays there, and napari's own docks are left alone.
    assert lone.isFloating() and window.tabifiedDockWidgets(first) == [last]
    lone.setFloating(False)
    QApplication.processEvents()
    assert not window.tabifiedDockWidgets(viewer.window._qt_viewer.dockLayerList)


def test_a_bad_resolution_is_told_beside_the_form(widget: SimilarityWidget) -> None:
    widget.options.mpp.setCurrentText("fine")
    widget.first.start()
    assert widget.problem.text().startswith("Resolution")
    assert not widget.session.jobs.status.busy


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("offline:efficientnet_lite0", "offline-efficientnet_lite0"),
        ("hf-hub:org/name", "hf-hub-org-name"),
        ("resnet18", "resnet18"),
    ],
)
def test_folders_are_named_after_encoders(spec: str, name: str) -> None:
    assert folder_name(spec) == name


def test_runs_of_one_name_do_not_share_a_folder(tmp_path: Path) -> None:
    runs = [tmp_path / place / "run" for place in "ab"]
    for run in runs:
        (run / "encoder").mkdir(parents=True)
    assert [encoder_label(str(run)) for run in runs] == ["run", "run"]
    assert encoder_label(str(runs[0] / "encoder")) == "run"
    assert len({folder_name(str(run)) for run in runs}) == 2


def test_features_go_beside_the_slide_where_that_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = tmp_path / "slide.svs"
    assert writable_base(slide) == tmp_path / "napari-mcm"
    monkeypatch.setattr("os.access", lambda path, mode: path == Path.home())
    assert writable_base(slide) == Path.home() / "napari-mcm"


def test_an_encoder_that_has_learned_from_the_slide_is_marked(
    widget: SimilarityWidget, loaded: LoadedFeatures
) -> None:
    session = widget.session
    session.set_features(session.slide, "first", loaded)
    assert "Warning" not in widget.first.state.text()
    told = replace(loaded, warning="slide slide is in the training set")
    session.set_features(session.slide, "second", told)
    assert widget.second.state.text().endswith(
        "Warning: slide slide is in the training set."
    )
    assert "Warning" not in widget.first.state.text()
