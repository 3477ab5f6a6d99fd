"""Resampling by exact area averaging."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.slides.tiles import Pixels


def area_average(
    image: Pixels, box: tuple[float, float, float, float], size: tuple[int, int]
) -> Pixels:
    """Resample a part of an image by averaging over each output pixel's area.

    Every output pixel is the mean of the image over the rectangle that it covers,
    fractions of source pixels counted as fractions, so that no resolution, however odd
    its ratio, shifts, drops or doubles pixels.

    Parameters
    ----------
    image : ndarray, shape (height, width, 3), uint8
        Source pixels.
    box : tuple of float
        Left, top, right and bottom of the part, in source pixels.
    size : tuple of int
        Width and height of the result.

    Returns
    -------
    ndarray, shape (size[1], size[0], 3), uint8
    """
    left, top, right, bottom = box
    rows = _mean_between(image, np.linspace(top, bottom, size[1] + 1))
    columns = _mean_between(
        rows.swapaxes(0, 1), np.linspace(left, right, size[0] + 1)
    ).swapaxes(0, 1)
    rounded: Pixels = np.clip(columns + 0.5, 0, 255).astype(np.uint8)
    return rounded


def _mean_between(
    image: NDArray[np.uint8] | NDArray[np.float32], edges: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Average along axis 0 between each two neighbouring edges."""
    count = image.shape[0]
    whole = np.clip(np.floor(edges).astype(np.intp), 0, count - 1)
    rest = (edges - whole).astype(np.float32).reshape(-1, 1, 1)
    sums = np.zeros((count + 1, *image.shape[1:]), np.float32)
    np.cumsum(image, axis=0, dtype=np.float32, out=sums[1:])
    integral = sums[whole] + rest * image[whole]
    width = np.float32((edges[-1] - edges[0]) / (len(edges) - 1))
    means: NDArray[np.float32] = np.diff(integral, axis=0) / width
    return means
