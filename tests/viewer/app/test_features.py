"""Computing and loading features from the widget, in the background."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QApplication

from napari_mcm.core.features.interchange import write_foreign
from napari_mcm.viewer.app import features
from napari_mcm.viewer.app.jobs import JobState
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.encoder_panel import EncoderPanel
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import finish, write_slide

ENCODER = "random:test_efficientnet"


@pytest.fixture
def small(widget: SimilarityWidget, qtbot: QtBot) -> Iterator[SimilarityWidget]:
    """The widget, set to a small encoder and small patches."""
    widget.options.patch_size.setValue(64)
    for slot in (widget.first, widget.second):
        slot.encoder.setCurrentText(ENCODER)
    yield widget


def compute(slot: EncoderPanel, widget: SimilarityWidget, qtbot: QtBot) -> None:
    slot.compute.click()
    assert widget.session.jobs.status.busy
    qtbot.waitUntil(lambda: not widget.session.jobs.status.busy, timeout=60_000)


def test_features_are_computed_beside_the_slide(
    small: SimilarityWidget, qtbot: QtBot, slide_path: Path
) -> None:
    compute(small.first, small, qtbot)
    status = small.session.jobs.status
    assert status.state is JobState.DONE, status.details
    loaded = small.session.features("first")
    folder = slide_path.parent / "napari-mcm" / "random-test_efficientnet"
    assert loaded.path == folder / "slide.features.zarr" and loaded.path.exists()
    assert loaded.index.features.grid.patch_um == 32
    assert ENCODER in small.first.state.text()
    context_of(small.session).queries.point(600, 500)
    assert context_of(small.session).query.maps["first"].title.startswith("cosine")


def test_a_file_of_the_command_line_loads_into_the_other_slot(
    small: SimilarityWidget, qtbot: QtBot
) -> None:
    compute(small.first, small, qtbot)
    context_of(small.session).queries.point(600, 500)
    small.second.load_file(small.session.features("first").path)
    qtbot.waitUntil(lambda: small.session.features("second") is not None)
    # What was asked before is asked of the new features at once.
    assert context_of(small.session).query.maps["second"] is not None
    assert "test_efficientnet" in small.second.state.text()


def test_the_same_asked_again_is_read_without_pytorch(
    small: SimilarityWidget, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute(small.first, small, qtbot)
    first = small.session.features("first")
    small.second.encoder.setCurrentText(ENCODER)

    def fail(_modules: object) -> None:
        raise AssertionError("imported PyTorch")

    monkeypatch.setattr(features, "import_modules", fail)
    compute(small.second, small, qtbot)
    status = small.session.jobs.status
    assert status.state is JobState.DONE, status.details
    second = small.session.features("second")
    assert second.path == first.path and second is not first
    small.options.patch_size.setValue(80)
    small.options.overwrite.setChecked(True)
    compute(small.second, small, qtbot)
    assert "imported PyTorch" in status.message


@pytest.mark.parametrize("kind", ["trident", "stamp"])
def test_a_file_of_another_tool_loads_on_the_slide(
    small: SimilarityWidget, qtbot: QtBot, tmp_path: Path, kind: str
) -> None:
    compute(small.first, small, qtbot)
    ours = small.session.features("first").index.features
    (file, *_) = write_foreign(ours, tmp_path / "theirs.h5", kind).files
    small.second.load_file(file)
    finish_running(small, qtbot)
    assert small.session.jobs.status.state is JobState.DONE
    context_of(small.session).queries.point(600, 500)
    maps = context_of(small.session).query.maps
    np.testing.assert_allclose(maps["second"].values, maps["first"].values, atol=1e-3)


def test_a_file_without_the_size_of_patches_names_the_option(
    small: SimilarityWidget, qtbot: QtBot, tmp_path: Path
) -> None:
    path = tmp_path / "bare.h5"
    with h5py.File(path, "w") as file:
        file["features"] = np.ones((2, 3), np.float32)
        file["coords"] = np.array([[0, 0], [64, 0]])
    small.first.load_file(path)
    finish_running(small, qtbot)
    assert "--patch-size-level0" in small.job.line.text()


def test_features_of_another_slide_are_refused(
    small: SimilarityWidget, qtbot: QtBot, tmp_path: Path, slide_path: Path
) -> None:
    compute(small.first, small, qtbot)
    other = write_slide(tmp_path / "other.tif", mpp=0.25)
    path = small.session.features("first").path
    small.session.viewer.open(other, plugin="napari-mcm")
    small.first.load_file(path)
    finish_running(small, qtbot)
    assert small.session.jobs.status.state is JobState.FAILED
    assert "another slide (slide)" in small.job.line.text()
    assert small.session.features("first") is None


def finish_running(widget: SimilarityWidget, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: not widget.session.jobs.status.busy, timeout=60_000)


def test_an_encoder_that_is_none_is_told_in_one_line(
    small: SimilarityWidget, qtbot: QtBot
) -> None:
    small.first.encoder.setCurrentText("random:no_such_model")
    compute(small.first, small, qtbot)
    status = small.session.jobs.status
    assert status.state is JobState.FAILED and "no_such_model" in status.message
    assert "\n" not in small.job.line.text() and small.job.details.isEnabled()


def test_a_file_that_is_gone_is_told_in_one_line(
    small: SimilarityWidget, qtbot: QtBot, tmp_path: Path
) -> None:
    small.first.load_file(tmp_path / "gone.features.zarr")
    finish_running(small, qtbot)
    assert "gone.features.zarr" in small.session.jobs.status.message


def test_a_slide_without_tissue_is_told(
    small: SimilarityWidget, qtbot: QtBot, tmp_path: Path
) -> None:
    blank = write_slide(tmp_path / "blank.tif", blank=True)
    small.session.viewer.open(blank, plugin="napari-mcm")
    compute(small.first, small, qtbot)
    assert small.session.jobs.status.state is JobState.FAILED
    assert "no tissue" in small.session.jobs.status.message


def test_features_made_in_another_way_are_replaced_only_when_asked(
    small: SimilarityWidget, qtbot: QtBot
) -> None:
    compute(small.first, small, qtbot)
    small.options.patch_size.setValue(100)
    compute(small.first, small, qtbot)
    assert small.session.jobs.status.state is JobState.FAILED
    assert "slide.features.zarr" in small.job.line.text()
    small.options.overwrite.setChecked(True)
    compute(small.first, small, qtbot)
    assert small.session.features("first").index.features.grid.patch_um == 50


def test_buttons_wait_while_a_job_runs(small: SimilarityWidget, qtbot: QtBot) -> None:
    small.first.compute.click()
    for button in (small.first.compute, small.second.compute, small.second.load):
        assert not button.isEnabled()
        assert "another job is running" in button.toolTip()
    finish_running(small, qtbot)
    assert small.second.compute.isEnabled()


def test_cancel_keeps_the_widget_usable(
    small: SimilarityWidget, qtbot: QtBot, slide_path: Path
) -> None:
    small.options.patch_size.setValue(16)
    small.first.compute.click()
    qtbot.waitUntil(
        lambda: (
            (p := small.session.jobs.status.progress) is not None
            and p.stage.startswith("Extracting")
        ),
        timeout=60_000,
    )
    small.job.cancel.click()
    qtbot.waitUntil(lambda: not small.session.jobs.status.busy, timeout=10_000)
    assert small.session.jobs.status.state is JobState.CANCELLED
    assert small.session.features("first") is None
    compute(small.first, small, qtbot)
    assert small.session.features("first") is not None


def test_closing_the_dock_stops_the_worker(
    small: SimilarityWidget, qtbot: QtBot
) -> None:
    small.options.patch_size.setValue(16)
    small.first.compute.click()
    session = small.session
    session.viewer.window.remove_dock_widget(small)
    QApplication.processEvents()
    # It may have stopped already.
    assert session.jobs.status.state in (JobState.CANCELLING, JobState.CANCELLED)
    qtbot.waitUntil(lambda: not session.jobs.status.busy, timeout=5000)
    assert session.jobs.status.state is JobState.CANCELLED
    assert session.features("first") is None


def test_closing_the_viewer_stops_the_worker(
    small: SimilarityWidget, qtbot: QtBot
) -> None:
    small.options.patch_size.setValue(16)
    small.first.compute.click()
    session, before = small.session, threading.active_count()
    session.viewer.close()
    qtbot.waitUntil(lambda: session.jobs.status.state is not JobState.RUNNING)
    qtbot.waitUntil(lambda: not session.jobs.status.busy, timeout=5000)
    finish(small)
    assert threading.active_count() <= before


def test_results_of_a_slide_that_was_closed_meanwhile_do_no_harm(
    small: SimilarityWidget, qtbot: QtBot
) -> None:
    small.first.compute.click()
    small.session.viewer.layers.clear()
    finish_running(small, qtbot)
    assert small.session.features("first") is None


def test_features_are_computed_again_where_they_were_lost(
    small: SimilarityWidget, qtbot: QtBot
) -> None:
    compute(small.first, small, qtbot)
    shutil.rmtree(small.session.features("first").path)
    compute(small.first, small, qtbot)
    assert small.session.features("first").path.exists()
