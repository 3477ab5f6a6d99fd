"""Colours that tell clusters and slides apart."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

# The first ones are Okabe and Ito's; all are far from each other and from grey, on dark
# and on light.
_FIRST = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (204, 121, 167),
    (0, 114, 178),
    (136, 34, 85),
    (205, 50, 40),
    (150, 150, 60),
    (150, 110, 220),
    (110, 190, 70),
    (140, 90, 55),
    (0, 190, 190),
)

_GOLDEN = 0.618034


def distinct_colours(count: int) -> NDArray[np.uint8]:
    """Return colours that differ, the first ones most.

    Parameters
    ----------
    count : int
        How many.

    Returns
    -------
    ndarray of uint8, shape (count, 3)
        Red, green and blue; the first ones are the same for any count.
    """
    colours = [_FIRST[n] if n < len(_FIRST) else _more(n) for n in range(count)]
    return np.asarray(colours, np.uint8).reshape(count, 3)


def _more(number: int) -> tuple[int, int, int]:
    """Return a further colour: hues far from the one before, in three lightnesses."""
    hue = number * _GOLDEN % 1
    rgb = colorsys.hls_to_rgb(hue, (0.5, 0.38, 0.62)[number % 3], 0.65)
    red, green, blue = (round(255 * value) for value in rgb)
    return red, green, blue
