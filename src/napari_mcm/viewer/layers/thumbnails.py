"""The best patches of a map as thumbnails, and the way to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.grid import PatchGrid
    from napari_mcm.core.slides import Slide
    from napari_mcm.core.slides.tiles import Pixels
    from napari_mcm.viewer.layers.manager import LayerManager

THUMBNAIL_PX = 72
_LEAST_PX = 96
"""A patch that is gone to is at least so large on the screen."""


@dataclass(frozen=True, eq=False)
class TopPatch:
    """One of the patches of greatest value.

    Attributes
    ----------
    row : int
        Of the grid.
    value : float
        What it is one of the best by.
    pixels : ndarray of uint8, shape (side, side, 3), or None
        None where it cannot be read.
    """

    row: int
    value: float
    pixels: Pixels | None


def read_thumbnails(
    slide: Slide, grid: PatchGrid, rows: Sequence[int], values: Sequence[float]
) -> list[TopPatch]:
    """Read patches as thumbnails; takes as long as a slide does, so not in the window.

    Parameters
    ----------
    slide : Slide
        Open.
    grid : PatchGrid
        Of this slide.
    rows : sequence of int
        Which patches, best first.
    values : sequence of float
        What each is one of the best by.
    """
    from napari_mcm.core.features.patches import read_patches

    patches = read_patches(slide, grid, [int(row) for row in rows])
    return [
        TopPatch(int(row), float(value), _shrunk(patch.pixels))
        for row, value, patch in zip(rows, values, patches, strict=True)
    ]


def go_to(layers: LayerManager, slide: Layer, grid: PatchGrid, row: int) -> None:
    """Have the viewer look at a patch, and frame it."""
    side = max(grid.patch_size_level0)
    layers.look_at(slide, centre_of(grid, row), side, _LEAST_PX)
    layers.mark(slide, grid, row)


def centre_of(grid: PatchGrid, row: int) -> tuple[float, float]:
    """Return a patch's centre (x, y) in level-0 pixels, counted from pixels' centres."""
    x, y = grid.centres[row] - 0.5
    return float(x), float(y)


def _shrunk(pixels: Pixels | None) -> Pixels | None:
    if pixels is None:
        return None
    from PIL import Image

    image = Image.fromarray(pixels).resize((THUMBNAIL_PX, THUMBNAIL_PX))
    return np.asarray(image)
