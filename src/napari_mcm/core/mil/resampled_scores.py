"""The main metrics of many bootstrap samples at once.

A sample draws slide i n_i times, so that each metric is one of weighted slides: with all
samples in a matrix of counts, a metric of S slides costs one pass over its rows. The values
are those of :func:`~.metrics.main_scores` on the rows that were drawn::

    AUROC = Σ_i∈P n_i · (Σ_j∈N n_j [s_j < s_i] + ½ Σ_j∈N n_j [s_j = s_i]) / (n_P n_N)
    AP    = Σ_t (R_t - R_t-1) · P_t                      thresholds t from the top down
    ECE   = Σ_k |Σ_i∈B_k n_i (right_i - confidence_i)| / n
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Counts = NDArray[np.int64]
"""How often each sample draws each slide, shape (B, S)."""


class ResampledScores:
    """Compute the main metrics of bootstrap samples of slides.

    Parameters
    ----------
    labels : ndarray of int64, shape (S,)
        Index of the true class.
    probabilities : ndarray of float64, shape (S, C)
        Predicted probabilities.
    bins : int
        Bins of the calibration curve.
    """

    def __init__(self, labels: Labels, probabilities: Floats, bins: int) -> None:
        slides, classes = probabilities.shape
        self._classes = classes
        self._positive = labels[:, None] == np.arange(classes)
        self._scores = probabilities
        predicted = probabilities.argmax(axis=1)
        # One column per cell of the confusion matrix.
        self._cells = np.zeros((slides, classes * classes))
        self._cells[np.arange(slides), labels * classes + predicted] = 1.0
        sure = probabilities.max(axis=1).clip(0, 1)
        # The bins of scikit-learn's calibration_curve.
        place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], sure)
        self._errors = np.zeros((slides, bins))
        self._errors[np.arange(slides), place] = (predicted == labels) - sure

    def __call__(self, counts: Counts) -> dict[str, Floats]:
        """Return the metrics of samples.

        Parameters
        ----------
        counts : ndarray of int64, shape (B, S)
            How often each sample draws each slide.

        Returns
        -------
        dict of str to ndarray of float64, shape (B,)
            Values by metric; NaN where a sample does not define it.
        """
        drawn = counts.astype(np.float64)
        size = drawn.sum(axis=1)
        recall, f1 = self._of_classes(drawn)
        return {
            "auroc": self._auroc(drawn),
            "average_precision": self._average_precision(drawn),
            "balanced_accuracy": recall,
            "f1": f1,
            "ece": np.abs(drawn @ self._errors).sum(axis=1) / size,
        }

    def _of_classes(self, drawn: Floats) -> tuple[Floats, Floats]:
        """Return mean recall and F1 over the classes that occur in each sample."""
        shape = (len(drawn), self._classes, self._classes)
        confusion = (drawn @ self._cells).reshape(shape)
        right = np.diagonal(confusion, axis1=1, axis2=2)  # (B, C)
        true, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
        with np.errstate(invalid="ignore"):
            recall = np.where(true > 0, right / true, np.nan)
            f1 = np.where(true > 0, 2 * right / (true + predicted), np.nan)
        return _row_means(recall), _row_means(f1)

    def _auroc(self, drawn: Floats) -> Floats:
        # With two classes, the other's is the same.
        number = 1 if self._classes == 2 else self._classes
        return _row_means(
            np.stack([self._auroc_of(drawn, c) for c in range(number)], 1)
        )

    def _auroc_of(self, drawn: Floats, number: int) -> Floats:
        """Return the AUROC of a class; NaN in samples without it, or with it alone."""
        order, starts = _levels(self._scores[:, number])
        positive = self._positive[order, number]
        there, rest = (
            np.add.reduceat(drawn[:, order] * chosen, starts, axis=1)
            for chosen in (positive, ~positive)
        )
        # Negatives below each level of the score, and half of those on it.
        below = np.cumsum(rest, axis=1) - rest / 2
        pairs = there.sum(axis=1) * rest.sum(axis=1)
        with np.errstate(invalid="ignore"):
            found: Floats = (there * below).sum(axis=1) / pairs
        return found

    def _average_precision(self, drawn: Floats) -> Floats:
        each = [self._precision_of(drawn, c) for c in range(self._classes)]
        return _row_means(np.stack(each, axis=1))

    def _precision_of(self, drawn: Floats, number: int) -> Floats:
        """Return a class's average precision; NaN in samples without the class."""
        order, starts = _levels(-self._scores[:, number])
        positive = self._positive[order, number]
        there = np.add.reduceat(drawn[:, order] * positive, starts, axis=1)
        every = np.add.reduceat(drawn[:, order], starts, axis=1)
        right, above = np.cumsum(there, axis=1), np.cumsum(every, axis=1)
        # Where nothing is drawn yet, recall does not grow either.
        precision = right / np.maximum(above, 1.0)
        with np.errstate(invalid="ignore"):
            found: Floats = (there * precision).sum(axis=1) / there.sum(axis=1)
        return found


def _levels(values: Floats) -> tuple[Labels, Labels]:
    """Return the rising order of values, and where in it each new value starts."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    return order, starts


def _row_means(values: Floats) -> Floats:
    """Return the mean of each row's known values; NaN where none is known."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        means: Floats = np.where(known, values, 0.0).sum(axis=1) / known.sum(axis=1)
    return means
