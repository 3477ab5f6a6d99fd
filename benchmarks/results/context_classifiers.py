"""Slide classifiers on features of each arm and radius: AUROC, cost, paired differences.

Intervals are bootstraps over patients, of the predictions that the classifiers' runs keep.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from benchmarks.results.context_folders import NO_INTERVAL, Study, Value
from benchmarks.results.tables import markdown
from benchmarks.studies.figure_1b import TEACHER

from napari_mcm.core.mil.metrics import Predictions, bootstrap
from napari_mcm.core.mil.resampled_scores import Counts, Floats, ResampledScores
from napari_mcm.core.mil.results import read_predictions
from napari_mcm.core.runtime.jobs import run

FIGURE = "mil_auroc"
CONTROL = "A"
RESAMPLES = 2000
BINS = 10


def classifier_table(study: Study | None) -> str:
    """Write AUROC relative to the teacher's beside what an arm costs, and differences."""
    if study is None:
        return ""
    teacher = study.mean(FIGURE, TEACHER, 0)
    rows = []
    for arm in study.config.arms:
        for radius in study.config.radii:
            own = study.mean(FIGURE, arm, radius)
            if own is None:
                rows.append([arm, str(radius), "not run yet", *[""] * 6])
                continue
            rows.append(
                [
                    arm,
                    str(radius),
                    f"{own:.3f}",
                    f"{own / teacher:.3f}" if teacher else "",
                    _text(classifier_difference(study, arm, radius, CONTROL, radius)),
                    _text(classifier_difference(study, arm, radius, arm, 0)),
                    _number(study.mean("parameters", arm), 1e6),
                    _number(study.mean("multiply_adds", arm), 1e9, 3),
                    _number(study.mean("milliseconds_per_patch", arm, radius), 1),
                ]
            )
    header = [
        "arm", "radius", "AUROC", "relative to the teacher, radius 0", "less A",
        "less radius 0", "parameters, M", "multiply-adds per patch, G", "ms per patch",
    ]  # fmt: skip
    return markdown(header, rows)


def classifier_difference(
    study: Study | None, arm: str, radius: int, control: str, control_radius: int
) -> Value | None:
    """Compare two sets of classifiers on the same slides; None where one is missing."""
    if study is None or (arm, radius) == (control, control_radius):
        return None
    one = _predictions(study, arm, radius)
    other = _predictions(study, control, control_radius)
    if one is None or other is None or one.slides != other.slides:
        return None
    value, interval = auroc_apart(one, other)
    return Value(value, interval, 1, 1, NO_INTERVAL)


def auroc_apart(
    one: Predictions, other: Predictions
) -> tuple[float, tuple[float, float]]:
    """Give the difference in AUROC on the same slides, and its interval over patients."""
    scores = [ResampledScores(p.labels, p.probabilities, BINS) for p in (one, other)]

    def apart(counts: Counts) -> dict[str, Floats]:
        first, second = (score(counts)["auroc"] for score in scores)
        return {"auroc": first - second}

    value = apart(np.ones((1, len(one.slides)), np.int64))["auroc"][0]
    found = run(bootstrap(apart, one.patients, RESAMPLES, "patients"))
    return float(value), found["auroc"]


def _predictions(study: Study, arm: str, radius: int) -> Predictions | None:
    """Read what the classifiers on an arm's features predicted, in its first trial."""
    if not study.finished.get(arm):
        return None
    summary = next(s for s in study.summaries if s["arm"] == arm)
    cell = study.folder / "cells" / summary["fold"] / f"seed-{summary['seed']}" / arm
    trained = study.config.arms[arm].encoder is None
    # Features of encoders that are not fine-tuned are shared by all trials.
    features = cell / "features" if trained else study.folder / "features" / arm
    folder: Path = features.with_name(f"{features.name}-mil-r{radius}")
    return read_predictions(folder) if (folder / "predictions.csv").exists() else None


def _text(value: Value | None) -> str:
    if value is None:
        return ""
    low, high = value.interval
    return f"{value.mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def _number(value: float | None, unit: float, digits: int = 2) -> str:
    return "" if value is None else f"{value / unit:.{digits}f}"
