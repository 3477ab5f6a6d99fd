"""Classify images with a trained classifier."""

from __future__ import annotations

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome
from napari_mcm.core.cells.config import PredictCellsConfig

OPTIONS, POSITIONAL = PredictCellsConfig, "paths"
_SHOWN = 20


def run(options: PredictCellsConfig) -> Outcome:
    """Classify the images and write the table."""
    from napari_mcm.core.cells.prediction import predict

    done = drive(predict(options))
    winners = done.probabilities.argmax(axis=1)
    lines = [
        f"{picture}  {done.classes[winner]}  {row[winner]:.3f}"
        for picture, winner, row in zip(
            done.pictures, winners, done.probabilities, strict=True
        )
    ]
    if len(lines) > _SHOWN:
        rest = len(lines) - _SHOWN
        lines = [*lines[:_SHOWN], f"... and {rest} more; --out FILE has all"]
    if done.file is not None:
        lines.append(f"file  {done.file}")
    predictions = {
        str(picture): dict(zip(done.classes, row.tolist(), strict=True))
        for picture, row in zip(done.pictures, done.probabilities, strict=True)
    }
    result = {
        "classes": done.classes,
        "predictions": predictions,
        "file": done.file,
    }
    return Outcome(result, lines, done.failed)
