"""Classes of cells on the layer that marks them: colour, symbol, text, and a table."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mcm.viewer.cells_boxes import is_points

if TYPE_CHECKING:
    from napari.layers import Layer
    from numpy.typing import NDArray

# Okabe and Ito's palette, those first that stand out from stained tissue.
COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#F0E442"),
    *("#D55E00", "#56B4E9", "#CC79A7", "#000000"),
)
SYMBOLS = ("disc", "square", "diamond", "triangle_up", "star", "cross", "x", "ring")
UNKNOWN = "#808080"
CLASS, CONFIDENCE = "class", "confidence"
TEXTS = 500
"""Of more boxes or points than this, points have symbols only: text is slow to draw."""
_FRAME = 0.05


@dataclass(frozen=True, eq=False)
class Classified:
    """Classes of cells.

    Attributes
    ----------
    classes : tuple of str
    probabilities : ndarray of float32, shape (N, C)
        NaN where a cell could not be read.
    failed : int
        Cells that could not be read.
    """

    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    failed: int

    @property
    def winners(self) -> NDArray[np.int64]:
        """Each cell's class as a number (N,); -1 where it could not be read."""
        unread = np.isnan(self.probabilities).any(axis=1)
        best = np.nan_to_num(self.probabilities).argmax(axis=1)
        return np.where(unread, -1, best)

    @property
    def names(self) -> list[str]:
        """Each cell's class; empty where it could not be read."""
        return [self.classes[n] if n >= 0 else "" for n in self.winners]

    @property
    def confidence(self) -> NDArray[np.float32]:
        """Each cell's highest probability (N,)."""
        return np.asarray(self.probabilities.max(axis=1))

    def describe(self) -> list[tuple[str, str, str]]:
        """Give a colour, a symbol and a line for each class that was found."""
        found, winners = [], self.winners
        for number, name in enumerate(self.classes):
            own = self.confidence[winners == number]
            if len(own):
                text = f"{name}: {len(own):,}, mean confidence {own.mean():.2f}"
                found.append((colour_of(number), symbol_of(number), text))
        return found


def colour_of(number: int) -> str:
    """Give a class's colour."""
    return COLOURS[number % len(COLOURS)] if number >= 0 else UNKNOWN


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
        table[f"p_{name}"] = found.probabilities[:, number]
    return table
