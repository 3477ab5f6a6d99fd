"""The trainings of the *MAE & cells* widget, as their start boxes take them."""

from __future__ import annotations

from pathlib import Path

from napari_mcm.core.runtime.command import Command
from napari_mcm.viewer.app.commands import (
    ablate_command,
    classify_command,
)
from napari_mcm.viewer.cells.run import ablation_state, classifier_state
from napari_mcm.viewer.cells.training import read_options
from napari_mcm.viewer.training.run_folder import ABLATIONS, CLASSIFIERS
from napari_mcm.viewer.training.start_panel import TrainingTaskSpec


def _go_on_with_ablation(folder: Path) -> Command:
    # The same line goes on: this verb has no --resume.
    return ablate_command(read_options(folder))


CLASSIFY = TrainingTaskSpec(
    verb="classify train",
    button="&Train classifier",
    tip="Train a classifier in the background; it can be cancelled and gone on with",
    folder="classifier",
    holds="Where figures, the encoder and its head go",
    recent=CLASSIFIERS,
    state_of=classifier_state,
    command=classify_command,
)

ABLATE = TrainingTaskSpec(
    verb="ablate",
    button="R&un ablation",
    tip="Train a classifier for each arm, part and seed, in the background; what is "
    "done is kept",
    folder="ablation",
    holds="Where classifiers, table and figures go",
    recent=ABLATIONS,
    state_of=ablation_state,
    command=ablate_command,
    resume=_go_on_with_ablation,
)
