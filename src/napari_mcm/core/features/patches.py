"""Reading patches ahead of the encoder, each with a status of its own."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
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
        lambda rows: read_patches(slide, grid, rows),
        units,
        workers,
        ahead,
    )
    try:
        for patches in reading:
            yield from patches
    finally:
        reading.close()


def read_patches(slide: Slide, grid: PatchGrid, rows: Sequence[int]) -> list[Patch]:
    """Read some patches; a damaged tile is a status of its patches and not an error."""
    corners = [(int(x), int(y)) for x, y in grid.xy[list(rows)]]
    inside = [_is_inside(slide, grid, corner) for corner in corners]
    wanted = [corner for corner, it_is in zip(corners, inside, strict=True) if it_is]
    size = (grid.patch_size, grid.patch_size)
    found = iter(slide.read_many(wanted, size, grid.mpp))
    return [
        _judged(slide, grid, corner, next(found)) if it_is else Patch(Status.OUTSIDE)
        for corner, it_is in zip(corners, inside, strict=True)
    ]


def read_patch(slide: Slide, grid: PatchGrid, row: int) -> Patch:
    """Read one patch; see :func:`read_patches`."""
    return read_patches(slide, grid, [row])[0]


def _is_inside(slide: Slide, grid: PatchGrid, corner: tuple[int, int]) -> bool:
    right, bottom = np.rint(corner + np.asarray(grid.patch_size_level0))
    # A corner is rounded to a whole pixel, which may move the far edge by one.
    fits = right <= slide.size[0] + 1 and bottom <= slide.size[1] + 1
    return bool(min(corner) >= 0 and fits)


def _judged(
    slide: Slide, grid: PatchGrid, corner: tuple[int, int], pixels: Pixels | TileError
) -> Patch:
    """Give what was read its status."""
    if isinstance(pixels, TileError):
        # Paths are this computer's; what the file is called says as much.
        reason = str(pixels).replace(str(slide.path), slide.name)
        problem = f"patch at {corner[0]},{corner[1]}: {reason}"
        return Patch(Status.DECODE_ERROR, problem=problem)
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
