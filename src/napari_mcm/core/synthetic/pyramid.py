"""Writing a slide as a tiled pyramid while it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_mcm.core.runtime.files import atomic_path
from napari_mcm.core.synthetic.render import BLOCK

TILE = 256
QUALITY = 88
SMALLEST = 600
"""No level is added below one whose side in pixels is at most this."""

Pixels = NDArray[np.uint8]


def write_pyramid(
    path: Path,
    size: int,
    mpp: float,
    draw: Callable[[int, int], Pixels],
) -> None:
    """Write an OME-TIFF of JPEG tiles whose coarser levels are SubIFDs.

    Parameters
    ----------
    path : Path
        The file; it appears when it is complete.
    size : int
        Side in level-0 pixels.
    mpp : float
        Microns per level-0 pixel.
    draw : callable
        Returns the square at (y, x), shape (BLOCK, BLOCK, 3); an exception that it
        raises stops the writing.

    Raises
    ------
    McmError
        If the file cannot be written.
    """
    levels = 0
    while size >> levels > SMALLEST:
        levels += 1
    half = np.empty((size // 2, size // 2, 3), np.uint8)
    with atomic_path(path) as part, tifffile.TiffWriter(part, ome=True) as tiff:
        tiff.write(
            _draw_tiles(size, draw, half),
            shape=(size, size, 3),
            dtype=np.uint8,
            subifds=levels,
            metadata={
                "axes": "YXS",
                "PhysicalSizeX": mpp,
                "PhysicalSizeXUnit": "µm",
                "PhysicalSizeY": mpp,
                "PhysicalSizeYUnit": "µm",
            },
            **_options(mpp),
        )
        for level in range(1, levels + 1):
            tiff.write(half, subfiletype=1, **_options(mpp * 2**level))
            half = _halve(half)


def _options(mpp: float) -> dict[str, Any]:
    return {
        "tile": (TILE, TILE),
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": QUALITY},
        "resolution": (1e4 / mpp, 1e4 / mpp),
        "resolutionunit": "CENTIMETER",
        # Slides are drawn in parallel; each uses its own thread only.
        "maxworkers": 1,
    }


def _draw_tiles(
    size: int, draw: Callable[[int, int], Pixels], half: Pixels
) -> Iterator[Pixels]:
    """Yield tiles in the file's order, and fill `half` with the next level."""
    tiles = -(-size // TILE)
    width = -(-size // BLOCK) * BLOCK
    for top in range(0, size, BLOCK):
        strip = np.empty((BLOCK, width, 3), np.uint8)
        for left in range(0, size, BLOCK):
            strip[:, left : left + BLOCK] = draw(top, left)
        small = _halve(strip[: size - top, :size])
        half[top // 2 : top // 2 + len(small)] = small
        for row in range(0, min(BLOCK, size - top), TILE):
            for column in range(tiles):
                left = column * TILE
                yield strip[row : row + TILE, left : left + TILE]


def _halve(pixels: Pixels) -> Pixels:
    """Average blocks of 2×2 pixels: (H, W, 3) -> (H // 2, W // 2, 3)."""
    even = pixels[: len(pixels) // 2 * 2, : pixels.shape[1] // 2 * 2]
    total = even[::2, ::2].astype(np.uint16)
    total += even[1::2, ::2]
    total += even[::2, 1::2]
    total += even[1::2, 1::2]
    return ((total + 2) >> 2).astype(np.uint8)
