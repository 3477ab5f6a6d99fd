"""Cells that are marked in the window are classified by the copied line, to the bit."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from npe2 import PluginManager, PluginManifest
from PIL import Image
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QApplication

from napari_mcm.cli.app import load_verb, make_parser
from napari_mcm.cli.options import read_config
from napari_mcm.core.cells.config import MarkedCellsConfig
from napari_mcm.viewer.app.settings import Preferences
from napari_mcm.viewer.cells import controller as cells_command
from napari_mcm.viewer.cells import controller as cells_desk
from napari_mcm.viewer.mae.widget import MaeWidget
from tests.viewer.mae.test_widget import (
    NAMES,
    cell_run,
    mae,
    squares,
    wait_for_job,
)

__all__ = ["cell_run", "mae"]


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it computed on the processor of the user's choice."""
    chosen = Preferences(device="cpu", precision="float32")
    for module in (cells_command, cells_desk):
        monkeypatch.setattr(module, "preferences", lambda: chosen)


@pytest.fixture(autouse=True)
def own_reader(npe2pm: PluginManager) -> Iterator[None]:
    """Have napari's own reader, too."""
    manifest = files("napari_builtins") / "builtins.yaml"
    with npe2pm.tmp_plugin(manifest=PluginManifest.from_file(str(manifest))):
        yield


def copied(mae: MaeWidget) -> MarkedCellsConfig | None:
    """Copy, wait for the file that it names, and read the line as the program does."""
    QApplication.clipboard().clear()
    mae.marked.command.copy.trigger()
    mae.session.disk.wait()
    QApplication.processEvents()
    line = QApplication.clipboard().text()
    if not line:
        return None
    words = shlex.split(line)
    assert words[:3] == ["napari-mcm", "classify", "cells"]
    arguments = make_parser("classify cells").parse_args(words[3:])
    return read_config(arguments, MarkedCellsConfig)


def classified(mae: MaeWidget, layer: Any, qtbot: QtBot) -> np.ndarray:
    """Classify in the window, and give the probabilities."""
    mae.marked.start.click()
    wait_for_job(mae, qtbot)
    names = [name for name in layer.features if name.startswith("p_")]
    return np.asarray(layer.features[names], np.float32)


def by_line(config: MarkedCellsConfig) -> tuple[np.ndarray, list[Any]]:
    """Run a line, and give the probabilities, and the objects that it wrote."""
    cells = load_verb("classify cells").run(config).result["cells"]
    found = [list(cell["probabilities"].values()) for cell in cells]
    assert config.out is not None
    return np.float32(found), json.loads(config.out.read_text())["features"]


def test_cells_of_a_slide_are_classified_alike_without_a_window(
    mae: MaeWidget, viewer: Any, qtbot: QtBot, cell_run: Path, slide_path: Path
) -> None:
    viewer.open(slide_path, plugin="napari-mcm")
    slide = mae.session.slide
    places = np.random.default_rng(0).uniform((300, 300), (700, 900), (9, 2))
    # One leaves the slide a little, one is far off it.
    points = viewer.add_points([*places, [3, 2], [-300, 20]], scale=slide.scale)
    mae.marked.run.put(cell_run)
    mae.marked.side.setValue(57)
    config = copied(mae)
    assert config.slide == slide_path and config.run == cell_run
    assert (config.compute.device, config.box_margin) == ("cpu", 0.0)
    assert config.marks.parent.parent == slide_path.parent
    shown = classified(mae, points, qtbot)
    found, objects = by_line(config)
    assert np.isnan(shown[-1]).all() and not np.isnan(shown[:-1]).any()
    assert np.array_equal(found, shown, equal_nan=True)
    names = [o["properties"].get("classification", {}).get("name") for o in objects]
    assert names == [name or None for name in points.features["class"]]
    # The same cells are the same file, others another one.
    assert copied(mae).marks == config.marks
    mae.marked.side.setValue(58)
    assert copied(mae).marks != config.marks


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_boxes_of_a_picture_are_classified_alike_with_their_rim(
    mae: MaeWidget, viewer: Any, qtbot: QtBot, cell_run: Path, tmp_path: Path, mode: Any
) -> None:
    pixels = squares(NAMES)
    if mode == "RGBA":
        alpha = np.linspace(0, 255, pixels.shape[1]).astype(np.uint8)
        alpha = np.broadcast_to(alpha[None, :, None], (*pixels.shape[:2], 1))
        pixels = np.concatenate([pixels, alpha], axis=2)
    file = tmp_path / "smear.png"
    Image.fromarray(pixels).save(file)
    viewer.open(file, plugin="napari")
    viewer.layers[0].scale = (0.5, 0.5)
    corners = [
        [[30, 20 + 60 * n], [30, 55 + 60 * n], [66, 55 + 60 * n], [66, 20 + 60 * n]]
        for n in range(len(NAMES))
    ]
    shapes = viewer.add_shapes(np.array(corners), scale=(0.5, 0.5))
    mae.marked.run.put(cell_run)
    mae.marked.rim.put("labels.box_margin", 0.2)
    config = copied(mae)
    assert not mae.problem.isVisibleTo(mae)
    assert config.slide == file
    shown = classified(mae, shapes, qtbot)
    found, _ = by_line(config)
    assert np.array_equal(found, shown)


def test_what_cannot_be_named_or_is_not_what_is_shown_is_said(
    mae: MaeWidget, viewer: Any, cell_run: Path, tmp_path: Path
) -> None:
    assert copied(mae) is None
    assert mae.problem.text() == "No classifier is chosen"
    mae.marked.run.put(cell_run)
    assert copied(mae) is None
    assert mae.problem.text() == "No slide or picture is open"
    viewer.add_image(squares(NAMES), name="smear")
    points = viewer.add_points([[50, 40]])
    assert copied(mae) is None
    assert "smear is in memory only: save it" in mae.problem.text()
    points.data = np.zeros((0, 2))
    assert copied(mae) is None
    assert "is empty: draw boxes or points first" in mae.problem.text()

    file = tmp_path / "turned.png"
    Image.fromarray(squares(NAMES)).save(file)
    viewer.layers.clear()
    viewer.open(file, plugin="napari")
    viewer.add_points([[50, 40]])
    viewer.layers[0].data = 255 - np.asarray(viewer.layers[0].data)
    config = copied(mae)
    assert "differs from the layer turned" in mae.problem.text()
    assert not config.marks.exists()
