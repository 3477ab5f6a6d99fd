"""Accuracy of a classifier on labels that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import LabelError
from napari_mcm.core.labelling.classifier import fit_classifier
from napari_mcm.core.labelling.config import ClassifierConfig
from napari_mcm.core.labelling.folds import ALWAYS, deal_labels, deal_slides

Classes = NDArray[np.int64]

FOLDS = 5
_Z = 1.959963984540054


@dataclass(frozen=True)
class HeldOutAccuracy:
    """How often labels are predicted by classifiers that were not trained on them.

    Attributes
    ----------
    mean : float
        Fraction of the labels, 0 to 1.
    low, high : float
        95 % interval (Wilson); wider where slides differ from each other.
    n_folds : int
        Number of classifiers.
    by_slide : bool
        Whether whole slides were held out. Otherwise labels were, whose neighbours may
        be in the training set: the accuracy is optimistic for other slides.
    """

    mean: float
    low: float
    high: float
    n_folds: int
    by_slide: bool


def held_out_accuracy(
    features: NDArray[np.float32],
    classes: Classes,
    groups: Classes | None,
    config: ClassifierConfig,
    seed: int = 0,
) -> HeldOutAccuracy:
    """Measure the accuracy by cross-validation over the labels.

    Parameters
    ----------
    features : ndarray of float32, shape (n, D)
        Features of the labelled patches.
    classes : ndarray of int64, shape (n,)
        Class of each label.
    groups : ndarray of int64, shape (n,), or None
        Slide of each label. Whole slides are held out where all classes have labels on
        other slides.
    config : ClassifierConfig
        As for the classifier.
    seed : int, optional
        Random seed of the folds, where slides do not decide.

    Returns
    -------
    HeldOutAccuracy

    Raises
    ------
    LabelError
        If fewer than two classes have two labels.
    """
    folds = deal_labels(classes, groups, FOLDS, seed)
    kinds = np.unique(classes)
    if len(kinds) < 2 or folds is None:
        raise LabelError(
            "held-out accuracy needs two labels of each of two classes",
            hint="Label more patches",
        )
    names: Sequence[str] = [str(k) for k in range(int(classes.max()) + 1)]
    right = np.full(len(classes), np.nan)
    numbers = np.unique(folds[folds != ALWAYS])
    for fold in numbers:
        train, test = folds != fold, folds == fold
        model = fit_classifier(
            features[train], classes[train], names, config, calibrate=False
        )
        won = kinds[model.logits(features[test]).argmax(axis=1)]
        right[test] = won == classes[test]
    by_slide = groups is not None and deal_slides(classes, groups, FOLDS) is not None
    spread = _design_effect(right, groups) if by_slide and groups is not None else 1.0
    right = right[folds != ALWAYS]
    low, high = _wilson(float(right.mean()), len(right) / spread)
    return HeldOutAccuracy(float(right.mean()), low, high, len(numbers), by_slide)


def _design_effect(right: NDArray[np.float64], groups: Classes) -> float:
    """Return by how much the variance between slides exceeds that of single labels."""
    _, index = np.unique(groups, return_inverse=True)
    sizes, mean, n = np.bincount(index), right.mean(), len(right)
    binomial = mean * (1 - mean) / n
    if not binomial:
        return 1.0
    # Variance of a ratio estimated from whole clusters (Cochran, 1977).
    sums = np.bincount(index, right - mean)
    count = len(sizes)
    clustered = count / (count - 1) * np.square(sums).sum() / n**2
    return float(max(clustered / binomial, 1.0))


def _wilson(mean: float, n: float) -> tuple[float, float]:
    centre = (mean + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(mean * (1 - mean) / n + _Z**2 / (4 * n * n))
    return max(centre - half, 0.0), min(centre + half, 1.0)
