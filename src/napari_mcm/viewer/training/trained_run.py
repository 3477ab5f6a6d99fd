"""Read the runs of masked autoencoders and classifiers.

PyTorch, which is slow to import, is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_mcm.core.runtime.run_verbs import verb_of_run
from napari_mcm.viewer.training.metrics import read_series
from napari_mcm.viewer.training.run_folder import read_config


@dataclass(frozen=True)
class TrainedRun:
    """Hold a finished pre-training or a trained classifier.

    Attributes
    ----------
    path : Path
        Folder of the run.
    config, summary : mapping
        Its options, and its final figures.
    """

    path: Path
    config: Mapping[str, Any]
    summary: Mapping[str, Any]

    def describe(self) -> str:
        """Return the result in one line."""
        text = f"{self.summary.get('images', 0):,} training images"
        first, last = self.summary.get("loss_first"), self.summary.get("loss_last")
        if isinstance(first, float) and isinstance(last, float):
            text += f", loss {first:.3f} → {last:.3f}"
        return text

    @property
    def scores(self) -> Mapping[str, Any]:
        """Scores of a classifier on validation images; empty where there are none."""
        found = self.summary.get("scores")
        return found if isinstance(found, dict) else {}

    @property
    def confusion(self) -> Path:
        """File of a classifier's confusion matrix."""
        return self.path / "validation" / "confusion.png"


def read_trained(folder: Path) -> TrainedRun | None:
    """Read a finished pre-training or classifier; None where there is none."""
    config = read_config(folder)
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = verb_of_run(folder) in ("mae pretrain", "classify train", "ablate")
    if not known or not isinstance(summary, dict):
        return None
    return TrainedRun(folder, config, summary)


def steps_done(folder: Path) -> str:
    """Return how many steps a run has done, as text; empty where none is logged."""
    steps = read_series(folder).get("step", [])
    return f"{round(steps[-1]) + 1:,} steps done" if steps else ""
