"""Where pictures lie in a slide's world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mcm.viewer.slide_facts import KEY

if TYPE_CHECKING:
    from napari.layers import Layer

Pair = Sequence[float]
CORNER, PIXEL = (0.0, 0.0), (1.0, 1.0)


def placed(slide: Layer | None, origin: Pair, step: Pair) -> tuple[Any, Any]:
    """Tell where a picture lies in a slide's world.

    Parameters
    ----------
    slide : Layer or None
        The slide's layer; None for a picture in pixels of its own.
    origin, step : sequence of float
        Upper left corner (x, y), and a pixel's width and height, in level-0 pixels.

    Returns
    -------
    tuple of ndarray
        Scale and translation (y, x) of the picture's layer.
    """
    corner, size = np.asarray(origin[::-1], float), np.asarray(step[::-1], float)
    if slide is None:
        return size, corner
    # Pixels have their centres at whole numbers, so larger ones begin further out.
    return slide.scale * size, slide.translate + slide.scale * (corner + (size - 1) / 2)


def place(
    layer: Layer, slide: Layer | None, origin: Pair = CORNER, step: Pair = PIXEL
) -> bool:
    """Put a layer where :func:`placed` tells; gives whether it was elsewhere.

    To set the same place again would have the viewer work out the extent of all layers,
    which takes longer than a query.
    """
    scale, translate = placed(slide, origin, step)
    here = np.array_equal(layer.scale, scale)
    if here and np.array_equal(layer.translate, translate):
        return False
    layer.scale, layer.translate = scale, translate
    return True


def on_slide(
    slide: Layer | None,
    kind: str,
    origin: Pair = CORNER,
    step: Pair = PIXEL,
    **facts: str,
) -> dict[str, Any]:
    """Give what a new layer is made with: its place, and how it is known again.

    Units and axes are the slide's: one layer of others would have napari ignore all.
    """
    scale, translate = placed(slide, origin, step)
    made = {
        "scale": scale,
        "translate": translate,
        "metadata": {KEY: {"kind": kind, **facts}},
    }
    if slide is not None:
        made |= {"units": slide.units, "axis_labels": slide.axis_labels}
    return made
