"""Patches of a slide around given places, as a pre-training would have read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.grid import GridConfig, common_mpp
from napari_mcm.core.slides import Slide


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What lies around a place of a slide.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (side, side, 3)
    name : str
        Slide, place and width, for people.
    corner, extent : tuple of float
        Upper left corner (x, y) and size, in level-0 pixels.
    """

    pixels: NDArray[np.uint8]
    name: str
    corner: tuple[float, float]
    extent: tuple[float, float]


def read_around(
    slide: Slide, place: tuple[float, float], grid: GridConfig
) -> Surroundings:
    """Read the patch around a place.

    Parameters
    ----------
    slide : Slide
        Of known resolution.
    place : tuple of float
        x and y, in level-0 pixels.
    grid : GridConfig
        Size and resolution of patches.

    Raises
    ------
    SlideError
        If the slide's resolution is not known.
    TileError
        If a tile under it cannot be decoded.
    """
    mpp, side = common_mpp([slide], grid), grid.patch_size
    width, height = (side * mpp / own for own in slide.mpp)
    x, y = place
    corner = x - width / 2, y - height / 2
    return Surroundings(
        slide.read(corner, (side, side), mpp),
        f"{slide.name} at {x:,.0f}, {y:,.0f}, {side * mpp:.4g}\u00a0µm wide",
        corner,
        (width, height),
    )
