"""The device that is preferred is the one that computes, in the widgets MIL and MAE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pytestqt.qtbot import QtBot

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.viewer.app.settings import Preferences
from napari_mcm.viewer.mae import reconstruction as mae_looks
from napari_mcm.viewer.mil import attention_controller as mil_attention
from tests.viewer.conftest import finish

SLOW = 120_000
PREFERRED = Preferences(device="cpu", precision="bfloat16")


@pytest.fixture(autouse=True)
def preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user prefers the processor, which no automatism chooses by that name."""
    for module in (
        "mil.attention_controller",
        "mae.reconstruct_controller",
        "mil.form",
    ):
        monkeypatch.setattr(
            f"napari_mcm.viewer.{module}.preferences", lambda: PREFERRED
        )


def docked(viewer: Any, name: str) -> Any:
    """A widget in an empty viewer."""
    return viewer.window.add_plugin_dock_widget("napari-mcm", name)[1]


def test_a_classifier_of_slides_is_trained_there_in_its_own_precision(
    viewer: Any, tmp_path: Path
) -> None:
    mil = docked(viewer, "MIL")
    mil.start.out.put(tmp_path / "run")
    compute = mil.form.config().compute
    assert compute == ComputeConfig(device="cpu", precision="float32")
    mil.form.more.put("compute.device", "auto")
    assert mil.form.config().compute.device == "auto"
    finish(mil)


def test_a_run_is_asked_about_a_slide_there(
    viewer: Any, slide_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mil = docked(viewer, "MIL")
    viewer.open(slide_path, plugin="napari-mcm")
    asked: list[Any] = []

    class Run:
        path, features, slides = tmp_path / "run", None, ()

    monkeypatch.setattr(mil_attention, "predict_slide", asked.append)
    # Not by monkeypatch, which would hold the viewer for too long.
    mil.attention.run = Run
    mil.session.jobs.start = lambda title, make, then: make()
    mil.attention.predict()
    assert [one.compute for one in asked] == [PREFERRED.compute]
    del mil.session.jobs.start
    mil.attention.run = None
    finish(mil)


def test_a_picture_is_filled_in_there(
    viewer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, qtbot: QtBot
) -> None:
    given: list[Any] = []

    def load(folder: Path, compute: ComputeConfig | None = None) -> None:
        given.append(compute)
        raise OSError("no run")

    monkeypatch.setattr("napari_mcm.core.mae.reconstruction.load_autoencoder", load)
    monkeypatch.setattr(mae_looks, "_weights_of", lambda folder: (folder,))
    mae = docked(viewer, "MAE & cells")
    controller = mae.reconstruction
    picture = tmp_path / "picture.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture)
    controller.use_run(tmp_path / "run")
    controller.reconstruct_picture(picture)
    qtbot.waitUntil(lambda: not controller.busy, timeout=SLOW)
    assert given == [PREFERRED.compute]
    # What is preferred from now on holds from the next one on.
    other = Preferences(device="auto")
    monkeypatch.setattr(
        "napari_mcm.viewer.mae.reconstruct_controller.preferences", lambda: other
    )
    controller.again()
    qtbot.waitUntil(lambda: not controller.busy, timeout=SLOW)
    assert given[1:] == [other.compute]
    finish(mae)
