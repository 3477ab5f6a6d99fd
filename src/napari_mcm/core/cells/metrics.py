"""Metrics of cell classifiers, beside those of the majority-class baseline.

Precision, recall and F1 are macro-averaged over the classes that have images. The
expected calibration error compares the highest probability with how often it is right,
in bins B_k of equal width (Guo et al., ICML 2017)::

    ECE = Σ_k |B_k| / N · | accuracy(B_k) - confidence(B_k) |
    NLL = - 1/N Σ_i log p_i(y_i)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
)

from napari_mcm.core.heatmaps.panels import DPI, FONT

UNRELIABLE = 10
"""Metrics of a class with fewer test images than this are marked as unreliable."""

# As in Guo et al.
BINS = 15

# A probability of 0 for the true class would make the mean infinite.
_LEAST = 1e-12


Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Scores:
    """Metrics of predictions.

    Attributes
    ----------
    values : dict of str to float
        ``accuracy``; ``precision``, ``recall`` and ``f1``, macro-averaged over the classes
        that have images; ``balanced_accuracy``; ``ece``; ``nll``.
    by_class : dict of str to dict
        ``precision``, ``recall``, ``f1`` and ``support`` of each class.
    confusion : ndarray of int64, shape (C, C)
        True classes in rows, predicted ones in columns.
    majority : dict of str to float
        Metrics of predicting the most frequent class for every image.
    unreliable : tuple of str
        Classes with few images, or none.
    """

    values: dict[str, float]
    by_class: dict[str, dict[str, float]]
    confusion: NDArray[np.int64]
    majority: dict[str, float]
    unreliable: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """Return the metrics ready for JSON.

        Returns
        -------
        dict of str to Any
            Nested dicts and lists.
        """
        return {
            "scores": self.values,
            "majority": self.majority,
            "by_class": self.by_class,
            "confusion": self.confusion.tolist(),
            "unreliable": list(self.unreliable),
        }


def score(
    probabilities: Floats, targets: NDArray[np.int64], classes: Sequence[str]
) -> Scores:
    """Compute all metrics of predictions.

    Parameters
    ----------
    probabilities : ndarray of floating, shape (N, C)
        Predicted probabilities.
    targets : ndarray of int64, shape (N,)
        True classes.
    classes : sequence of str
        Names of the C classes.

    Returns
    -------
    Scores
        The metrics.
    """
    everywhere = range(len(classes))
    predicted = probabilities.argmax(axis=1)
    parts = precision_recall_fscore_support(
        targets, predicted, labels=everywhere, zero_division=0
    )
    names = ("precision", "recall", "f1", "support")
    by_class = {
        name: {what: float(part[n]) for what, part in zip(names, parts, strict=True)}
        for n, name in enumerate(classes)
    }
    # The majority class of the test images: the best that a constant can do.
    commonest = np.bincount(targets, minlength=len(classes)).argmax()
    vote = np.eye(len(classes))[np.full(len(targets), commonest)]
    few = tuple(n for n in classes if by_class[n]["support"] < UNRELIABLE)
    return Scores(
        {
            **_of_labels(predicted, targets),
            "ece": calibration_error(probabilities, targets),
            "nll": negative_log_likelihood(probabilities, targets),
        },
        by_class,
        np.asarray(confusion_matrix(targets, predicted, labels=everywhere), np.int64),
        _of_labels(vote.argmax(axis=1), targets),
        few,
    )


def calibration_error(
    probabilities: Floats, targets: NDArray[np.int64], bins: int = BINS
) -> float:
    """Return the expected calibration error: how far confidence is from accuracy.

    Guo et al., "On calibration of modern neural networks", ICML 2017: over bins of
    equal width of the highest probability, weighted by their number of images.

    Parameters
    ----------
    probabilities : ndarray of floating, shape (N, C)
        Predicted probabilities.
    targets : ndarray of int64, shape (N,)
        True classes.
    bins : int, optional
        Number of bins.

    Returns
    -------
    float
        Between 0 and 1.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    # Bins are open on the left, as in Guo et al.
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    error = 0.0
    for number in range(bins):
        inside = which == number
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            error += float(inside.mean() * gap)
    return error


def negative_log_likelihood(probabilities: Floats, targets: NDArray[np.int64]) -> float:
    """Return the mean negative logarithm of the probability of the true class.

    Parameters
    ----------
    probabilities : ndarray of floating, shape (N, C)
        Predicted probabilities.
    targets : ndarray of int64, shape (N,)
        True classes.

    Returns
    -------
    float
        In nats.
    """
    true = probabilities[np.arange(len(targets)), targets]
    return float(-np.log(np.maximum(true, _LEAST)).mean())


def score_lines(scores: Scores) -> list[str]:
    """Format metrics as lines of text.

    Parameters
    ----------
    scores : Scores
        The metrics.

    Returns
    -------
    list of str
        Aligned columns.
    """
    values, vote = scores.values, scores.majority
    lines = [f"{'':<20} score   majority"]
    lines += [
        f"{name:<20} {value:.4f}  {_or_dash(vote, name)}"
        for name, value in values.items()
    ]
    lines.append(f"{'class':<20} precision  recall  F1      images")
    for name, part in scores.by_class.items():
        mark = "  few" if name in scores.unreliable else ""
        lines.append(
            f"{name:<20} {part['precision']:.4f}     {part['recall']:.4f}  "
            f"{part['f1']:.4f}  {part['support']:.0f}{mark}"
        )
    return lines


def _of_labels(
    predicted: NDArray[np.int64], targets: NDArray[np.int64]
) -> dict[str, float]:
    # A class without images has no recall: it must not count as 0 in the mean.
    present = np.unique(targets)
    precision, recall, f1, _ = precision_recall_fscore_support(
        targets, predicted, labels=present, average="macro", zero_division=0
    )
    return {
        "accuracy": float((predicted == targets).mean()),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "balanced_accuracy": _balanced(predicted, targets),
    }


def _balanced(predicted: NDArray[np.int64], targets: NDArray[np.int64]) -> float:
    import warnings

    with warnings.catch_warnings():
        # scikit-learn warns when a class is predicted that no image has.
        warnings.simplefilter("ignore", UserWarning)
        return float(balanced_accuracy_score(targets, predicted))


def _or_dash(values: Mapping[str, float], name: str) -> str:
    return f"{values[name]:.4f}" if name in values else "-"


_SMALL = {**FONT, "size": 7.0}


def draw_confusion(scores: Scores, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix: counts, coloured by their fraction of the true class.

    Parameters
    ----------
    scores : Scores
        The metrics.
    classes : sequence of str
        Names of the classes.

    Returns
    -------
    matplotlib.figure.Figure
        Classes with few images are marked by a star.
    """
    counts = scores.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 0.7 * len(classes) + 1.6
    figure = Figure(figsize=(side, side), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        ink = "white" if shares[row, column] > 0.6 else "black"
        text = str(counts[row, column])
        ax.text(column, row, text, ha="center", va="center", size=8, color=ink)
    marks = [f"{n}*" if n in scores.unreliable else n for n in classes]
    ax.set_xticks(range(len(classes)), classes, rotation=40, ha="right", **_SMALL)
    ax.set_yticks(range(len(classes)), marks, **_SMALL)
    ax.set_xlabel("predicted", **_SMALL)
    ax.set_ylabel("true (* under 10 images)", **_SMALL)
    return figure
