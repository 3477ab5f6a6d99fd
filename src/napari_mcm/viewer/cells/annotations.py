"""Read cells that are marked by boxes or points, and colour them by class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mcm.core.cells import annotations as marks
from napari_mcm.core.cells.classified import (
    CLASS,
    CONFIDENCE,
    PROBABILITY,
    Classified,
    colour_of,
)
from napari_mcm.core.mae.pictures import on_white
from napari_mcm.viewer.layers.metadata import SlideMetadata, slide_of

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.cells.annotations import Crop
    from napari_mcm.core.cells.datasets import Box
    from napari_mcm.core.mae.pictures import Pixels


_CHANNELS = (3, 4)


def is_points(layer: Layer) -> bool:
    """Return whether a layer has points, not shapes."""
    return type(layer).__name__ == "Points"


def boxes_of(layer: Layer, image: Layer, side: int, margin: float) -> list[Box]:
    """Return a square box for each shape or point of a layer, in image pixels.

    Parameters
    ----------
    layer : Shapes or Points
        Marks the cells.
    image : Layer
        Image with the cells.
    side : int
        Side of boxes around points, in pixels of the image.
    margin : float
        Margin around shapes, as a fraction of their longer side.

    Raises
    ------
    ValueError
        With one line, if nothing is marked, or the layers have different units.
    """
    if not len(layer.data):
        raise ValueError(f"{layer.name} is empty: draw boxes or points first")
    known = [str(unit) for own in (layer, image) for unit in own.units]
    if "pixel" not in known and len(set(known)) > 1:
        raise ValueError(f"{layer.name} and {image.name} have different units: {known}")
    size = size_of(image)
    return [_box(layer, image, one, (side, margin), size) for one in layer.data]


def size_of(image: Layer) -> tuple[int, int]:
    """Return the width and height of an image at full resolution, in pixels."""
    metadata = SlideMetadata.of_layer(image)
    if metadata is not None:
        return metadata.size
    height, width = _array(image).shape[:2]
    return int(width), int(height)


def crop_of(image: Layer) -> Crop:
    """Return a function that reads a box of an image; for a thread.

    Raises
    ------
    ValueError
        With one line, if the pixels are not 8-bit colors.
    """
    slide = slide_of(image)
    if slide is not None:
        return marks.crop_of(slide)
    array = _array(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in _CHANNELS:
        raise ValueError(f"{image.name} is not an 8-bit color image")

    def read(box: Box) -> Pixels:
        left, top, right, bottom = box
        return on_white(np.asarray(array[top:bottom, left:right]))

    return marks.checked(size_of(image), read)


def _array(image: Any) -> Any:
    return image.data[0] if image.multiscale else image.data


def _box(
    layer: Layer,
    image: Layer,
    one: Any,
    how: tuple[int, float],
    size: tuple[int, int],
) -> Box:
    side, margin = how
    corners = np.atleast_2d(np.asarray(one, float))
    places = np.array([_place(layer, image, corner) for corner in corners])
    low, high = places.min(axis=0), places.max(axis=0)
    if is_points(layer):
        low, high, margin = low - side / 2, high + side / 2, 0.0
    left, top, right, bottom = map(float, (*low, *high))
    return marks.square_around((left, top, right, bottom), size, margin)


def _place(layer: Layer, image: Layer, corner: Sequence[float]) -> tuple[float, float]:
    # napari counts from the centre of the first pixel, pictures from its corner.
    y, x = image.world_to_data(layer.data_to_world(corner)[-image.ndim :])[-2:]
    return float(x) + 0.5, float(y) + 0.5


SYMBOLS = ("disc", "square", "diamond", "triangle_up", "star", "cross", "x", "ring")

TEXTS = 500
"""With more boxes or points than this, points have no text, which is slow to draw."""

_FRAME = 0.05


def symbol_of(number: int) -> str:
    """Return the symbol of a class."""
    return SYMBOLS[number % len(SYMBOLS)] if number >= 0 else "vbar"


def paint(layer: Layer, found: Classified) -> None:
    """Write classes into a layer's features table, and color it by class.

    Parameters
    ----------
    layer : Shapes or Points
        The classified layer; its other features stay.
    found : Classified
        Classes in the order of the layer.
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
            # The cell stays visible, and its frame from a distance.
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
    """Return the median side of a layer's boxes, in its pixels."""
    spans = [np.ptp(np.asarray(corners)[:, -2:], axis=0) for corners in layer.data]
    return float(np.median(spans)) if spans else 1.0


def _table(layer: Layer, found: Classified) -> Any:
    table = layer.features.copy()
    table[CLASS] = found.names
    table[CONFIDENCE] = found.confidence
    for number, name in enumerate(found.classes):
        table[f"{PROBABILITY}{name}"] = found.probabilities[:, number]
    return table
