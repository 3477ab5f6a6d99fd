"""Where a training goes, and the button that starts it or goes on with it."""

from __future__ import annotations

from napari_mcm.viewer.app.commands import finetune_command
from napari_mcm.viewer.app.persistence import RUNS
from napari_mcm.viewer.finetune.run import state_of
from napari_mcm.viewer.training.start_panel import TrainingTaskSpec

FINETUNE = TrainingTaskSpec(
    verb="finetune",
    button="Fine-t&une",
    tip="Fine-tune the student in the background; it can be cancelled and gone on with",
    folder="finetune",
    holds="Where figures and the new encoder go",
    recent=RUNS,
    state_of=state_of,
    command=finetune_command,
)
