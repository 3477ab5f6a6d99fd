"""Results of a training: predictions, metrics with intervals, plots."""

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
from napari_mcm.core.evaluation.intervals import widen_at_edge
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.mil.config import FiguresConfig, MilConfig
from napari_mcm.core.mil.metrics import (
    MAIN,
    Interval,
    Labels,
    Predictions,
    all_scores,
    bootstrap,
    label_indices,
    main_scores,
)
from napari_mcm.core.mil.plots import write_plots
from napari_mcm.core.mil.resampled_scores import ResampledScores
from napari_mcm.core.runtime.files import write_json, write_text
from napari_mcm.core.runtime.jobs import Job
from napari_mcm.core.runtime.overall import Stages
from napari_mcm.core.runtime.run_verbs import check_run_verb
from napari_mcm.core.training.run import Run


@dataclass(frozen=True)
class MilResult:
    """Result of a training.

    Attributes
    ----------
    run_dir : Path
        Holds models, ``predictions.csv``, ``figures.json`` and plots.
    figures : dict
        ``pooled`` and ``folds``: metrics; ``baseline``: those of the majority-class
        baseline; ``by_slide`` and ``by_patient``: 95 % intervals of the pooled ones.
    seconds : float
        Time spent in the process that finished the run.
    neighbourhood : NeighbourhoodConfig
        What each feature vector covers.
    """

    run_dir: Path
    figures: dict[str, Any]
    seconds: float
    neighbourhood: NeighbourhoodConfig = NeighbourhoodConfig()


def write_results(
    run: Run, config: MilConfig, predictions: Predictions, seconds: float
) -> Job[dict[str, Any]]:
    """Write predictions, metrics and plots of a run, as a job.

    Parameters
    ----------
    run : Run
        The run.
    config : MilConfig
        Its options.
    predictions : Predictions
        Predictions of the test slides.
    seconds : float
        Time spent in this process.

    Returns
    -------
    dict of str to Any
        The run's summary.
    """
    # Predictions first: the metrics can be computed again from them.
    write_predictions(run.path / "predictions.csv", predictions)
    stages = Stages(1.0, 2.0)
    figures = yield from stages.next(compute_figures(predictions, config.figures))
    write_json(run.path / "figures.json", figures)
    yield from stages.next(write_plots(run.path, predictions, config.figures.bins))
    return {"figures": figures, "seconds": seconds}


def compute_figures(
    predictions: Predictions, config: FiguresConfig
) -> Job[dict[str, Any]]:
    """Compute metrics per fold and pooled, with intervals and the baseline's, as a job.

    Parameters
    ----------
    predictions : Predictions
        Predictions of the test slides.
    config : FiguresConfig
        Bootstrap samples and bins.

    Returns
    -------
    dict of str to Any
        As :attr:`MilResult.figures`; null in place of NaN.
    """
    bins, resamples = config.bins, config.resamples
    scores_of = ResampledScores(predictions.labels, predictions.probabilities, bins)
    by_slide = yield from bootstrap(
        scores_of, predictions.slides, resamples, "Intervals by slide"
    )
    by_patient = yield from bootstrap(
        scores_of, predictions.patients, resamples, "Intervals by patient"
    )
    folds = dict.fromkeys(predictions.folds)
    pooled = all_scores(predictions, bins)
    found = {
        "pooled": pooled,
        "by_slide": _at_edge(pooled, by_slide, predictions.slides, predictions.labels),
        "by_patient": _at_edge(
            pooled, by_patient, predictions.patients, predictions.labels
        ),
        # Metrics on unequal classes say little without the majority-class baseline.
        "baseline": main_scores(predictions.labels, predictions.baseline, bins),
        "folds": {fold: all_scores(predictions.of_fold(fold), bins) for fold in folds},
    }
    # JSON has no NaN.
    return {name: plain(value) for name, value in found.items()}


def _at_edge(
    pooled: Mapping[str, Any],
    intervals: Mapping[str, Interval],
    units: Sequence[str],
    labels: Labels,
) -> dict[str, Interval]:
    """Widen the intervals of metrics that are 1, by the units of the rarest class."""
    of_class = [set(np.asarray(units)[labels == label]) for label in np.unique(labels)]
    fewest = min(map(len, of_class))
    return {
        # A calibration error of 0 is no fraction of slides.
        name: found if name == "ece" else widen_at_edge(pooled[name], found, fewest)
        for name, found in intervals.items()
    }


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write one row per slide: its fold, patient, true class, and class probabilities.

    Parameters
    ----------
    path : Path
        CSV file to write.
    predictions : Predictions
        Predictions of the test slides.
    """
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

    Parameters
    ----------
    run_dir : Path
        Output directory of `mil train`.

    Returns
    -------
    Predictions
        Predictions of the test slides of all folds.

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

    Parameters
    ----------
    run_dir : Path
        Output directory of `mil train`.

    Returns
    -------
    dict of str to Any
        ``classes``, ``cases`` and ``folds``.

    Raises
    ------
    RunError
        If the directory is not a run of `mil train`.
    """
    check_run_verb(run_dir, "mil train")
    file = Path(run_dir) / "folds.json"
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"cannot be read ({error})", file, "Name a directory that mil train wrote"
        ) from error
    return content


def result_of(run: Run, summary: Mapping[str, Any]) -> MilResult:
    """Return the result of a finished run.

    Parameters
    ----------
    run : Run
        The run.
    summary : mapping
        Its summary, as :func:`write_results` returned it.

    Returns
    -------
    MilResult
        The same as when it finished.
    """
    # Runs of earlier versions are of single patches.
    known = NeighbourhoodConfig.model_validate(summary.get("neighbourhood", {}))
    figures, seconds = dict(summary["figures"]), float(summary["seconds"])
    return MilResult(run.path, figures, seconds, known)


def figures_table(figures: Mapping[str, Any]) -> list[str]:
    """Return the pooled metrics beside the baseline's, with intervals, as lines of text.

    Parameters
    ----------
    figures : mapping
        As :attr:`MilResult.figures`.

    Returns
    -------
    list of str
        Lines of aligned columns.
    """
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
    """Align rows of texts in columns.

    Parameters
    ----------
    rows : sequence of sequence of str
        Rows of equal length; at least one.

    Returns
    -------
    list of str
        One line per row.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def number(value: float | None) -> str:
    """Format a metric.

    Parameters
    ----------
    value : float or None
        The metric.

    Returns
    -------
    str
        Three decimals; a dash for None and NaN.
    """
    # value != value is true for NaN only.
    return "-" if value is None or value != value else f"{value:.3f}"


def ends(interval: Sequence[float | None]) -> str:
    """Format the two ends of an interval.

    Parameters
    ----------
    interval : sequence of float or None
        Lower and upper end.

    Returns
    -------
    str
        Such as ``"0.712 to 0.934"``.
    """
    return f"{number(interval[0])} to {number(interval[1])}"


def plain(value: Any) -> Any:
    """Replace NaN, which JSON does not have, by None.

    Parameters
    ----------
    value : Any
        Nested dicts, lists and numbers.

    Returns
    -------
    Any
        The same structure.
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
