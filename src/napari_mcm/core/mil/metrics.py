"""Metrics of a slide classifier, from scikit-learn, with bootstrap intervals.

AUROC and average precision are means over classes, each against the rest. The expected
calibration error compares the winning class's probability with how often it is right,
in bins B_k of equal width::

    ECE = Σ_k |B_k| / S · | accuracy(B_k) - confidence(B_k) |

Intervals are the percentiles of the metric over bootstrap samples of slides, or of
patients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.mil.resampled_scores import Counts
from napari_mcm.core.runtime.jobs import Job, Meter

Floats = NDArray[np.float64]

Labels = NDArray[np.int64]


MAIN = ("auroc", "average_precision", "balanced_accuracy", "f1", "ece")
"""The metrics that get intervals, in the order in which they are shown."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of slides whose class is known.

    Attributes
    ----------
    slides, patients, folds : tuple of str
        Name of each slide, its patient, and the fold in which it was tested.
    labels : ndarray of int64, shape (S,)
        Index of the true class.
    probabilities : ndarray of float64, shape (S, C)
        Rows sum to 1.
    classes : tuple of str
        Names of the classes.
    """

    slides: tuple[str, ...]
    patients: tuple[str, ...]
    folds: tuple[str, ...]
    labels: Labels
    probabilities: Floats
    classes: tuple[str, ...]

    def of_fold(self, fold: str) -> Predictions:
        """Return the predictions of one fold.

        Parameters
        ----------
        fold : str
            Name of the fold.

        Returns
        -------
        Predictions
            Its slides, in the same order.
        """
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
        """Return the probabilities of the majority-class baseline.

        Returns
        -------
        ndarray of float64, shape (S, C)
            The frequencies of the classes, the same for all slides.
        """
        shares = np.bincount(self.labels, minlength=len(self.classes))
        return np.tile(shares / shares.sum(), (len(self.labels), 1))


def main_scores(labels: Labels, probabilities: Floats, bins: int) -> dict[str, float]:
    """Compute the metrics of :data:`MAIN`.

    AUROC and average precision are means over classes, each against the rest; F1 is
    macro-averaged; ECE is the expected calibration error of the winning class.

    Parameters
    ----------
    labels : ndarray of int64, shape (S,)
        Index of the true class.
    probabilities : ndarray of float64, shape (S, C)
        Predicted probabilities.
    bins : int
        Bins of the calibration curve.

    Returns
    -------
    dict of str to float
        Value by metric; NaN where it is not defined.
    """
    from sklearn.metrics import precision_recall_fscore_support

    # A class that does not occur among these slides has no defined recall.
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
    """Compute each class's AUROC against the rest.

    Parameters
    ----------
    labels : ndarray of int64, shape (S,)
        Index of the true class.
    probabilities : ndarray of float64, shape (S, C)
        Predicted probabilities.

    Returns
    -------
    dict of int to float
        AUROC by class; only classes with slides both of it and of others.
    """
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
    """Compute each class's average precision.

    Parameters
    ----------
    labels : ndarray of int64, shape (S,)
        Index of the true class.
    probabilities : ndarray of float64, shape (S, C)
        Predicted probabilities.

    Returns
    -------
    dict of int to float
        Average precision by class; only classes that occur.
    """
    from sklearn.metrics import average_precision_score

    return {
        number: float(average_precision_score(positive, probabilities[:, number]))
        for number in range(probabilities.shape[1])
        if (positive := labels == number).any()
    }


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration curve of the winning class, and its expected error.

    Attributes
    ----------
    confidence, correct : ndarray of float64, shape (K,)
        Mean probability of the winning class, and the fraction of slides where it is right,
        in each bin that holds slides.
    counts : ndarray of int64, shape (K,)
        Slides per bin.
    error : float
        Expected calibration error: the mean distance of the two, weighted by the counts.
    """

    confidence: Floats
    correct: Floats
    counts: Labels
    error: float


def calibration(labels: Labels, probabilities: Floats, bins: int) -> Calibration:
    """Compute the calibration curve of the winning class in bins of equal width.

    scikit-learn's ``calibration_curve``.

    Parameters
    ----------
    labels : ndarray of int64, shape (S,)
        Index of the true class.
    probabilities : ndarray of float64, shape (S, C)
        Predicted probabilities.
    bins : int
        Number of bins between 0 and 1.

    Returns
    -------
    Calibration
        The curve and its expected error.
    """
    from sklearn.calibration import calibration_curve

    sure = probabilities.max(axis=1).clip(0, 1)
    right = (probabilities.argmax(axis=1) == labels).astype(np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        correct, confidence = calibration_curve(
            right, sure, n_bins=bins, strategy="uniform", pos_label=1
        )
    # calibration_curve does not return counts: bin as it does, and drop empty bins.
    edges = np.linspace(0, 1, bins + 1)
    counts = np.bincount(np.searchsorted(edges[1:-1], sure), minlength=bins)
    counts = counts[counts > 0]
    error = float(np.abs(correct - confidence) @ counts / counts.sum())
    return Calibration(confidence, correct, counts, error)


def all_scores(predictions: Predictions, bins: int) -> dict[str, object]:
    """Compute all metrics: main, per class, confusion, calibration.

    Parameters
    ----------
    predictions : Predictions
        Predictions of S slides.
    bins : int
        Bins of the calibration curve.

    Returns
    -------
    dict of str to object
        Values that JSON can hold, except for NaN; see :func:`~.results.plain`.
    """
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
    """Convert labels to indices of classes.

    Parameters
    ----------
    labels : sequence of str
        Labels, each of which is a class.
    classes : sequence of str
        Names of the classes.

    Returns
    -------
    ndarray of int64, shape (S,)
        Index of each label's class.
    """
    place = {name: number for number, name in enumerate(classes)}
    return np.array([place[label] for label in labels], np.int64)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return float(np.mean(listed)) if listed else float("nan")


Statistic = Callable[[Counts], Mapping[str, Floats]]
"""Maps how often each sample draws each row, shape (B, S), to B values of each metric."""

Interval = tuple[float, float]


LEVEL = 95.0

_AT_ONCE = 1_000_000
"""Counts in a block of samples, which bounds the memory and the time to a cancel."""


def bootstrap(
    statistic: Statistic,
    units: Sequence[str],
    resamples: int,
    stage: str,
    seed: int = 0,
) -> Job[dict[str, Interval]]:
    """Compute bootstrap intervals of metrics, as a job.

    Efron's percentile interval. Samples depend on the seed and the units only: two
    methods on the same slides see the same samples, and a difference computed inside
    `statistic` is paired.

    Parameters
    ----------
    statistic : callable
        Maps counts, of shape (B, S), to the values of each metric, of shape (B,).
    units : sequence of str
        Unit of each of the S rows: the slide itself, or its patient, whose rows are drawn
        together.
    resamples : int
        Number of samples.
    stage : str
        Text of the progress.
    seed : int, optional
        Random seed.

    Yields
    ------
    Event
        Progress in samples.

    Returns
    -------
    dict of str to tuple of float
        Ends of the 95 % interval of each metric; NaN where no sample defines it.
    """
    # Slides of a patient resemble each other: drawn one by one, intervals are too narrow.
    names, place = np.unique(np.asarray(units), return_inverse=True)
    rng = np.random.default_rng([seed, 5])
    found: dict[str, list[Floats]] = {}
    meter = Meter(stage, resamples, "samples")
    size = max(_AT_ONCE // max(len(place), 1), 1)
    for first in range(0, resamples, size):
        drawn = [
            np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
            for _ in range(min(size, resamples - first))
        ]
        for name, values in statistic(np.stack(drawn)[:, place]).items():
            found.setdefault(name, []).append(values)
        yield meter.advance(len(drawn))
    return {name: _ends(np.concatenate(values)) for name, values in found.items()}


def _ends(values: Floats) -> Interval:
    # A sample with one class only has no AUROC.
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)
