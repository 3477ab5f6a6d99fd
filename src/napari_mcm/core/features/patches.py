"""Reading patches ahead of the encoder, with a status and quality measures for each."""

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
"""Largest range of grey levels per channel in a patch that counts as blank."""


_UNIT_PIXELS = 8 * 224 * 224

_AHEAD_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Patch:
    """One patch as it was read.

    Attributes
    ----------
    status : Status
        Whether it can be encoded.
    pixels : ndarray of uint8, shape (side, side, 3), or None
        None where the status is not ``OK``.
    problem : str
        Why it could not be read; "" where it could.
    quality : mapping of str to float
        Measures from :func:`~napari_mcm.core.features.patches.measure`; empty where
        there are no pixels.
    """

    status: Status
    pixels: Pixels | None = None
    problem: str = ""
    quality: Mapping[str, float] = field(default_factory=dict)


def stream_patches(
    slide: Slide, grid: PatchGrid, start: int = 0, workers: int = 2
) -> Generator[Patch, None, None]:
    """Read a grid's patches in order, ahead of their use.

    Neighbours are read by the same thread, as they share tiles of the file.

    Parameters
    ----------
    slide : Slide
        Open.
    grid : PatchGrid
        Patches of this slide.
    start : int, optional
        Index of the first patch.
    workers : int, optional
        Reader threads; with 0, patches are read when they are needed.

    Yields
    ------
    Patch
        One patch. Closing the generator ends the threads.
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
    """Read several patches; a damaged tile becomes the status of its patches.

    Parameters
    ----------
    slide : Slide
        Open.
    grid : PatchGrid
        Patches of this slide.
    rows : sequence of int
        Indices of the patches in the grid.

    Returns
    -------
    list of Patch
        In the order of `rows`.
    """
    corners = [(int(x), int(y)) for x, y in grid.xy[list(rows)]]
    inside = [_is_inside(slide, grid, corner) for corner in corners]
    wanted = [corner for corner, it_is in zip(corners, inside, strict=True) if it_is]
    size = (grid.patch_size, grid.patch_size)
    regions = iter(slide.read_many(wanted, size, grid.mpp))
    return [
        _classify(slide, grid, corner, next(regions))
        if it_is
        else Patch(Status.OUTSIDE)
        for corner, it_is in zip(corners, inside, strict=True)
    ]


def _is_inside(slide: Slide, grid: PatchGrid, corner: tuple[int, int]) -> bool:
    right, bottom = np.rint(corner + np.asarray(grid.patch_size_level0))
    # A corner is rounded to a whole pixel, which may move the far edge by one.
    fits = right <= slide.size[0] + 1 and bottom <= slide.size[1] + 1
    return bool(min(corner) >= 0 and fits)


def _classify(
    slide: Slide, grid: PatchGrid, corner: tuple[int, int], pixels: Pixels | TileError
) -> Patch:
    """Return a patch with the status that its pixels, or its error, imply."""
    if isinstance(pixels, TileError):
        # Feature files are shared: the slide's name, without this computer's path.
        reason = str(pixels).replace(str(slide.path), slide.name)
        problem = f"patch at {corner[0]},{corner[1]}: {reason}"
        return Patch(Status.DECODE_ERROR, problem=problem)
    if is_blank(pixels):
        return Patch(Status.BLANK)
    return Patch(Status.OK, pixels, quality=measure(pixels, grid.mpp))


def is_blank(pixels: Pixels) -> bool:
    """Return whether a patch shows one colour only.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width, 3)
        A patch.

    Returns
    -------
    bool
        True where every channel spans at most `BLANK_RANGE` grey levels.
    """
    # A sample usually shows that it is not; all pixels are needed only otherwise.
    return all(
        bool((np.ptp(part, axis=(0, 1)) <= BLANK_RANGE).all())
        for part in (pixels[::16, ::16], pixels)
    )


MEASURES = ("blur", "artefact")
"""Quality measures of each patch that has features, from 0 (good) to 1 (bad)."""


FINEST_UM = 0.5

BLUR_UM = 4.5
"""Width of the box that blurs again, in µm: half a nucleus."""


_SAMPLE_UM, _SAMPLE = 2.0, 3000

_GREY, _GREY_HUE = 0.12, 0.12


# The glass is unknown for a single patch; a good scanner's is about this bright.
_DENSITY = -np.log10(np.clip(np.arange(256), 1, 245).astype(np.float32) / 245)


def measure(pixels: Pixels, mpp: float) -> dict[str, float]:
    """Compute all quality measures of a patch; see :func:`blur` and :func:`artefact`.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width, 3)
        A patch.
    mpp : float
        Its resolution in µm per pixel.

    Returns
    -------
    dict of str to float
        A value from 0 to 1 for each name of `MEASURES`.
    """
    return {"blur": blur(pixels, mpp), "artefact": artefact(pixels, mpp)}


def blur(pixels: Pixels, mpp: float) -> float:
    """Estimate how far a patch is out of focus, by blurring it again.

    A sharp image loses most of the differences between neighbours when it is averaged
    over a box, a blurred one hardly any. Pixels finer than 0.5 µm are averaged to about
    that, and the box has a width in µm, so that the measure depends little on the
    resolution up to about 1 µm per pixel. It is a ratio of sums, and so does not depend
    on the patch's size. It uses the green channel, which all stains absorb.

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
        has about 0.3. Compare patches of one stain and one scanner only.

    References
    ----------
    Crété et al., "The blur effect: perception and estimation with a new no-reference
    perceptual blur metric", SPIE 6492 (2007).
    """
    factor = max(round(FINEST_UM / mpp), 1)
    green = _binned(pixels[..., 1], factor)
    width = max(round(BLUR_UM / (mpp * factor)) // 2 * 2 + 1, 3)
    return max(_kept(green, width), _kept(green.T, width))


def artefact(pixels: Pixels, mpp: float) -> float:
    """Estimate the fraction of a patch that cannot be stained tissue.

    Counted are marker ink, black parts such as folds, pigment and dirt, and parts that
    are dark but grey, such as dust out of focus. Empty glass is not an artefact. Dense
    nuclei under ink hide its colour: of fully inked tissue, three quarters count.

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
    # A sample is enough to estimate a fraction of the area.
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
    """Return the fraction of the differences down the columns that a box blur keeps."""
    rows = len(picture) - width
    if rows < 1:
        return 1.0
    middle = width // 2
    sharp = np.abs(np.diff(picture[middle : middle + rows + 1], axis=0))
    # Two neighbouring box means differ by the pixels at the ends of the boxes.
    blurred = np.abs(picture[width:] - picture[:-width])
    total = int(sharp.sum(dtype=np.int64)) * width
    left = np.minimum(sharp * np.int16(width), blurred).sum(dtype=np.int64)
    return float(left) / total if total else 1.0
