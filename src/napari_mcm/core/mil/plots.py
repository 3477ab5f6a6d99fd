"""Plots of a classifier's metrics, without pyplot: no window, no state, any thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from napari_mcm.core.mil.metrics import Predictions, calibration
from napari_mcm.core.runtime.files import atomic_path
from napari_mcm.core.runtime.jobs import Job, Meter

# Okabe and Ito's palette, which is distinguishable with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_QUIET = "#707070"
_SIDE = 3.6
"""Side of the confusion matrix in inches: a dock shows it about 300 px wide."""
_NAME = 12
"""Letters of a class name in one line."""


def write_plots(folder: Path, predictions: Predictions, bins: int) -> Job[list[Path]]:
    """Write ROC, precision-recall, reliability and confusion plots, as a job.

    Each is written as PNG and SVG.

    Parameters
    ----------
    folder : Path
        Folder of the run; the plots go to ``plots`` inside it.
    predictions : Predictions
        Predictions of the test slides.
    bins : int
        Bins of the reliability curve.

    Yields
    ------
    Event
        Progress in figures.

    Returns
    -------
    list of Path
        The files.
    """
    draw: dict[str, Callable[[], Figure]] = {
        "roc": lambda: draw_roc(predictions),
        "precision_recall": lambda: draw_precision_recall(predictions),
        "reliability": lambda: draw_reliability(predictions, bins),
        "confusion": lambda: draw_confusion(predictions),
    }
    written, meter = [], Meter("Drawing figures", len(draw), "figures")
    for name, make in draw.items():
        yield meter.progress()
        figure = make()
        for ending in ("png", "svg"):
            path = folder / "plots" / f"{name}.{ending}"
            with atomic_path(path) as part:
                figure.savefig(part, dpi=150)
            written.append(path)
        meter.advance()
    return written


def draw_roc(predictions: Predictions) -> Figure:
    """Draw the pooled ROC curve of each class, thin lines for folds, and chance.

    Parameters
    ----------
    predictions : Predictions
        Predictions of the test slides.

    Returns
    -------
    matplotlib.figure.Figure
        The plot; for two classes, the second class only.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    figure, ax = _square("false positive rate", "true positive rate")
    ax.plot([0, 1], [0, 1], color=_QUIET, linestyle=":", linewidth=1)
    for number, colour in _shown(predictions):
        for fold in dict.fromkeys(predictions.folds):
            part = predictions.of_fold(fold)
            positive = part.labels == number
            if 0 < positive.sum() < len(positive):
                x, y, _ = roc_curve(positive, part.probabilities[:, number])
                ax.plot(x, y, color=colour, linewidth=0.6, alpha=0.4)
        positive = predictions.labels == number
        if 0 < positive.sum() < len(positive):
            scores = predictions.probabilities[:, number]
            x, y, _ = roc_curve(positive, scores)
            area = roc_auc_score(positive, scores)
            label = f"{predictions.classes[number]}: {area:.3f}"
            ax.plot(x, y, color=colour, linewidth=2, label=label)
    _legend(ax, "AUROC, pooled over folds")
    return figure


def draw_precision_recall(predictions: Predictions) -> Figure:
    """Draw the pooled precision-recall curve of each class, and its frequency.

    Parameters
    ----------
    predictions : Predictions
        Predictions of the test slides.

    Returns
    -------
    matplotlib.figure.Figure
        The plot; for two classes, the second class only.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

    figure, ax = _square("recall", "precision")
    for number, colour in _shown(predictions):
        positive = predictions.labels == number
        if not positive.any():
            continue
        scores = predictions.probabilities[:, number]
        precision, recall, _ = precision_recall_curve(positive, scores)
        area = average_precision_score(positive, scores)
        label = f"{predictions.classes[number]}: {area:.3f}"
        ax.step(recall, precision, color=colour, linewidth=2, label=label, where="post")
        ax.axhline(positive.mean(), color=colour, linestyle=":", linewidth=1)
    _legend(ax, "average precision (dotted: frequency of the class)")
    return figure


def draw_reliability(predictions: Predictions, bins: int) -> Figure:
    """Draw how often the winning class is right against its probability.

    Parameters
    ----------
    predictions : Predictions
        Predictions of the test slides.
    bins : int
        Number of bins.

    Returns
    -------
    matplotlib.figure.Figure
        The plot, with the number of slides per bin.
    """
    curve = calibration(predictions.labels, predictions.probabilities, bins)
    figure, ax = _square("mean confidence", "fraction correct")
    ax.plot([0, 1], [0, 1], color=_QUIET, linestyle=":", linewidth=1)
    ax.plot(curve.confidence, curve.correct, "o-", color=COLOURS[0], linewidth=1.6)
    for x, y, count in zip(curve.confidence, curve.correct, curve.counts, strict=True):
        ax.annotate(
            str(count), (x, y), (4, -10), textcoords="offset points", fontsize=7
        )
    ax.set_title(f"ECE {curve.error:.3f} (numbers: slides)", loc="left", fontsize=9)
    return figure


def draw_confusion(predictions: Predictions) -> Figure:
    """Draw the confusion matrix: counts, coloured by their fraction of the true class.

    Parameters
    ----------
    predictions : Predictions
        Predictions of the test slides.

    Returns
    -------
    matplotlib.figure.Figure
        The plot.
    """
    from sklearn.metrics import confusion_matrix

    names = predictions.classes
    winners = predictions.probabilities.argmax(axis=1)
    matrix = confusion_matrix(predictions.labels, winners, labels=range(len(names)))
    figure, ax = _square("predicted", "true")
    figure.set_size_inches(_SIDE, _SIDE)
    # Colour by the true class, so that rare classes are visible beside common ones.
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = _number_size(len(names))
    for row in range(len(names)):
        for column in range(len(names)):
            share = shares[row, column]
            text = f"{matrix[row, column]:,}\n{100 * share:.0f} %"
            colour = readable_on(image.cmap(share))
            cell = ax.text(column, row, text, fontsize=size, color=colour)
            cell.set(ha="center", va="center")
    labels = [fill(name.replace("_", " "), _NAME) for name in names]
    ax.set_xticks(range(len(names)), labels, rotation=30, ha="right")
    ax.set_yticks(range(len(names)), labels)
    ax.tick_params(labelsize=min(size, 11), colors="black")
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set_fontsize(11)
    ax.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
    return figure


def readable_on(ground: Sequence[float]) -> str:
    """Return the colour of text, black or white, that is read best on a ground.

    Parameters
    ----------
    ground : sequence of float
        Red, green and blue from 0 to 1.

    Returns
    -------
    str
        That with the greater contrast, by WCAG's relative luminance.
    """
    channels = np.asarray(ground[:3])
    linear = np.where(
        channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
    )
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "black" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "white"


def _number_size(classes: int) -> float:
    """Return the font size of a cell's numbers, in points."""
    return max(6.0, min(14.0, 34.0 / classes))


def _shown(predictions: Predictions) -> list[tuple[int, str]]:
    """Return the classes to draw and their colours; of two classes only the second."""
    # The first of two classes has the mirrored curve.
    count = len(predictions.classes)
    numbers = [1] if count == 2 else list(range(count))
    return [(number, COLOURS[i % len(COLOURS)]) for i, number in enumerate(numbers)]


def _square(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, 4.4), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    ax.set_xlabel(x, fontsize=9)
    ax.set_ylabel(y, fontsize=9)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    ax.tick_params(labelsize=8, colors=_QUIET)
    ax.spines[["top", "right"]].set_visible(False)
    return figure, ax


def _legend(ax: Axes, title: str) -> None:
    ax.set_title(title, loc="left", fontsize=9)
    ax.legend(frameon=False, fontsize=8, loc="lower right")
