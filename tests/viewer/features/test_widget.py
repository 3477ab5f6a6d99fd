"""The Features widget: one slide or many, cancelled and gone on with, opened again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QAbstractButton, QComboBox

from napari_mcm.cli.app import load_verb, make_parser
from napari_mcm.cli.options import read_config
from napari_mcm.core.features.interchange import write_foreign
from napari_mcm.viewer.app.jobs import JobState, JobStatus
from napari_mcm.viewer.app.persistence import FEATURES, RUNS, recent, remember_recent
from napari_mcm.viewer.features.widget import FeaturesWidget
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.training.slide_picker import FOLDER
from tests.viewer.conftest import features_of, finish, write_slide

SLOW = 100_000
ENCODER = "random:test_efficientnet"


@pytest.fixture
def features(viewer: Any, slide_path: Path) -> Iterator[FeaturesWidget]:
    """The widget, docked in a viewer that shows the slide, set to a tiny encoder."""
    viewer.open(slide_path, plugin="napari-mcm")
    _, docked = viewer.window.add_plugin_dock_widget("napari-mcm", "Features")
    docked.resize(320, 700)
    docked.extract.encoder.setCurrentText(ENCODER)
    docked.extract.options.patch_size.setValue(64)
    yield docked
    finish(docked)


def extract(widget: FeaturesWidget, qtbot: QtBot) -> None:
    widget.extract.extract.click()
    assert widget.session.jobs.status.busy
    wait_for_job(widget, qtbot)


def wait_for_job(widget: FeaturesWidget, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: not widget.session.jobs.status.busy, timeout=SLOW)


def test_the_shown_slide_is_extracted_and_asked(
    features: FeaturesWidget, qtbot: QtBot, slide_path: Path
) -> None:
    session = features.session
    features.files.place.setCurrentIndex(1)
    extract(features, qtbot)
    status = session.jobs.status
    assert status.state is JobState.DONE, status.details
    loaded = session.features("second")
    folder = slide_path.parent / "napari-mcm" / "random-test_efficientnet"
    assert loaded.path == folder / "slide.features.zarr"
    assert "1 slide, " in features.job.line.text()
    assert "Second encoder: random:test_efficientnet" in (
        features.files.lines["second"].text()
    )
    context_of(session).queries.point(600, 500)
    assert context_of(session).query.maps["second"] is not None
    # It is remembered, and opens into another place.
    qtbot.waitUntil(lambda: recent(FEATURES) == (loaded.path,), timeout=SLOW)
    qtbot.waitUntil(lambda: len(features.files.load.menu().actions()) == 4)
    features.files.place.setCurrentIndex(0)
    features.files.load.menu().actions()[-1].trigger()
    wait_for_job(features, qtbot)
    first = session.features("first").index.features
    np.testing.assert_array_equal(first.features, loaded.index.features.features)


def test_a_fine_tuned_run_is_offered(
    features: FeaturesWidget, qtbot: QtBot, tmp_path: Path
) -> None:
    runs = [tmp_path / "begun", tmp_path / "done"]
    for path in runs:
        path.mkdir()
        remember_recent(RUNS, str(path))
    (runs[1] / "summary.json").write_text("{}")
    chosen = features.extract.encoder.currentText()
    extract(features, qtbot)
    box = features.extract.encoder
    qtbot.waitUntil(lambda: box.findText(str(runs[1])) >= 0, timeout=SLOW)
    assert box.findText(str(runs[0])) < 0 and box.currentText() == chosen


def test_a_folder_is_extracted_and_a_broken_slide_is_told(
    features: FeaturesWidget, qtbot: QtBot, tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for name in ("a", "b"):
        write_slide(folder / f"{name}.tif")
    (folder / "c.tif").write_bytes(b"no slide")
    choice = features.extract.slides
    choice.way.setCurrentIndex(FOLDER)
    choice.folder.put(folder)
    extract(features, qtbot)
    status = features.session.jobs.status
    assert status.state is JobState.DONE, status.details
    line = features.job.line.text()
    assert line.startswith("2 slides, ") and "1 failed: " in line and "c.tif" in line
    out = folder / "napari-mcm" / "random-test_efficientnet"
    assert sorted(path.name for path in out.glob("*.zarr")) == [
        "a.features.zarr",
        "b.features.zarr",
    ]
    # None of them is shown.
    assert features.session.features("first") is None


def patches_done(status: JobStatus) -> int:
    progress = status.progress
    return progress.done if progress and progress.unit == "patches" else 0


def test_what_was_cancelled_is_gone_on_with(
    features: FeaturesWidget, qtbot: QtBot, slide_path: Path
) -> None:
    features.extract.options.patch_size.setValue(16)
    features.extract.more.field("batch_size").setText("4")
    features.extract.more.field("block").setValue(8)
    features.extract.extract.click()
    status = features.session.jobs.status
    qtbot.waitUntil(lambda: patches_done(status) > 20, timeout=SLOW)
    features.job.cancel.click()
    wait_for_job(features, qtbot)
    assert status.state is JobState.CANCELLED
    seen: list[int] = []
    status.events.progress.connect(
        lambda p: seen.append(p.done) if p and p.unit == "patches" and p.rate else None
    )
    extract(features, qtbot)
    assert status.state is JobState.DONE, status.details
    assert not seen or min(seen) >= 8
    assert features.session.features("first") is not None


def test_a_file_of_another_tool_opens(
    features: FeaturesWidget, qtbot: QtBot, tmp_path: Path
) -> None:
    extract(features, qtbot)
    ours = features.session.features("first").index.features
    (file, *_) = write_foreign(ours, tmp_path / "theirs.h5", "trident").files
    features.files.place.setCurrentIndex(2)
    features.files.load.chosen.emit(file)
    wait_for_job(features, qtbot)
    assert features.session.features("third") is not None


def test_the_copied_line_gives_the_very_same_options(
    features: FeaturesWidget, tmp_path: Path
) -> None:
    form = features.extract
    form.options.folder.setText(str(tmp_path / "some features"))
    form.options.mpp.setCurrentText("1")
    form.options.overwrite.setChecked(True)
    form.more.field("block").setValue(64)
    form.more.field("batch_size").setText("12")
    command, config = form.as_command(), form.config()
    assert config.grid.mpp == 1 and config.batch_size == 12 and config.block == 64
    for words in (command.words[2:], ["--config", str(tmp_path / "c.json")]):
        form.command.save_to(tmp_path / "c.json")
        arguments = make_parser("extract").parse_args(words)
        assert read_config(arguments, load_verb("extract").OPTIONS) == config
    assert "--workers" not in command.line and "--overwrite" in command.line


def test_the_resolution_that_was_stated_is_copied(viewer: Any, tmp_path: Path) -> None:
    path = write_slide(tmp_path / "unknown.tif", mpp=None)
    viewer.open(path, plugin="napari-mcm")
    _, widget = viewer.window.add_plugin_dock_widget("napari-mcm", "Features")
    assert "resolution of unknown is unknown" in widget.extract.extract.toolTip()
    widget.slide.mpp.setValue(0.25)
    widget.slide.set_mpp.click()
    assert widget.extract.extract.isEnabled()
    words = widget.extract.as_command().words
    assert words[words.index("--mpp-override") + 1] == "0.25"
    finish(widget)


def test_preferences_are_where_forms_begin(
    plugin_settings: Any, make_napari_viewer: Any, plugin: Any, tmp_path: Path
) -> None:
    from napari.settings import get_plugin_settings

    kept = get_plugin_settings("napari-mcm")
    kept.computing.device = "cpu"
    kept.computing.precision = "bfloat16"
    kept.slides.output_folder = str(tmp_path / "here")
    kept.slides.tile_cache_mib = 32
    kept.maps.colormap = "cividis"
    viewer = make_napari_viewer()
    path = write_slide(tmp_path / "slide.tif")
    viewer.open(path, plugin="napari-mcm")
    _, widget = viewer.window.add_plugin_dock_widget("napari-mcm", "Features")
    config = widget.extract.config()
    assert config.compute.device == "cpu" and config.compute.precision == "bfloat16"
    assert config.out == tmp_path / "here" / "offline-efficientnet_lite0"
    slide = widget.session.slide.metadata["napari-mcm"]["slide"]
    assert slide.cache.capacity == 32 * 2**20
    widget.session.set_features(widget.session.slide, "first", features_of(path))
    context_of(widget.session).queries.point(600, 500)
    layer = widget.session.layers.map_of(widget.session.slide, "first")
    assert layer.colormap.name == "cividis (fading)"
    finish(widget)


def test_it_fits_a_narrow_dock_and_all_is_explained(features: FeaturesWidget) -> None:
    assert features.minimumSizeHint().width() <= 320
    for kind in (QAbstractButton, QComboBox):
        for child in features.findChildren(kind):
            assert child.toolTip() or child.parent().toolTip(), child
