"""Figures of a classifier, from scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.runtime.jobs import Job, Meter

Floats = NDArray[np.float64]

Labels = NDArray[np.int64]


MAIN = ("auroc", "average_precision", "balanced_accuracy", "f1", "ece")
"""The figures that get intervals, in the order they are shown."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What was predicted of slides whose class is known.

    Attributes
    ----------
    slides, patients, folds : tuple of str
        Each slide's name, its patient, and the fold it was tested in.
    labels : ndarray of int64, shape (S,)
        Index of the true class.
    probabilities : ndarray of float64, shape (S, C)
        Rows add up to 1.
    classes : tuple of str
        Names.
    """

    slides: tuple[str, ...]
    patients: tuple[str, ...]
    folds: tuple[str, ...]
    labels: Labels
    probabilities: Floats
    classes: tuple[str, ...]

    def of_fold(self, fold: str) -> Predictions:
        """Give those of one fold."""
        rows = [i for i, name in enumerate(self.folds) if name == fold]
        return Predictions(
            tuple(self.slides[i] for i in rows),
            tuple(self.patients[i] for i in rows),
            tuple(self.folds[i] for i in rows),
            self.labels[rows],
            self.probabilities[rows],
            self.classes,
        )

    @property
    def baseline(self) -> Floats:
        """What says nothing of slides gives: the classes' shares, the same for all."""
        shares = np.bincount(self.labels, minlength=len(self.classes))
        return np.tile(shares / shares.sum(), (len(self.labels), 1))


def main_scores(labels: Labels, probabilities: Floats, bins: int) -> dict[str, float]:
    """Compute the figures of :data:`MAIN`; NaN where a figure is not defined.

    AUROC and average precision are means over classes, each against the rest; F1 is
    macro-averaged; ECE is the expected calibration error of the winning class.
    """
    from sklearn.metrics import precision_recall_fscore_support

    # A class that does not occur among these slides has no recall to count.
    _, recall, f1, _ = precision_recall_fscore_support(
        labels,
        probabilities.argmax(axis=1),
        labels=np.unique(labels),
        average="macro",
        zero_division=0,
    )
    return {
        "auroc": _mean(auroc_of(labels, probabilities).values()),
        "average_precision": _mean(precision_of(labels, probabilities).values()),
        "balanced_accuracy": float(recall),
        "f1": float(f1),
        "ece": calibration(labels, probabilities, bins).error,
    }


def auroc_of(labels: Labels, probabilities: Floats) -> dict[int, float]:
    """Compute each class's AUROC against the rest, of those that can be told apart."""
    from sklearn.metrics import roc_auc_score

    found = {}
    for number in range(probabilities.shape[1]):
        positive = labels == number
        if 0 < positive.sum() < len(labels):
            found[number] = float(roc_auc_score(positive, probabilities[:, number]))
            if probabilities.shape[1] == 2:  # the other's is the same
                return {0: found[number], 1: found[number]}
    return found


def precision_of(labels: Labels, probabilities: Floats) -> dict[int, float]:
    """Compute each class's average precision, of those that occur."""
    from sklearn.metrics import average_precision_score

    return {
        number: float(average_precision_score(positive, probabilities[:, number]))
        for number in range(probabilities.shape[1])
        if (positive := labels == number).any()
    }


@dataclass(frozen=True, eq=False)
class Calibration:
    """How far confidence and truth lie apart.

    Attributes
    ----------
    confidence, correct : ndarray, shape (K,)
        Of the bins that hold slides: mean probability of the winning class, and the part
        of slides where it is right.
    counts : ndarray of int, shape (K,)
        Slides.
    error : float
        Expected calibration error: their distance, weighted by the counts.
    """

    confidence: Floats
    correct: Floats
    counts: Labels
    error: float


def calibration(labels: Labels, probabilities: Floats, bins: int) -> Calibration:
    """Compare confidence and truth in equal bins (scikit-learn's calibration curve)."""
    from sklearn.calibration import calibration_curve

    sure = probabilities.max(axis=1).clip(0, 1)
    right = (probabilities.argmax(axis=1) == labels).astype(np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        correct, confidence = calibration_curve(
            right, sure, n_bins=bins, strategy="uniform", pos_label=1
        )
    edges = np.linspace(0, 1, bins + 1)
    counts = np.bincount(np.searchsorted(edges[1:-1], sure), minlength=bins)
    counts = counts[counts > 0]
    error = float(np.abs(correct - confidence) @ counts / counts.sum())
    return Calibration(confidence, correct, counts, error)


def all_scores(predictions: Predictions, bins: int) -> dict[str, object]:
    """Compute every figure, ready for JSON: main, per class, confusion, calibration."""
    from sklearn.metrics import confusion_matrix

    labels, probabilities = predictions.labels, predictions.probabilities
    names = predictions.classes
    auroc, precision = (
        auroc_of(labels, probabilities),
        precision_of(labels, probabilities),
    )
    curve = calibration(labels, probabilities, bins)
    matrix = confusion_matrix(
        labels, probabilities.argmax(axis=1), labels=range(len(names))
    )
    return {
        **main_scores(labels, probabilities, bins),
        "slides": len(labels),
        "auroc_of": {names[n]: value for n, value in auroc.items()},
        "average_precision_of": {names[n]: value for n, value in precision.items()},
        "confusion": matrix.tolist(),
        "calibration": {
            "confidence": curve.confidence.tolist(),
            "correct": curve.correct.tolist(),
            "counts": curve.counts.tolist(),
        },
    }


def label_indices(labels: Sequence[str], classes: Sequence[str]) -> Labels:
    """Turn labels into indices of classes."""
    place = {name: number for number, name in enumerate(classes)}
    return np.array([place[label] for label in labels], np.int64)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return float(np.mean(listed)) if listed else float("nan")


Rows = NDArray[np.int64]

Statistic = Callable[[Rows], dict[str, float]]

Interval = tuple[float, float]


LEVEL = 95.0


def bootstrap(
    statistic: Statistic,
    units: Sequence[str],
    resamples: int,
    stage: str,
    seed: int = 0,
) -> Job[dict[str, Interval]]:
    """Draw units with replacement and see how figures vary.

    Efron's percentile interval. Draws depend on the seed and the units only: two methods
    on the same slides see the same draws, and a difference computed inside `statistic`
    is a paired one.

    Parameters
    ----------
    statistic : callable
        Gives figures of some rows, which may repeat.
    units : sequence of str
        What each row belongs to: the slide itself, or its patient, whose rows are drawn
        together.
    resamples : int
        Draws.
    stage : str
        What progress says.
    seed : int
        Of the draws.

    Returns
    -------
    dict of str to tuple of float
        Ends of the 95 % interval of each figure; NaN where no draw had it.
    """
    names, place = np.unique(np.asarray(units), return_inverse=True)
    rows = [np.flatnonzero(place == unit) for unit in range(len(names))]
    rng = np.random.default_rng([seed, 5])
    found: dict[str, list[float]] = {}
    meter = Meter(stage, resamples, "samples")
    for _ in range(resamples):
        drawn = rng.integers(0, len(names), len(names))
        for name, value in statistic(np.concatenate([rows[i] for i in drawn])).items():
            found.setdefault(name, []).append(value)
        yield meter.advance()
    return {name: _ends(values) for name, values in found.items()}


def _ends(values: Sequence[float]) -> Interval:
    known = np.asarray(values)[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)
