"""Describe the training of slide classifiers to the start panel."""

from __future__ import annotations

from napari_mcm.viewer.app.commands import mil_command
from napari_mcm.viewer.app.workloads import mil_work
from napari_mcm.viewer.mil.run import state_of
from napari_mcm.viewer.training.run_folder import MIL_RUNS
from napari_mcm.viewer.training.start_panel import TrainingTaskSpec

MIL = TrainingTaskSpec(
    verb="mil train",
    button="&Train",
    tip="Train and test on each fold, in the background; you can cancel and resume",
    folder="mil",
    holds="Models, figures and plots are written here",
    recent=MIL_RUNS,
    state_of=state_of,
    command=mil_command,
    work=mil_work,
    advice="choose fewer folds, seeds or epochs, or a GPU (Device)",
)
