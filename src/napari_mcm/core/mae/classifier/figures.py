"""Figures of classifiers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from napari_mcm.core.heatmaps.panels import DPI, FONT
from napari_mcm.core.mae.classifier.scores import Scores

_SMALL = {**FONT, "size": 7.0}


def draw_confusion(scores: Scores, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix: counts, on the shade of their share of the true class."""
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
