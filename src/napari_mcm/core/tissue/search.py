"""The search for tissue on a thumbnail."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.slides.tiles import DAMAGED, Pixels
from napari_mcm.core.tissue.mask import TissueConfig

# Lengths in µm: about a nucleus, a group of cells, the wall of a fat cell to the next.
_NUCLEUS, _CELLS, _GAP = 8.0, 40.0, 24.0

_STROKE, _INK_REACH = 25.0, 200.0


# Optical densities. Haze and printed spots stay below, pale fat and stroma above.
_STAINED, _FAINT, _ROUGH = 0.10, 0.015, 0.012

_LEAST_TINT, _LEAST_HUE = 0.012, 0.2

_FAINT_INK = 0.1

_DULL, _DULL_HUE = 0.04, 0.17


# A scanner that leaves parts out paints them blacker than any ink.
_UNSCANNED = 8


def search(rgb: Pixels, mpp: float, config: TissueConfig) -> Mask:
    """Find the tissue on a thumbnail.

    A pixel is tissue when it is clearly stained, or when it absorbs at all and its
    surroundings are rough as cells make them, which haze, printed spots and shading
    are not. Pen strokes are left out, and so is what has no colour: dirt.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (height, width, 3)
        The whole slide.
    mpp : float
        Its resolution in µm per pixel.
    config : TissueConfig
        Sizes of what is dropped and filled.

    Returns
    -------
    ndarray of bool, shape (height, width)
        All False where there is no tissue.
    """
    density = _density(rgb)
    foreign = _pen(density, mpp) | _dull(density, mpp)
    mask = _absorbs(density, mpp) & ~foreign
    mask = close(mask, _GAP / mpp) & ~foreign
    mask = open_(mask, _NUCLEUS / mpp)
    mask = _drop_colourless(mask, density)
    if not mask.any():
        return mask
    mask = ~drop_small(~mask, (config.max_hole_um / mpp) ** 2)
    mask = _trim(mask, density, mpp) & ~foreign
    return drop_small(mask, (config.min_object_um / mpp) ** 2)


def _density(rgb: Pixels) -> Density:
    """Turn light into absorbance; what was not scanned, or is damaged, is glass."""
    highest = lightest(rgb)
    void = ((highest == DAMAGED) & (darkest(rgb) == DAMAGED)) | (highest < _UNSCANNED)
    glass = glass_colour(rgb)
    density = optical_density(rgb, glass)
    density[void] = 0
    return density


def _absorbs(density: Density, mpp: float) -> Mask:
    from scipy import ndimage

    absorbed = mean(density)
    sigma = max(_NUCLEUS / mpp, 0.5)
    stain = ndimage.gaussian_filter(tint(density), sigma)
    dense = ndimage.gaussian_filter(absorbed, sigma)
    side = max(round(_CELLS / mpp), 3)
    variance = ndimage.uniform_filter(absorbed * absorbed, side)
    variance -= ndimage.uniform_filter(absorbed, side) ** 2
    rough = (variance > _ROUGH**2) & (dense > _FAINT)
    return np.asarray((stain > _STAINED) | rough)


def _trim(mask: Mask, density: Density, mpp: float) -> Mask:
    """Take away the rim of glass that smoothing has added."""
    rim = mask & ~shrink(mask, 2 * _NUCLEUS / mpp)
    return np.asarray(mask & ~(rim & (mean(density) < 2 * _FAINT)))


def _pen(density: Density, mpp: float) -> Mask:
    """Find marker ink in strokes rather than specks, and its faint fringe."""
    from scipy import ndimage

    strokes = open_(ink(density), _STROKE / mpp)
    if not strokes.any():
        return strokes
    near = grow(strokes, _INK_REACH / mpp)
    fringe = near & ink(density, _FAINT_INK)
    grown = ndimage.binary_propagation(strokes, mask=fringe | strokes)
    return grow(grown, _GAP / mpp)


def _dull(density: Density, mpp: float) -> Mask:
    """Find what is grey: thin black ink, dust out of focus, a cover slip's edge."""
    from scipy import ndimage

    sigma = max(_GAP / mpp, 0.5)
    # Brown and blue cells side by side are grey together, but not one by one.
    hue = ndimage.gaussian_filter(tint(density), sigma)
    dense = ndimage.gaussian_filter(mean(density), sigma)
    return np.asarray((dense > _DULL) & (hue < _DULL_HUE * dense))


def _drop_colourless(mask: Mask, density: Density) -> Mask:
    """Drop pieces that are grey as a whole: dust, ink that is too thin to be black."""
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    which, inside = labels[mask], density[mask]
    sizes = np.bincount(which, minlength=count + 1)
    tints = np.bincount(which, tint(inside), count + 1)
    densities = np.bincount(which, mean(inside), count + 1)
    keep = (tints > _LEAST_TINT * sizes) & (tints > _LEAST_HUE * densities)
    keep[0] = False
    return np.asarray(keep[labels])


Density = NDArray[np.float32]
"""Optical density above the glass, per channel: shape (height, width, 3)."""


DULLEST_GLASS = 170.0
"""Glass is brighter than this in every channel, in grey levels."""


_WHITE = 245.0

_PITCH_BLACK = 1.3

_GLASS_TINT = 0.06

_EVEN = 5.0

_LEAST_GLASS = 0.002

_BAND = 256


def lightest(values: NDArray[np.generic]) -> NDArray[Any]:
    """Give the greatest of a pixel's channels (height, width).

    Written out, this takes a tenth of the time of `max` over an axis of three.
    """
    first, second, third = np.moveaxis(values, -1, 0)
    return np.asarray(np.maximum(np.maximum(first, second), third))


def darkest(values: NDArray[np.generic]) -> NDArray[Any]:
    """Give the least of a pixel's channels (height, width)."""
    first, second, third = np.moveaxis(values, -1, 0)
    return np.asarray(np.minimum(np.minimum(first, second), third))


def tint(density: Density) -> NDArray[np.float32]:
    """Tell how far a pixel's channels lie apart (height, width): how coloured it is."""
    return np.asarray(lightest(density) - darkest(density), np.float32)


def mean(density: Density) -> NDArray[np.float32]:
    """Give the mean of a pixel's channels (height, width)."""
    first, second, third = np.moveaxis(density, -1, 0)
    return np.asarray((first + second + third) / 3, np.float32)


def glass_colour(rgb: NDArray[np.uint8]) -> Density:
    """Estimate the colour of empty glass.

    It is the most frequent colour among bright, nearly neutral pixels that are like
    their neighbours.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (height, width, 3)
        Thumbnail.

    Returns
    -------
    ndarray of float32, shape (3,)
        Near white where a crop shows no glass at all.
    """
    glass = np.concatenate([_glass(rgb, top) for top in range(0, len(rgb), _BAND)])
    if len(glass) < max(_LEAST_GLASS * rgb[..., 0].size, 4):
        return np.full(3, _WHITE, np.float32)
    levels = np.bincount(glass[:, 1], minlength=256)
    common = np.convolve(levels, np.ones(5), "same").argmax()
    near = abs(glass[:, 1].astype(np.int16) - common) <= 4
    return np.asarray(np.median(glass[near], axis=0), np.float32)


def _glass(rgb: NDArray[np.uint8], top: int) -> NDArray[np.uint8]:
    """Give the pixels (n, 3) of a band of rows that may be glass."""
    # A row more above, to tell how far its neighbours lie apart.
    band = np.maximum(rgb[max(top - 1, 0) : top + _BAND], 1)
    least = darkest(band)
    green = band[..., 1].astype(np.int16)
    step = np.zeros(green.shape, np.int16)
    step[:, 1:] += np.abs(green[:, 1:] - green[:, :-1])
    step[1:] += np.abs(green[1:] - green[:-1])
    chosen = (least > DULLEST_GLASS) & (step < _EVEN)
    chosen &= lightest(band) < 10**_GLASS_TINT * least
    chosen[: min(top, 1)] = False
    return np.asarray(band[chosen])


def optical_density(rgb: NDArray[np.uint8], glass: Density) -> Density:
    """Turn light into absorbance, 0 where it is the glass or brighter.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (..., 3)
        Pixels.
    glass : ndarray of float32, shape (3,)
        See :func:`glass_colour`.
    """
    light = np.maximum(np.arange(256, dtype=np.float32), 1)[:, None]
    table = -np.log10(np.minimum(light / glass, 1))
    density = np.empty(rgb.shape, np.float32)
    for channel in range(3):
        density[..., channel] = table[rgb[..., channel], channel]
    return density


def ink(density: Density, least: float = 0.4) -> NDArray[np.bool_]:
    """Tell which pixels have the colour of a marker's ink.

    Haematoxylin absorbs red and green alike, eosin and DAB absorb green and blue more
    than red, but none of them all but spares a channel. Blue ink absorbs red far more
    than green, green ink spares green, red ink absorbs green and blue alike and spares
    red, and black ink absorbs all three alike and much.

    Parameters
    ----------
    density : ndarray of float32, shape (..., 3)
        Optical density above the glass.
    least : float
        Density from which blue ink counts. Pale blue may be haematoxylin.

    Returns
    -------
    ndarray of bool, shape (...)
    """
    red, green, blue = np.moveaxis(density, -1, 0)
    found = (red > least) & (red > 1.4 * green)
    found |= (red > 0.7 * least) & (green < 0.75 * np.minimum(red, blue))
    found |= (green > 1.4 * least) & (blue > 0.75 * green) & (red < 0.28 * green)
    low = darkest(density)
    found |= (low > 2 * least) & (lightest(density) < 1.25 * low)
    # So dark that the ratios of what is left of the light say nothing.
    return np.asarray(found | (low > _PITCH_BLACK))


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
