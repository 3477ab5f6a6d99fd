"""How good a patch is as a picture: in focus, and free of ink, folds and dirt."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.slides.tiles import Pixels
from napari_mcm.core.tissue.colour import ink

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
