"""Figures of a run, some of them measured at some steps only."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

from napari_mcm.core.training import Run


def test_columns_may_appear_at_some_steps_only(tmp_path):
    run = Run.create(tmp_path / "run", {})
    run.append_metrics(0, {"loss": 1.0})
    run.append_metrics(1, {"loss": 0.9, "probe_auroc": 0.7})
    run.append_metrics(2, {"loss": 0.8})
    run.append_metrics(3, {"loss": 0.7, "probe_auroc": 0.75, "held_out_loss": 2.0})
    found = run.metrics()
    assert found["step"] == [0, 1, 2, 3]
    assert found["loss"] == [1.0, 0.9, 0.8, 0.7]
    nan = float("nan")
    np.testing.assert_array_equal(found["probe_auroc"], [nan, 0.7, nan, 0.75])
    np.testing.assert_array_equal(found["held_out_loss"], [nan, nan, nan, 2.0])


def test_trimming_keeps_columns_and_the_steps_before(tmp_path):
    run = Run.create(tmp_path / "run", {})
    for step in range(4):
        extra = {"probe": 0.5} if step == 1 else {}
        run.append_metrics(step, {"loss": float(step), **extra})
    run.trim_metrics(2)
    run.append_metrics(2, {"loss": 9.0})
    found = run.metrics()
    assert found["step"] == [0, 1, 2] and found["loss"] == [0, 1, 9]
    np.testing.assert_array_equal(found["probe"], [np.nan, 0.5, np.nan])


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path):
    run = Run.create(tmp_path / "run", {})
    run.append_metrics(0, {"loss": 1.0, "cosine": 0.5})
    with run.metrics_file.open("a") as file:
        file.write("1,0.")
    assert run.metrics()["step"] == [0]


_KILLED_WHILE_WRITING = """
import sys
from pathlib import Path
import torch
from napari_mcm.core.training import Run
run = Run.create(Path(sys.argv[1]), {})
tensors = {"weights": torch.zeros(40_000_000)}
while True:
    run.save_checkpoint(tensors, {"step": 1})
"""


def test_a_run_that_was_killed_in_the_middle_of_a_write_can_end_well(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", _KILLED_WHILE_WRITING, str(tmp_path / "run")]
    )
    folder = tmp_path / "run" / "checkpoint"
    deadline = time.monotonic() + 120
    # Writers of tensors make temporary files of their own beside ours.
    while not any(not p.name.startswith((".part", "last")) for p in folder.glob("*")):
        assert child.poll() is None and time.monotonic() < deadline
    child.kill()
    child.wait()
    assert list(folder.iterdir())
    Run.open(tmp_path / "run").remove_checkpoint()
    assert not folder.exists()
