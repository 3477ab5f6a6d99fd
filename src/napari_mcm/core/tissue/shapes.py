"""Masks grown, shrunk and cleaned of specks, with radii in pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

_SHORT = 6.0
"""Radius in pixels up to which growing by copies is quicker than by distances."""


def grow(mask: Mask, radius: float) -> Mask:
    """Add what is no farther than a radius from a mask."""
    if radius <= _SHORT:
        return _smear(mask, radius)
    # Without anything to measure from, distances would be undefined.
    if not mask.any():
        return mask
    from scipy import ndimage

    return np.asarray(ndimage.distance_transform_edt(~mask) <= radius)


def _smear(mask: Mask, radius: float) -> Mask:
    """Grow by laying shifted copies over each other: quicker where they are few."""
    reach = int(radius)
    padded = np.pad(mask, reach)
    height, width = mask.shape
    grown = mask.copy()
    for y in range(-reach, reach + 1):
        for x in range(-reach, reach + 1):
            if 0 < y * y + x * x <= radius * radius:
                top, left = reach + y, reach + x
                grown |= padded[top : top + height, left : left + width]
    return grown


def shrink(mask: Mask, radius: float) -> Mask:
    """Take away what is no farther than a radius from a mask's outside."""
    return ~grow(~mask, radius)


def close(mask: Mask, radius: float) -> Mask:
    """Fill gaps narrower than twice a radius."""
    # Room around it, or what ends near the border would be drawn out to it.
    room = int(radius) + 1
    padded = np.pad(mask, room)
    return shrink(grow(padded, radius), radius)[room:-room, room:-room]


def open_(mask: Mask, radius: float) -> Mask:
    """Take away what is narrower than twice a radius."""
    return grow(shrink(mask, radius), radius)


def drop_small(mask: Mask, pixels: float) -> Mask:
    """Drop pieces of fewer pixels; only sides connect them, not corners."""
    from scipy import ndimage

    labels, _ = ndimage.label(mask)
    keep = np.bincount(labels.ravel()) >= pixels
    keep[0] = False
    return np.asarray(keep[labels])
