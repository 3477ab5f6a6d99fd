"""Smooth pictures of values on a lattice, with the exact border of the tissue.

Values are interpolated between the centres of patches, bilinearly. Patches without a value
(NaN) take no part: the weights of the others are scaled to a sum of 1. A pixel has a value
where its own patch has one, so the picture ends where the tissue does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Raster = NDArray[np.float32]


class SmoothRaster:
    """Enlarges rasters of one mask; the weights are computed once.

    Parameters
    ----------
    mask : ndarray of bool, shape (rows, columns)
        Where there are values.
    factor : int
        Pixels along the side of a patch.
    """

    def __init__(self, mask: NDArray[np.bool_], factor: int) -> None:
        self.mask, self.factor = mask, factor
        self._rows = _neighbours(mask.shape[0], factor)
        self._columns = _neighbours(mask.shape[1], factor)
        weights = self._blend(mask.astype(np.float32))
        inside = np.repeat(np.repeat(mask, factor, axis=0), factor, axis=1)
        # Division by NaN also clears what lies outside.
        self._weights = np.where(inside, weights, np.nan).astype(np.float32)

    def enlarge(self, raster: Raster) -> Raster:
        """Return the smooth picture of a raster.

        Parameters
        ----------
        raster : ndarray of float32, shape (rows, columns)
            Values; NaN exactly outside the mask.

        Returns
        -------
        ndarray of float32, shape (rows * factor, columns * factor)
            NaN where the patch at that pixel has no value.
        """
        enlarged = self._blend(np.where(self.mask, raster, np.float32(0)))
        enlarged /= self._weights
        return enlarged

    def _blend(self, values: Raster) -> Raster:
        lower, upper, share = self._rows
        share = share[:, None]
        tall = values[lower] * (1 - share) + values[upper] * share
        lower, upper, share = self._columns
        wide = tall.take(upper, axis=1)
        left = tall.take(lower, axis=1)
        wide -= left
        wide *= share
        wide += left
        return wide


def _neighbours(
    count: int, factor: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], Raster]:
    """Return, for each pixel, the two nearest patches and the share of the second."""
    at = (np.arange(count * factor) + 0.5) / factor - 0.5
    lower = np.floor(at).astype(np.intp)
    share = (at - lower).astype(np.float32)
    # Beyond the outermost centres the outermost patch counts alone.
    return lower.clip(0, count - 1), (lower + 1).clip(0, count - 1), share
