"""Random fields that give drawn tissue its irregularity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.floating[Any]]

TEXTURE_SIZE = 1024


def smooth_noise(
    shape: tuple[int, int], sigma: float, rng: np.random.Generator
) -> Field:
    """Draw Gaussian noise of unit variance, smooth at one length scale.

    Parameters
    ----------
    shape : tuple of int
        Height and width in pixels.
    sigma : float
        Standard deviation of the smoothing kernel in pixels.
    rng : Generator
        Source of the randomness.

    Returns
    -------
    ndarray of float32, shape `shape`
    """
    # Long waves are drawn on a coarse lattice: the cost does not grow with sigma.
    cell = max(sigma / 2, 1.0)
    coarse = tuple(math.ceil(n / cell) + 9 for n in shape)
    noise = rng.standard_normal(coarse, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, sigma / cell, mode="wrap")
    noise *= np.float32(2 * math.sqrt(math.pi) * sigma / cell)
    if cell > 1:
        noise = ndimage.zoom(noise, cell, order=3)
    start = round(4 * cell)
    return np.ascontiguousarray(
        noise[start : start + shape[0], start : start + shape[1]]
    )


class Texture:
    """A periodic noise texture, from which a window at any position can be cut.

    Parameters
    ----------
    sigma : float
        Smoothing length in pixels, 0 for white noise.
    rng : Generator
        Source of the randomness.
    """

    def __init__(self, sigma: float, rng: np.random.Generator) -> None:
        side = TEXTURE_SIZE
        noise = rng.standard_normal((side, side), dtype=np.float32)
        if sigma > 0:
            noise = ndimage.gaussian_filter(noise, sigma, mode="wrap")
            noise /= noise.std()
        # Tiled twice, so that a window is a view: no gathering in the inner loop.
        self._tiled = np.tile(noise, (2, 2))

    def window(self, y: int, x: int, shape: tuple[int, int]) -> Field:
        """Return the window at a position.

        Parameters
        ----------
        y, x : int
            Upper left corner in pixels; positions wrap around.
        shape : tuple of int
            Height and width, at most the texture's own.

        Returns
        -------
        ndarray of float32, shape `shape`
            A view: do not change it.
        """
        top, left = y % TEXTURE_SIZE, x % TEXTURE_SIZE
        return self._tiled[top : top + shape[0], left : left + shape[1]]


def soften(depth: Field, width: float) -> Field:
    """Convert signed depths to coverage: 0 outside, 1 inside, a ramp between.

    Parameters
    ----------
    depth : ndarray of float32
        Signed depth, in any unit.
    width : float
        Width of the ramp in the same unit.

    Returns
    -------
    ndarray of float32
        0 to 1, in the shape of `depth`.
    """
    covered: Field = np.clip(depth * np.float32(1 / width) + np.float32(0.5), 0, 1)
    return covered


def enlarge(field: Field, y: int, x: int, side: int, factor: int) -> Field:
    """Interpolate a square window of a coarse field to full resolution.

    Parameters
    ----------
    field : ndarray of float32, shape (rows, columns)
        Samples that lie `factor` pixels apart, the first at the origin.
    y, x : int
        Corner of the window in fine pixels, multiples of `factor`.
    side : int
        Side of the window in fine pixels, a multiple of `factor`.
    factor : int
        Fine pixels per coarse pixel.

    Returns
    -------
    ndarray of float32, shape (side, side)
        The window, bilinearly interpolated; coordinates outside are clamped.
    """
    count = side // factor + 1
    rows = np.arange(y // factor, y // factor + count).clip(0, field.shape[0] - 1)
    cols = np.arange(x // factor, x // factor + count).clip(0, field.shape[1] - 1)
    part = field[np.ix_(rows, cols)]
    # Windows lie on the coarse lattice, so that broadcasting replaces gathering.
    t = (np.arange(factor, dtype=np.float32) / factor)[:, None]
    tall = part[:-1, None] + (part[1:] - part[:-1])[:, None] * t
    tall = tall.reshape(side, count)
    step = (tall[:, 1:] - tall[:, :-1])[..., None]
    wide: Field = tall[:, :-1, None] + step * t[:, 0]
    return wide.reshape(side, side)
