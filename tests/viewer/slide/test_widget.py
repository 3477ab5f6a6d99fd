"""The widget *Slide*: what it says of a slide, and what it remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QApplication, QComboBox

from napari_mcm.viewer.app.persistence import known_mpp, remember_mpp
from napari_mcm.viewer.layers.metadata import slide_of
from napari_mcm.viewer.slide.widget import SlideWidget
from tests.viewer.conftest import finish, wait_until, write_slide


def dock(viewer: Any) -> SlideWidget:
    widget = viewer.window.add_plugin_dock_widget("napari-mcm", "Slide")[1]
    assert isinstance(widget, SlideWidget)
    return widget


def write_aperio(path: Path) -> Path:
    """Write a slide with a label, as Aperio's scanners do."""
    image = np.full((512, 512, 3), 200, np.uint8)
    said = "Aperio Image Library v1\n512x512 |AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(path) as tiff:
        options: dict[str, Any] = {"photometric": "rgb", "metadata": None}
        tiff.write(image, tile=(256, 256), description=said, **options)
        tiff.write(image[:64, :64], description="Aperio\nthumbnail", **options)
        label = np.zeros((40, 60, 3), np.uint8)
        tiff.write(label, description="Aperio\nlabel 60x40", subfiletype=1, **options)
    return path


def test_it_says_what_is_known(slide_widget: SlideWidget) -> None:
    rows = {row: label.text() for row, label in slide_widget.properties.rows.items()}
    assert rows["Size"] == "1,200 × 1,000 px\n0.6 × 0.5 mm"
    assert rows["Resolution"] == "0.5 µm/px, from the file"
    assert rows["Levels"] == "2 (1×, 2×)"
    assert rows["Read with"] == "tifffile"
    assert rows["Objective"] == rows["Vendor"] == "not stated"
    assert rows["Patches"] == "0.5 µm/px: level 0, as stored"


def test_the_read_plan_follows_the_resolution(slide_widget: SlideWidget) -> None:
    patches = slide_widget.properties.rows["Patches"]
    slide_widget.grid.fields.mpp.setCurrentText("2")
    assert patches.text() == "2 µm/px: level 1, shrunk 2×"
    slide_widget.grid.fields.mpp.setCurrentText("0.25")
    assert patches.text().startswith("none: has 0.5 µm per pixel, coarser")


def test_without_a_slide_it_asks_for_one(viewer: Any) -> None:
    widget = dock(viewer)
    assert "Open a slide" in widget.slide.metadata.text()
    assert widget.properties.isHidden()
    assert "no slide is open" in widget.tissue.search.toolTip()


def test_what_is_odd_about_a_slide_is_said(
    slide_widget: SlideWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = slide_of(slide_widget.session.slide)
    monkeypatch.setattr(type(slide), "warnings", ("levels do not fit",))
    slide_widget.properties.refresh()
    assert slide_widget.properties.warnings.text() == "Warning: levels do not fit"
    assert not slide_widget.properties.warnings.isHidden()


def test_a_resolution_is_asked_for_once(
    viewer: Any, tmp_path: Path, settings: Path
) -> None:
    path = write_slide(tmp_path / "unknown.tif", mpp=None)
    widget = dock(viewer)
    (layer,) = viewer.open(path, plugin="napari-mcm")
    assert widget.properties.rows["Resolution"].text() == "not stated"
    assert "resolution is unknown" in widget.tissue.search.toolTip()
    widget.slide.mpp.setValue(0.25)
    widget.slide.set_mpp.click()
    assert widget.properties.rows["Resolution"].text() == "0.25 µm/px, entered by you"
    wait_until(settings.exists)
    viewer.layers.clear()
    # The same file by another name is known again.
    (again,) = viewer.open(path.rename(tmp_path / "b.tif"), plugin="napari-mcm")
    assert again.scale.tolist() == [0.25, 0.25]
    assert widget.session.metadata is not None
    assert widget.session.metadata.mpp_override == 0.25


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": "fine", "b": -1}', "\0\xff"])
def test_damaged_settings_are_left_out(settings: Path, content: str) -> None:
    settings.parent.mkdir()
    settings.write_text(content, encoding="latin-1")
    assert known_mpp("a") is None and known_mpp("b") is None
    remember_mpp("c", 0.5)
    assert known_mpp("c") == 0.5


def test_label_images_are_read_only_when_asked(
    viewer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    viewer.open(write_aperio(tmp_path / "a.svs"), plugin="napari-mcm")
    widget = dock(viewer)
    slide = slide_of(widget.session.slide)
    assert slide is not None and "label" in slide.associated
    image_of = type(slide).associated_image
    monkeypatch.setattr(
        type(slide),
        "associated_image",
        lambda self, name: read.append(name) or image_of(self, name),
    )
    assert not read and not widget.images.labels
    assert "patient" in widget.images.button.text()
    widget.images.button.click()
    wait_until(lambda: len(widget.images.labels) == len(read) > 0)
    assert (
        set(read) == set(slide.associated) - {"thumbnail"} and len(viewer.layers) == 1
    )
    sizes = [(p.pixmap().width(), p.pixmap().height()) for p in widget.images.labels]
    assert (60, 40) in sizes
    viewer.open(write_slide(tmp_path / "other.tif"), plugin="napari-mcm")
    assert not widget.images.labels and widget.images.isHidden()


def test_a_slide_is_opened_in_the_background(viewer: Any, slide_path: Path) -> None:
    widget = dock(viewer)
    widget.slide.take(str(slide_path))
    assert widget.slide.metadata.text() == "Opening slide.tif…"
    assert not viewer.layers
    wait_until(lambda: len(viewer.layers) == 1)
    assert widget.slide.choice.currentText() == "slide"


def test_a_slide_that_cannot_be_opened_is_told(viewer: Any, tmp_path: Path) -> None:
    widget = dock(viewer)
    cut = tmp_path / "cut.svs"
    cut.write_bytes(b"II*\0" + b"\xff" * 40)
    widget.slide.take(str(cut))
    wait_until(widget.problem.text)
    assert "cut.svs" in widget.problem.text() and "\n" not in widget.problem.text()
    assert "Open a slide" in widget.slide.metadata.text()


def test_both_widgets_lay_the_same_patches(
    slide_widget: SlideWidget, viewer: Any
) -> None:
    other = viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")[1]
    slide_widget.grid.fields.patch_size.setValue(96)
    slide_widget.grid.fields.min_tissue.setValue(30)
    assert other.options.grid() == slide_widget.grid.fields.grid()
    other.options.mpp.setCurrentText("1")
    assert slide_widget.grid.fields.mpp.currentText() == "1"
    finish(other)


def test_it_fits_a_narrow_dock(
    slide_widget: SlideWidget, viewer: Any, tmp_path: Path
) -> None:
    viewer.open(write_aperio(tmp_path / "a.svs"), plugin="napari-mcm")
    assert not slide_widget.images.isHidden()
    inner = slide_widget.slide.parentWidget()
    # Parts are laid one after the other.
    wait_until(lambda: slide_widget.images.parentWidget() is inner)
    QApplication.processEvents()
    assert inner.minimumSizeHint().width() <= 320
    # Else the right edge is cut off, as there is no bar to scroll to it.
    column = inner.parentWidget().parentWidget()
    wait_until(lambda: column.minimumWidth() > inner.minimumSizeHint().width())
    assert column.viewport().width() >= inner.minimumSizeHint().width()
    assert slide_widget.minimumSizeHint().width() <= 345


def test_everything_that_acts_has_a_tooltip(slide_widget: SlideWidget) -> None:
    for kind in (QAbstractButton, QComboBox, QAbstractSpinBox):
        for child in slide_widget.findChildren(kind):
            assert child.toolTip() or child.parent().toolTip(), child
