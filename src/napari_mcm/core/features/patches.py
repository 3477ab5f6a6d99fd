"""Reading patches ahead of the encoder, each with a status of its own."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import TileError
from napari_mcm.core.features.feature_set import Status
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.runtime.threads import prefetch
from napari_mcm.core.slides import Slide
from napari_mcm.core.slides.tiles import Pixels
from napari_mcm.core.tissue.search import ink

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
        What :func:`~napari_mcm.core.features.patches.measure` says of the pixels;
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


MEASURES = ("blur", "artefact")
"""What is measured on each patch that has features: 0 is good, 1 is bad."""


FINEST_UM = 0.5

BLUR_UM = 4.5
"""Side of the box that blurs again: half a nucleus."""


_SAMPLE_UM, _SAMPLE = 2.0, 3000

_GREY, _GREY_HUE = 0.12, 0.12


# Nobody knows a single patch's glass; that of a good scanner is about this bright.
_DENSITY = -np.log10(np.clip(np.arange(256), 1, 245).astype(np.float32) / 245)


def measure(pixels: Pixels, mpp: float) -> dict[str, float]:
    """Give every measure of a patch by its name; see :func:`blur`, :func:`artefact`."""
    return {"blur": blur(pixels, mpp), "artefact": artefact(pixels, mpp)}


def blur(pixels: Pixels, mpp: float) -> float:
    """Tell how far a patch is out of focus, by what blurring it again takes away.

    Crété et al., "The blur effect: perception and estimation with a new no-reference
    perceptual blur metric", SPIE 6492 (2007), on the green channel, which all stains
    absorb. A sharp picture loses most of the differences between neighbours when it is
    averaged over a box, a blurred one hardly any. Pixels finer than 0.5 µm are averaged
    to about that, and the box has a width in µm, so that the measure depends little on
    the resolution up to about 1 µm per pixel; it is a ratio of sums, and so does not
    depend on the patch's size.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width, 3)
        A patch.
    mpp : float
        Its resolution in µm per pixel.

    Returns
    -------
    float
        0 sharp to 1 blurred; 1 where neighbours do not differ at all. Tissue in focus
        has about 0.3, compare patches of one stain and one scanner.
    """
    factor = max(round(FINEST_UM / mpp), 1)
    green = _binned(pixels[..., 1], factor)
    width = max(round(BLUR_UM / (mpp * factor)) // 2 * 2 + 1, 3)
    return max(_kept(green, width), _kept(green.T, width))


def artefact(pixels: Pixels, mpp: float) -> float:
    """Tell which part of a patch no stained tissue can be.

    That is marker ink, what is black as folds, pigment and dirt are, and what is dark
    but grey, as dust out of focus is. Empty glass is no artefact. Dense nuclei under
    ink hide its colour: of tissue that is wholly inked, three quarters count.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width, 3)
        A patch.
    mpp : float
        Its resolution in µm per pixel.

    Returns
    -------
    float
        0 to 1.
    """
    # A part of the area needs no more than a sample.
    few = math.sqrt(pixels.shape[0] * pixels.shape[1] / _SAMPLE)
    step = max(round(_SAMPLE_UM / mpp), round(few), 1)
    red, green, blue = planes = _DENSITY[np.moveaxis(pixels[::step, ::step], -1, 0)]
    tint = np.maximum(np.maximum(red, green), blue)
    tint -= np.minimum(np.minimum(red, green), blue)
    mean = (red + green + blue) / 3
    grey = (mean > _GREY) & (tint < _GREY_HUE * mean)
    return float((grey | ink(np.moveaxis(planes, 0, -1))).mean())


def _binned(channel: NDArray[np.uint8], factor: int) -> NDArray[np.int16]:
    """Average squares of pixels."""
    if factor == 1:
        return channel.astype(np.int16)
    height, width = (n // factor * factor for n in channel.shape)
    sums = np.zeros((height // factor, width // factor), np.int32)
    for row in range(factor):
        for column in range(factor):
            sums += channel[row:height:factor, column:width:factor]
    return (sums // factor**2).astype(np.int16)


def _kept(picture: NDArray[np.int16], width: int) -> float:
    """Tell which part of the differences down its columns a box blur leaves."""
    rows = len(picture) - width
    if rows < 1:
        return 1.0
    middle = width // 2
    sharp = np.abs(np.diff(picture[middle : middle + rows + 1], axis=0))
    # Two neighbouring means differ by the pixels at the ends of their boxes.
    blurred = np.abs(picture[width:] - picture[:-width])
    total = int(sharp.sum(dtype=np.int64)) * width
    left = np.minimum(sharp * np.int16(width), blurred).sum(dtype=np.int64)
    return float(left) / total if total else 1.0
