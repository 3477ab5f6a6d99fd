"""What a training leaves: predictions, figures with intervals, plots."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_mcm.core.errors import RunError
from napari_mcm.core.mil.config import FiguresConfig, MilConfig
from napari_mcm.core.mil.metrics import (
    MAIN,
    Predictions,
    all_scores,
    bootstrap,
    label_indices,
    main_scores,
)
from napari_mcm.core.mil.plots import write_plots
from napari_mcm.core.runtime.files import write_json, write_text
from napari_mcm.core.runtime.jobs import Job
from napari_mcm.core.training import Run


@dataclass(frozen=True)
class MilResult:
    """What a training leaves.

    Attributes
    ----------
    run_dir : Path
        Models, ``predictions.csv``, ``figures.json`` and plots.
    figures : dict
        ``pooled`` and ``folds``: figures; ``baseline``: those of the classes' shares;
        ``by_slide`` and ``by_patient``: 95 % intervals of the pooled ones.
    seconds : float
        Time spent in the process that ended it.
    """

    run_dir: Path
    figures: dict[str, Any]
    seconds: float


def write_results(
    run: Run, config: MilConfig, predictions: Predictions, seconds: float
) -> Job[dict[str, Any]]:
    """Write predictions, figures and plots; returns the run's summary."""
    write_predictions(run.path / "predictions.csv", predictions)
    figures = yield from compute_figures(predictions, config.figures)
    write_json(run.path / "figures.json", figures)
    yield from write_plots(run.path, predictions, config.figures.bins)
    return {"figures": figures, "seconds": seconds}


def compute_figures(
    predictions: Predictions, config: FiguresConfig
) -> Job[dict[str, Any]]:
    """Compute figures per fold and pooled, with intervals, and the baseline's."""
    from sklearn import config_context

    bins, resamples = config.bins, config.resamples

    def some(rows: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, float]:
        # What was checked once need not be checked in every draw.
        with config_context(assume_finite=True, skip_parameter_validation=True):
            return main_scores(
                predictions.labels[rows], predictions.probabilities[rows], bins
            )

    by_slide = yield from bootstrap(
        some, predictions.slides, resamples, "Intervals by slide"
    )
    by_patient = yield from bootstrap(
        some, predictions.patients, resamples, "Intervals by patient"
    )
    folds = dict.fromkeys(predictions.folds)
    found = {
        "pooled": all_scores(predictions, bins),
        "by_slide": by_slide,
        "by_patient": by_patient,
        "baseline": main_scores(predictions.labels, predictions.baseline, bins),
        "folds": {fold: all_scores(predictions.of_fold(fold), bins) for fold in folds},
    }
    # JSON has no NaN.
    return {name: plain(value) for name, value in found.items()}


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write a row a slide: its fold, patient, truth, and probability of each class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"p_{name}" for name in predictions.classes]
    writer.writerow(["slide", "patient", "fold", "label", "predicted", *names])
    for i, slide in enumerate(predictions.slides):
        row = predictions.probabilities[i]
        writer.writerow(
            [
                slide,
                predictions.patients[i],
                predictions.folds[i],
                predictions.classes[predictions.labels[i]],
                predictions.classes[int(row.argmax())],
                *(f"{value:.6f}" for value in row),
            ]
        )
    write_text(path, text.getvalue())


def read_predictions(run_dir: Path) -> Predictions:
    """Read a finished run's predictions of its test slides.

    Raises
    ------
    RunError
        If there are none, or they do not fit the run.
    """
    file = Path(run_dir) / "predictions.csv"
    classes = list(read_folds(run_dir)["classes"])
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            rows = list(csv.DictReader(opened))
        probabilities = [[float(row[f"p_{name}"]) for name in classes] for row in rows]
        return Predictions(
            tuple(row["slide"] for row in rows),
            tuple(row["patient"] for row in rows),
            tuple(row["fold"] for row in rows),
            label_indices([row["label"] for row in rows], classes),
            np.asarray(probabilities, np.float64),
            tuple(classes),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"cannot be read ({error!r})", file, "Is the run finished? See --resume"
        ) from error


def read_folds(run_dir: Path) -> dict[str, Any]:
    """Read which slides a run was trained and tested on.

    Raises
    ------
    RunError
        If the directory is no run of `mil train`.
    """
    file = Path(run_dir) / "folds.json"
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"cannot be read ({error})", file, "Name a directory that mil train wrote"
        ) from error
    return content


def result_of(run: Run, summary: Mapping[str, Any]) -> MilResult:
    """Give the result of a finished run."""
    return MilResult(run.path, dict(summary["figures"]), float(summary["seconds"]))


def figures_table(figures: Mapping[str, Any]) -> list[str]:
    """Set the pooled figures beside the baseline's, with their intervals, in columns."""
    rows = [("", "pooled", "95 % by slide", "95 % by patient", "majority", "folds")]
    for name in MAIN:
        per_fold = [fold[name] for fold in figures["folds"].values()]
        rows.append(
            (
                name.replace("_", " "),
                number(figures["pooled"][name]),
                ends(figures["by_slide"][name]),
                ends(figures["by_patient"][name]),
                number(figures["baseline"][name]),
                " ".join(number(value) for value in per_fold),
            )
        )
    return columns(rows)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Set rows of texts in columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def number(value: float | None) -> str:
    """Write a figure; a dash where there is none."""
    return "-" if value is None or value != value else f"{value:.3f}"


def ends(interval: Sequence[float | None]) -> str:
    """Write the two ends of an interval."""
    return f"{number(interval[0])} to {number(interval[1])}"


def plain(value: Any) -> Any:
    """Turn NaN, which JSON has not, into null."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
