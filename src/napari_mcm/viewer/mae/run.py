"""Read the state of a run folder of `mae pretrain`."""

from __future__ import annotations

from pathlib import Path

from napari_mcm.viewer.training.run_folder import RunState, run_state
from napari_mcm.viewer.training.trained_run import steps_done


def pretraining_state(folder: Path) -> RunState:
    """Return whether a folder is free for a pre-training, or what it holds."""
    return run_state(folder, "mae pretrain", steps_done)
