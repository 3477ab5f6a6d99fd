"""The search for tissue on a thumbnail."""

from __future__ import annotations

import numpy as np

from napari_mcm.core.slides.tiles import DAMAGED, Pixels
from napari_mcm.core.tissue.colour import (
    Density,
    darkest,
    glass_colour,
    ink,
    lightest,
    mean,
    optical_density,
    tint,
)
from napari_mcm.core.tissue.config import TissueConfig
from napari_mcm.core.tissue.shapes import (
    Mask,
    close,
    drop_small,
    grow,
    open_,
    shrink,
)

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
