"""Reading patches ahead of the encoder, each with a status of its own."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

import numpy as np

from napari_mcm.core.errors import TileError
from napari_mcm.core.features.feature_set import Status
from napari_mcm.core.features.quality import measure
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.prefetch import prefetch
from napari_mcm.core.slides import Slide
from napari_mcm.core.slides.tiles import Pixels

BLANK_RANGE = 8
"""Patches whose channels span no more grey levels than this show nothing."""

_UNIT_PIXELS = 8 * 224 * 224
_AHEAD_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Patch:
    """One patch as read.

    Attributes
    ----------
    status : Status
        Whether there is something to encode.
    pixels : ndarray of uint8, shape (side, side, 3), or None
        None where the status is not ``OK``.
    problem : str
        Why it could not be read.
    quality : mapping of str to float
        What :func:`~napari_mcm.core.features.quality.measure` says of the pixels;
        empty where there are none.
    """

    status: Status
    pixels: Pixels | None = None
    problem: str = ""
    quality: Mapping[str, float] = field(default_factory=dict)


def stream_patches(
    slide: Slide, grid: PatchGrid, start: int = 0, workers: int = 2
) -> Generator[Patch, None, None]:
    """Read a grid's patches in order, some of them ahead.

    Neighbours are read by the same thread, as they lie in the same tiles of the file.

    Parameters
    ----------
    slide : Slide
        Open.
    grid : PatchGrid
        Of this slide.
    start : int
        Index of the first patch.
    workers : int
        Threads; with 0 patches are read when they are asked for.

    Yields
    ------
    Patch
        When the generator is closed, no thread reads any more.
    """
    area = grid.patch_size**2
    unit = max(min(_UNIT_PIXELS // area, 8), 1)
    units = [range(i, min(i + unit, len(grid))) for i in range(start, len(grid), unit)]
    ahead = max(_AHEAD_BYTES // (3 * area * unit), 2 * workers)
    reading = prefetch(
        lambda rows: [read_patch(slide, grid, row) for row in rows],
        units,
        workers,
        ahead,
    )
    try:
        for patches in reading:
            yield from patches
    finally:
        reading.close()


def read_patch(slide: Slide, grid: PatchGrid, row: int) -> Patch:
    """Read one patch; a damaged tile is its status and not an error."""
    x, y = (int(n) for n in grid.xy[row])
    right, bottom = np.rint((x, y) + np.asarray(grid.patch_size_level0))
    # A corner is rounded to a whole pixel, which may move the far edge by one.
    if min(x, y) < 0 or right > slide.size[0] + 1 or bottom > slide.size[1] + 1:
        return Patch(Status.OUTSIDE)
    try:
        pixels = slide.read((x, y), (grid.patch_size, grid.patch_size), grid.mpp)
    except TileError as error:
        # Paths are this computer's; what the file is called says as much.
        reason = str(error).replace(str(slide.path), slide.name)
        return Patch(Status.DECODE_ERROR, problem=f"patch at {x},{y}: {reason}")
    if is_blank(pixels):
        return Patch(Status.BLANK)
    return Patch(Status.OK, pixels, quality=measure(pixels, grid.mpp))


def is_blank(pixels: Pixels) -> bool:
    """Tell whether a patch shows one colour only."""
    # A sample tells nearly always that it does not; only then look at all of it.
    return all(
        bool((np.ptp(part, axis=(0, 1)) <= BLANK_RANGE).all())
        for part in (pixels[::16, ::16], pixels)
    )
