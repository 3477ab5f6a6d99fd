"""Filling in hidden patches without having learned anything, to compare with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Pixels = NDArray[np.uint8]

NEAR = 0.5
"""Width of the nearer Gaussian, in patches; the best of some on pathology images."""
_FAR_WEIGHT = 1e-4


def blur_over(image: Pixels, hidden: NDArray[np.bool_]) -> Pixels:
    """Fill hidden patches with the blur of what is seen around them.

    A mean of the visible pixels weighted by a Gaussian half a patch wide; far from any of
    them, by one half an image wide. A model that has learned no structure does no better.

    Parameters
    ----------
    image : ndarray of uint8, shape (side, side, 3)
    hidden : ndarray of bool, shape (n, n)
        Which patches are hidden.

    Returns
    -------
    ndarray of uint8, shape (side, side, 3)
        Visible patches as they are.
    """
    patch = len(image) // len(hidden)
    seen = np.asarray(np.kron(~hidden, np.ones((patch, patch))), np.float32)
    weight = _spread(seen, patch, len(image))
    values = image.astype(np.float32)
    filled = [_spread(values[..., c] * seen, patch, len(image)) for c in range(3)]
    blurred = np.stack(filled, axis=-1) / weight[..., None]
    return np.where(seen[..., None] > 0, image, np.rint(blurred)).astype(np.uint8)


def _spread(values: NDArray[np.float32], patch: int, side: int) -> NDArray[np.float32]:
    near = gaussian_filter(values, NEAR * patch)
    far = gaussian_filter(values, side / 2)
    return np.asarray(near + _FAR_WEIGHT * far, np.float32)
