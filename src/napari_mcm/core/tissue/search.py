"""Tissue search on a thumbnail of the slide.

Pixels become optical density above the glass, per channel,

    D = -log10(min(I / I_glass, 1)),

where I_glass is the most frequent colour of bright, nearly neutral, even pixels. A
pixel is tissue when it is clearly stained (the smoothed range of D over the channels is
above 0.10), or when it absorbs light and its surroundings are rough (the standard
deviation of the mean density within 40 µm is above 0.012), as cells are and haze,
printed spots and shading are not. Marker ink, found by the ratios of its channels, and
grey dirt are taken out. Closing, opening and the removal of small pieces and holes give
the mask; all lengths are in microns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.slides.tiles import DAMAGED, Pixels
from napari_mcm.core.tissue.mask import TissueConfig

# Lengths in µm: about a nucleus, a group of cells, and the gap that a fat cell leaves.
_NUCLEUS, _CELLS, _GAP = 8.0, 40.0, 24.0

_STROKE, _INK_REACH = 25.0, 200.0


# Optical densities: haze and printed spots are below, pale fat and stroma above.
_STAINED, _FAINT, _ROUGH = 0.10, 0.015, 0.012

_LEAST_TINT, _LEAST_HUE = 0.012, 0.2

_FAINT_INK = 0.1

_DULL, _DULL_HUE = 0.04, 0.17


# Grey level: scanners fill parts that they skip with a black darker than any ink.
_UNSCANNED = 8


def search(rgb: Pixels, mpp: float, config: TissueConfig) -> Mask:
    """Find the tissue on a thumbnail.

    The module's docstring describes the algorithm.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (height, width, 3)
        The whole slide.
    mpp : float
        Resolution of `rgb` in µm per pixel.
    config : TissueConfig
        Sizes of what is removed and filled.

    Returns
    -------
    ndarray of bool, shape (height, width)
        All False where there is no tissue.
    """
    density = _density(rgb)
    foreign = _pen(density, mpp) | _dull(density, mpp)
    mask = _absorbs(density, mpp) & ~foreign
    # Closing makes fat one piece with the tissue around it; ink must not return by it.
    mask = close(mask, _GAP / mpp) & ~foreign
    mask = open_(mask, _NUCLEUS / mpp)
    mask = _drop_colourless(mask, density)
    if not mask.any():
        return mask
    mask = ~drop_small(~mask, (config.max_hole_um / mpp) ** 2)
    mask = _trim(mask, density, mpp) & ~foreign
    # Last, because trimming and ink may cut pieces into small ones.
    return drop_small(mask, (config.min_object_um / mpp) ** 2)


def _density(rgb: Pixels) -> Density:
    """Convert light to optical density; unscanned and damaged pixels count as glass."""
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
    # Var(D) = E(D²) - E(D)², from two box filters.
    variance = ndimage.uniform_filter(absorbed * absorbed, side)
    variance -= ndimage.uniform_filter(absorbed, side) ** 2
    rough = (variance > _ROUGH**2) & (dense > _FAINT)
    return np.asarray((stain > _STAINED) | rough)


def _trim(mask: Mask, density: Density, mpp: float) -> Mask:
    """Remove the rim of glass that smoothing has added."""
    rim = mask & ~shrink(mask, 2 * _NUCLEUS / mpp)
    return np.asarray(mask & ~(rim & (mean(density) < 2 * _FAINT)))


def _pen(density: Density, mpp: float) -> Mask:
    """Find marker ink in strokes, not specks, and its faint fringe."""
    from scipy import ndimage

    strokes = open_(ink(density), _STROKE / mpp)
    if not strokes.any():
        return strokes
    near = grow(strokes, _INK_REACH / mpp)
    fringe = near & ink(density, _FAINT_INK)
    # Only faint ink that is connected to a stroke: stained tissue nearby is not.
    grown = ndimage.binary_propagation(strokes, mask=fringe | strokes)
    return grow(grown, _GAP / mpp)


def _dull(density: Density, mpp: float) -> Mask:
    """Find grey areas: thin black ink, dust out of focus, the edge of a cover slip."""
    from scipy import ndimage

    sigma = max(_GAP / mpp, 0.5)
    # Smoothed over few pixels: brown and blue cells would average to grey over more.
    hue = ndimage.gaussian_filter(tint(density), sigma)
    dense = ndimage.gaussian_filter(mean(density), sigma)
    return np.asarray((dense > _DULL) & (hue < _DULL_HUE * dense))


def _drop_colourless(mask: Mask, density: Density) -> Mask:
    """Remove pieces that are grey as a whole: dust, ink that is too thin to be black."""
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    which, inside = labels[mask], density[mask]  # (n,), (n, 3)
    # Sums per piece; index 0 is the background.
    sizes = np.bincount(which, minlength=count + 1)
    tints = np.bincount(which, tint(inside), count + 1)
    densities = np.bincount(which, mean(inside), count + 1)
    keep = (tints > _LEAST_TINT * sizes) & (tints > _LEAST_HUE * densities)
    keep[0] = False
    return np.asarray(keep[labels])


Density = NDArray[np.float32]
"""Optical density above the glass, per channel, shape (height, width, 3)."""


DULLEST_GLASS = 170.0
"""Glass is brighter than this in every channel, in grey levels."""


# Glass of a slide that shows none, for example one filled by tissue.
_WHITE = 245.0

_PITCH_BLACK = 1.3

_GLASS_TINT = 0.06

_EVEN = 5.0

_LEAST_GLASS = 0.002

_BAND = 256


def lightest(values: NDArray[np.generic]) -> NDArray[Any]:
    """Return the largest channel of each pixel.

    Written out, this takes a tenth of the time of `max` over an axis of three.

    Parameters
    ----------
    values : ndarray, shape (height, width, 3)
        Pixels or densities.

    Returns
    -------
    ndarray, shape (height, width)
        Of the same type.
    """
    first, second, third = np.moveaxis(values, -1, 0)
    return np.asarray(np.maximum(np.maximum(first, second), third))


def darkest(values: NDArray[np.generic]) -> NDArray[Any]:
    """Return the smallest channel of each pixel.

    Parameters
    ----------
    values : ndarray, shape (height, width, 3)
        Pixels or densities.

    Returns
    -------
    ndarray, shape (height, width)
        Of the same type.
    """
    first, second, third = np.moveaxis(values, -1, 0)
    return np.asarray(np.minimum(np.minimum(first, second), third))


def tint(density: Density) -> NDArray[np.float32]:
    """Return how coloured each pixel is: the range of its channels' densities.

    Parameters
    ----------
    density : ndarray of float32, shape (height, width, 3)
        Optical density above the glass.

    Returns
    -------
    ndarray of float32, shape (height, width)
        0 for grey.
    """
    return np.asarray(lightest(density) - darkest(density), np.float32)


def mean(density: Density) -> NDArray[np.float32]:
    """Return the mean of each pixel's channels.

    Parameters
    ----------
    density : ndarray of float32, shape (height, width, 3)
        Optical density above the glass.

    Returns
    -------
    ndarray of float32, shape (height, width)
    """
    first, second, third = np.moveaxis(density, -1, 0)
    return np.asarray((first + second + third) / 3, np.float32)


def glass_colour(rgb: NDArray[np.uint8]) -> Density:
    """Estimate the colour of empty glass.

    It is the most frequent colour among bright, nearly neutral pixels that resemble
    their neighbours.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (height, width, 3)
        Thumbnail.

    Returns
    -------
    ndarray of float32, shape (3,)
        Grey levels; near white where a crop shows no glass at all.
    """
    glass = np.concatenate([_glass(rgb, top) for top in range(0, len(rgb), _BAND)])
    if len(glass) < max(_LEAST_GLASS * rgb[..., 0].size, 4):
        return np.full(3, _WHITE, np.float32)
    levels = np.bincount(glass[:, 1], minlength=256)
    # The mode of a smoothed histogram of green: few pixels per level make it noisy.
    common = np.convolve(levels, np.ones(5), "same").argmax()
    # The median of these is one colour; a mode per channel could mix two of them.
    near = abs(glass[:, 1].astype(np.int16) - common) <= 4
    return np.asarray(np.median(glass[near], axis=0), np.float32)


def _glass(rgb: NDArray[np.uint8], top: int) -> NDArray[np.uint8]:
    """Return the pixels (n, 3) of a band of rows that may be glass."""
    # One row more above, to compare the first row with its neighbours.
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
    """Convert light to optical density, 0 where a pixel is glass or brighter.

    ``-log10(rgb / glass)`` per channel, from a table of the 256 grey levels.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (..., 3)
        Pixels.
    glass : ndarray of float32, shape (3,)
        See :func:`glass_colour`.

    Returns
    -------
    ndarray of float32, shape (..., 3)
        Optical density above the glass.
    """
    # At least 1, because the logarithm of 0 is infinite. (256, 1) / (3,) -> (256, 3)
    light = np.maximum(np.arange(256, dtype=np.float32), 1)[:, None]
    table = -np.log10(np.minimum(light / glass, 1))
    density = np.empty(rgb.shape, np.float32)
    for channel in range(3):
        density[..., channel] = table[rgb[..., channel], channel]
    return density


def ink(density: Density, least: float = 0.4) -> NDArray[np.bool_]:
    """Find the pixels that have the colour of a marker's ink.

    Haematoxylin absorbs red and green alike, eosin and DAB absorb green and blue more
    than red, but each of them absorbs some light in every channel. Blue ink
    absorbs red far more than green, green ink spares green, red ink absorbs green and
    blue alike and spares red, and black ink absorbs all three alike and strongly.

    Parameters
    ----------
    density : ndarray of float32, shape (..., 3)
        Optical density above the glass.
    least : float, optional
        Density from which blue ink counts. Pale blue may be haematoxylin.

    Returns
    -------
    ndarray of bool, shape (...)
        True on ink.
    """
    red, green, blue = np.moveaxis(density, -1, 0)
    # Blue, green, red and black ink, one line each.
    found = (red > least) & (red > 1.4 * green)
    found |= (red > 0.7 * least) & (green < 0.75 * np.minimum(red, blue))
    found |= (green > 1.4 * least) & (blue > 0.75 * green) & (red < 0.28 * green)
    low = darkest(density)
    found |= (low > 2 * least) & (lightest(density) < 1.25 * low)
    # So little light is left that ratios of channels are noise.
    return np.asarray(found | (low > _PITCH_BLACK))


Mask = NDArray[np.bool_]


_SHORT = 6.0
"""Radius in pixels up to which shifted copies are faster than a distance transform."""


def grow(mask: Mask, radius: float) -> Mask:
    """Dilate a mask by a disc.

    Parameters
    ----------
    mask : ndarray of bool, shape (height, width)
        True inside.
    radius : float
        Of the disc, in pixels.

    Returns
    -------
    ndarray of bool, shape (height, width)
        True where a pixel of the mask is within `radius`.
    """
    if radius <= _SHORT:
        return _smear(mask, radius)
    # In an empty mask, distances would be undefined.
    if not mask.any():
        return mask
    from scipy import ndimage

    return np.asarray(ndimage.distance_transform_edt(~mask) <= radius)


def _smear(mask: Mask, radius: float) -> Mask:
    """Dilate by combining shifted copies: faster where they are few."""
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
    """Erode a mask by a disc.

    Parameters
    ----------
    mask : ndarray of bool, shape (height, width)
        True inside.
    radius : float
        Of the disc, in pixels.

    Returns
    -------
    ndarray of bool, shape (height, width)
        True where no pixel outside the mask is within `radius`.
    """
    return ~grow(~mask, radius)


def close(mask: Mask, radius: float) -> Mask:
    """Fill gaps narrower than twice a radius: dilation, then erosion.

    Parameters
    ----------
    mask : ndarray of bool, shape (height, width)
        True inside.
    radius : float
        Of the disc, in pixels.

    Returns
    -------
    ndarray of bool, shape (height, width)
        The closed mask.
    """
    # Padded, or what ends near the border would be extended to it.
    room = int(radius) + 1
    padded = np.pad(mask, room)
    return shrink(grow(padded, radius), radius)[room:-room, room:-room]


def open_(mask: Mask, radius: float) -> Mask:
    """Remove what is narrower than twice a radius: erosion, then dilation.

    Parameters
    ----------
    mask : ndarray of bool, shape (height, width)
        True inside.
    radius : float
        Of the disc, in pixels.

    Returns
    -------
    ndarray of bool, shape (height, width)
        The opened mask.
    """
    return grow(shrink(mask, radius), radius)


def drop_small(mask: Mask, pixels: float) -> Mask:
    """Remove connected pieces below a size; corners do not connect.

    Parameters
    ----------
    mask : ndarray of bool, shape (height, width)
        True inside.
    pixels : float
        Smallest number of pixels of a piece that stays.

    Returns
    -------
    ndarray of bool, shape (height, width)
        The mask without small pieces.
    """
    from scipy import ndimage

    labels, _ = ndimage.label(mask)
    keep = np.bincount(labels.ravel()) >= pixels
    keep[0] = False
    return np.asarray(keep[labels])
