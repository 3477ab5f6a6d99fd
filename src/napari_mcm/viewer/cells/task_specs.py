"""Describe classifiers and ablations to the start panel."""

from __future__ import annotations

from pathlib import Path

from napari_mcm.core.runtime.command import Command
from napari_mcm.viewer.app.commands import ablate_command, classify_command
from napari_mcm.viewer.cells.run import ablation_state, classifier_state
from napari_mcm.viewer.cells.training_controller import read_options
from napari_mcm.viewer.training.run_folder import ABLATIONS, CLASSIFIERS
from napari_mcm.viewer.training.start_panel import TrainingTaskSpec


def _resume_ablation(folder: Path) -> Command:
    # The same command resumes: this verb has no --resume.
    return ablate_command(read_options(folder))


CLASSIFY = TrainingTaskSpec(
    verb="classify train",
    button="&Train classifier",
    tip="Train a classifier in the background; you can cancel and resume",
    folder="classifier",
    holds="Metrics, the encoder and its head are written here",
    recent=CLASSIFIERS,
    state_of=classifier_state,
    command=classify_command,
)

ABLATE = TrainingTaskSpec(
    verb="ablate",
    button="R&un ablation",
    tip="Train a classifier per arm, label fraction and seed, in the background; finished "
    "ones are kept",
    folder="ablation",
    holds="Classifiers, table and figures are written here",
    recent=ABLATIONS,
    state_of=ablation_state,
    command=ablate_command,
    resume=_resume_ablation,
)
