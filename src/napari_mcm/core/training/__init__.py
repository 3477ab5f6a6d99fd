"""What every training shares: run directories, checkpoints, schedules."""

from napari_mcm.core.training.run import Run
from napari_mcm.core.training.schedule import warmup_cosine

__all__ = ["Run", "warmup_cosine"]
