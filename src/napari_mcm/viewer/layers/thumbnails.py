"""Thumbnails of the top patches of a map, and navigation to them."""

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
"""Side of a thumbnail in pixels."""
_LEAST_PX = 96
"""Smallest side on the screen, in pixels, of a patch that the view moves to."""


@dataclass(frozen=True, eq=False)
class TopPatch:
    """One of the patches with the highest values.

    Attributes
    ----------
    row : int
        Row of the grid.
    value : float
        Value by which patches are ranked, such as the cosine similarity.
    pixels : ndarray of uint8, shape (side, side, 3), or None
        Thumbnail; None if the patch cannot be read, or was not read yet.
    pending : bool
        Whether the patch is still to be read.
    slide : str
        Name of its slide, where patches of several slides are shown; else "".
    """

    row: int
    value: float
    pixels: Pixels | None
    pending: bool = False
    slide: str = ""


def read_thumbnails(
    slide: Slide,
    grid: PatchGrid,
    rows: Sequence[int],
    values: Sequence[float],
    side: int = THUMBNAIL_PX,
) -> list[TopPatch]:
    """Read patches of a slide as thumbnails.

    Reading can take seconds: call this in a thread.

    Parameters
    ----------
    slide : Slide
        An open slide.
    grid : PatchGrid
        Grid of the slide.
    rows : sequence of int
        Rows of the grid, best first.
    values : sequence of float
        Value of each patch.
    side : int
        Side of a thumbnail in pixels.
    """
    from napari_mcm.core.features.patches import read_patches

    patches = read_patches(slide, grid, [int(row) for row in rows])
    return [
        TopPatch(int(row), float(value), _shrunk(patch.pixels, side))
        for row, value, patch in zip(rows, values, patches, strict=True)
    ]


def go_to(layers: LayerManager, slide: Layer, grid: PatchGrid, row: int) -> None:
    """Move the view to a patch, and frame the patch.

    Parameters
    ----------
    layers : LayerManager
        Layers of the viewer.
    slide : Layer
        Layer of the slide.
    grid : PatchGrid
        Grid of the patches.
    row : int
        Row of the grid.
    """
    side = max(grid.patch_size_level0)
    layers.zoom_to(slide, centre_of(grid, row), side, _LEAST_PX)
    layers.mark(slide, grid, row)


def centre_of(grid: PatchGrid, row: int) -> tuple[float, float]:
    """Return the centre (x, y) of a patch in level-0 pixels.

    The origin is the centre of the first pixel, as in napari.
    """
    x, y = grid.centres[row] - 0.5
    return float(x), float(y)


def _shrunk(pixels: Pixels | None, side: int) -> Pixels | None:
    if pixels is None:
        return None
    from PIL import Image

    image = Image.fromarray(pixels).resize((side, side))
    return np.asarray(image)
