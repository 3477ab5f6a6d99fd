"""Describe pre-training to the start panel."""

from __future__ import annotations

from napari_mcm.viewer.app.commands import pretrain_command
from napari_mcm.viewer.app.workloads import pretraining_work
from napari_mcm.viewer.mae.run import pretraining_state
from napari_mcm.viewer.training.run_folder import PRETRAININGS
from napari_mcm.viewer.training.start_panel import TrainingTaskSpec

PRETRAIN = TrainingTaskSpec(
    verb="mae pretrain",
    button="Pre-tr&ain",
    tip="Pre-train a ViT in the background; you can cancel and resume",
    folder="mae",
    holds="Metrics, the encoder and its decoder are written here",
    recent=PRETRAININGS,
    state_of=pretraining_state,
    command=pretrain_command,
    work=pretraining_work,
    advice="choose fewer epochs, a smaller ViT or fewer images, or a GPU (Device)",
)
