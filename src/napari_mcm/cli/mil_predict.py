"""Predict slides with a trained run: the mean of its folds' models.

Without a table, all slides of the folder are predicted. If the table has labels, the
predictions are scored, too.
"""

from __future__ import annotations

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome, table
from napari_mcm.core.mil.config import PredictConfig

OPTIONS, POSITIONAL = PredictConfig, "run"
_SHOWN = 20


def run(options: PredictConfig) -> Outcome:
    """Predict the slides and write the table."""
    from napari_mcm.core.mil.bags import covered
    from napari_mcm.core.mil.predict import predict
    from napari_mcm.core.mil.results import columns, figures_table

    done = drive(predict(options))
    winners = done.probabilities.argmax(axis=1)
    rows = [("slide", "predicted", *(f"p {name}" for name in done.classes))]
    for slide, winner, row in zip(
        done.slides, winners, done.probabilities, strict=True
    ):
        rows.append((slide, done.classes[winner], *(f"{p:.3f}" for p in row)))
    lines = columns(rows[: _SHOWN + 1])
    if len(rows) > _SHOWN + 1:
        lines.append(f"... and {len(rows) - _SHOWN - 1} more; --out FILE has all")
    if done.figures is not None:
        lines += ["", *figures_table(done.figures)]
    about = [
        ("models", str(done.models)),
        ("slides", str(len(done.slides))),
        ("covers", f"{covered(done.neighbourhood)}, as in training"),
    ]
    if done.file is not None:
        about.append(("file", str(done.file)))
    predictions = {
        slide: dict(zip(done.classes, row.tolist(), strict=True))
        for slide, row in zip(done.slides, done.probabilities, strict=True)
    }
    result = {
        "models": done.models,
        "neighbourhood": done.neighbourhood.model_dump(),
        "predictions": predictions,
        "figures": done.figures,
        "file": done.file,
    }
    return Outcome(result, [*lines, "", *table(about)], done.failed)
