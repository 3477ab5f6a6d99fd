"""The parts that all docks that train share: curves, charts, threads, imports."""

from __future__ import annotations

import math
import subprocess
import sys
import threading

import pytest
from pytestqt.qtbot import QtBot

from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.mil.curves_panel import fold_lines
from napari_mcm.viewer.training.chart import lines_of
from napari_mcm.viewer.training.metrics import add_step


def test_a_thread_is_called_after_what_it_does(qtbot: QtBot) -> None:
    names: list[str] = []
    threads = BackgroundWorker(), BackgroundWorker("context windows")
    for background in threads:
        background.submit(
            "name", lambda: threading.current_thread().name, names.append, names.append
        )
        background.wait()
    qtbot.waitUntil(lambda: len(names) == 2)
    assert names == ["napari-mcm: files_0", "napari-mcm: context windows_0"]


def test_each_fold_has_a_line_and_seeds_are_named_where_there_are_several() -> None:
    first = {"step": [0.0, 1.0], "loss": [3.0, math.nan]}
    second = {"step": [0.0], "loss": [2.0]}
    assert fold_lines({(1, 5): second, (0, 5): first}, "loss") == {
        "1": ([1.0], [3.0]),
        "2": ([1.0], [2.0]),
    }
    assert list(fold_lines({(0, 1): second, (0, 0): first}, "loss")) == [
        "1, seed 0",
        "1, seed 1",
    ]
    assert fold_lines({(0, 0): first}, "validation_loss") == {}


def test_a_step_that_is_measured_again_replaces_the_first() -> None:
    series: dict[str, list[float]] = {}
    for step in (0, 1, 2, 1):
        add_step(series, step, {"loss": float(step)} | ({"rank": 4.0} if step else {}))
    assert series["step"] == [0, 1] and series["loss"] == [0, 1]
    assert lines_of(series, {"rank": "rank"}) == {"rank": ([2.0], [4.0])}


@pytest.mark.parametrize("dock", ["mil", "finetune", "mae"])
def test_a_dock_opens_without_torch_or_matplotlib(dock: str) -> None:
    code = (
        f"import sys, napari_mcm.viewer.{dock}.widget; "
        "print(sorted({'torch', 'timm', 'matplotlib.pyplot', 'sklearn'} & {*sys.modules}))"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
