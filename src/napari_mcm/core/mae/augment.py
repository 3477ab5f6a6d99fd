"""Random crops, flips and colour changes of images, drawn from a given generator."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_mcm.core.mae.config import AugmentConfig

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]

_RATIO = (3 / 4, 4 / 3)
_TRIES = 10
# Luma of ITU-R BT.601, as in Pillow and torchvision.
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def augment(
    pixels: Pixels, side: int, config: AugmentConfig, rng: np.random.Generator
) -> Pixels:
    """Crop, flip and recolour an image at random.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width, 3)
        The image.
    side : int
        Side of the result, in pixels.
    config : AugmentConfig
        Which augmentations, and how strong.
    rng : Generator
        Random generator; every image takes the same number of draws.

    Returns
    -------
    ndarray of uint8, shape (side, side, 3)
        The augmented image.
    """
    box = random_box(pixels.shape[1], pixels.shape[0], config.crop_scale, rng)
    image = resized(pixels, side, box)
    # Drawn also without flips, so that colours do not depend on that option.
    across, down = rng.random(2) < 0.5
    if config.flips and across:
        image = image[:, ::-1]
    if config.flips and down:
        image = image[::-1]
    if config.colour_jitter:
        image = _coloured(image, config.colour_jitter, rng)
    # Flips are views with negative strides, which PyTorch does not accept.
    return np.ascontiguousarray(image)


def resized(pixels: Pixels, side: int, box: Box | None = None) -> Pixels:
    """Resize an image, or a part of it, to a square by bicubic interpolation.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width, 3)
        The image.
    side : int
        Side of the result, in pixels.
    box : tuple of float, optional
        Left, top, right and bottom of the part, in pixels; by default the whole image.

    Returns
    -------
    ndarray of uint8, shape (side, side, 3)
        The input itself where nothing changes.
    """
    if box is None and pixels.shape[:2] == (side, side):
        return pixels
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box))


def random_box(
    width: int, height: int, least: float, rng: np.random.Generator
) -> Box | None:
    """Choose a random part of an image: its area, its aspect ratio, its place.

    The aspect ratio lies between 3:4 and 4:3, as in torchvision's RandomResizedCrop.

    Parameters
    ----------
    width, height : int
        Size of the image, in pixels.
    least : float
        Smallest fraction of the area; 1 for the whole image.
    rng : Generator
        Random generator.

    Returns
    -------
    tuple of float or None
        Left, top, right, bottom in pixels; None for the whole image.
    """
    if least >= 1:
        return None
    # Drawn at once: the number of draws must not depend on which try fits.
    draws = rng.random((_TRIES, 4))
    for area, aspect, x, y in draws:
        size = width * height * (least + (1 - least) * area)
        # Uniform in the logarithm: wide and tall crops are equally likely.
        low, high = (math.log(bound) for bound in _RATIO)
        ratio = math.exp(low + (high - low) * aspect)
        w, h = round(math.sqrt(size * ratio)), round(math.sqrt(size / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(x * (width - w + 1)), int(y * (height - h + 1))
            return (left, top, left + w, top + h)
    return None


def _coloured(image: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    brightness, contrast, saturation = 1 + strength * rng.uniform(-1, 1, 3)
    # float32 until the end: rounding after each change would band smooth stains.
    values = image.astype(np.float32) * np.float32(brightness)
    grey = values @ _GREY
    values = grey[..., None] + (values - grey[..., None]) * np.float32(saturation)
    middle = grey.mean()
    values = middle + (values - middle) * np.float32(contrast)
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
