"""Score a trained classifier on labelled images, beside a majority vote.

Classes are those of the classifier, in its order, even if the images lack some.
"""

from __future__ import annotations

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome
from napari_mcm.core.cells.config import EvaluateCellsConfig

OPTIONS, POSITIONAL = EvaluateCellsConfig, "paths"


def run(options: EvaluateCellsConfig) -> Outcome:
    """Predict the images and score the predictions."""
    from napari_mcm.core.cells.metrics import score_lines
    from napari_mcm.core.cells.prediction import evaluate

    done = drive(evaluate(options))
    split = f" of {done.split}" if done.split else ""
    lines = [f"{done.images} images{split}", *score_lines(done.scores)]
    if done.out is not None:
        lines.append(f"folder  {done.out}")
    result = {
        "images": done.images,
        "split": done.split,
        **done.scores.plain(),
        "out": done.out,
    }
    return Outcome(result, lines, done.failed)
