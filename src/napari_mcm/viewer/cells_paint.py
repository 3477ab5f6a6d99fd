"""Classes of cells on the layer that marks them: colour, symbol, text, and a table."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mcm.core.mae.classifier.classified import (
    CLASS,
    CONFIDENCE,
    PROBABILITY,
    Classified,
    colour_of,
)
from napari_mcm.viewer.cells_boxes import is_points

if TYPE_CHECKING:
    from napari.layers import Layer

SYMBOLS = ("disc", "square", "diamond", "triangle_up", "star", "cross", "x", "ring")
TEXTS = 500
"""Of more boxes or points than this, points have symbols only: text is slow to draw."""
_FRAME = 0.05


def symbol_of(number: int) -> str:
    """Give a class's symbol."""
    return SYMBOLS[number % len(SYMBOLS)] if number >= 0 else "vbar"


def paint(layer: Layer, found: Classified) -> None:
    """Write classes into a layer's features table, and colour it by them.

    Parameters
    ----------
    layer : Shapes or Points
        What was classified; its other features stay.
    found : Classified
        In the layer's order.
    """
    layer.features = _table(layer, found)
    colours = [colour_of(number) for number in found.winners]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if is_points(layer):
            layer.face_color = colours
            layer.border_color = ["white"] * len(colours)
            layer.symbol = [symbol_of(number) for number in found.winners]
        else:
            # The cell itself is to be seen, and its frame from afar.
            layer.face_color = "transparent"
            layer.edge_color = colours
            layer.edge_width = _FRAME * _side(layer)
            layer.opacity = 1.0
        if len(colours) <= TEXTS or not is_points(layer):
            layer.text = {
                "string": "{class}\n{confidence:.2f}",
                "size": 9,
                "color": "black",
                "anchor": "upper_left",
            }


def _side(layer: Any) -> float:
    """Give the usual side of a layer's boxes, in its own pixels."""
    spans = [np.ptp(np.asarray(corners)[:, -2:], axis=0) for corners in layer.data]
    return float(np.median(spans)) if spans else 1.0


def _table(layer: Layer, found: Classified) -> Any:
    table = layer.features.copy()
    table[CLASS] = found.names
    table[CONFIDENCE] = found.confidence
    for number, name in enumerate(found.classes):
        table[f"{PROBABILITY}{name}"] = found.probabilities[:, number]
    return table
