"""The `Overlay`: a small image that is drawn over a slide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Overlay:
    """A small image over a slide, in two colours or RGB; NaN is transparent.

    Attributes
    ----------
    name : str
        Name of a new layer.
    raster : ndarray of float32, or of uint8, shape (height, width, 3)
        Values from 0 to 1, or an RGB image.
    origin, step : tuple of float
        Upper left corner (x, y), and width and height of a pixel, in level-0 pixels.
    colours : tuple of tuple of float, or None
        RGBA of the values 0 and 1; None for an RGB image.
    """

    name: str
    raster: Any
    origin: tuple[float, float]
    step: tuple[float, float]
    colours: tuple[tuple[float, ...], tuple[float, ...]] | None = None
