"""Describe fine-tuning to the start panel."""

from __future__ import annotations

from napari_mcm.viewer.app.commands import finetune_command
from napari_mcm.viewer.app.persistence import RUNS
from napari_mcm.viewer.app.workloads import finetune_work
from napari_mcm.viewer.finetune.run import state_of
from napari_mcm.viewer.training.start_panel import TrainingTaskSpec

FINETUNE = TrainingTaskSpec(
    verb="finetune",
    button="Fine-t&une",
    tip="Fine-tune the student in the background; you can cancel and resume",
    folder="finetune",
    holds="Metrics, figures and the new encoder are written here",
    recent=RUNS,
    state_of=state_of,
    command=finetune_command,
    work=finetune_work,
    advice="choose fewer epochs or slides, a smaller student or teacher, or a GPU "
    "(Device)",
)
