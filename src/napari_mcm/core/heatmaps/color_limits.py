"""Ranges of colours: the ends of a map's colour bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Limits = Literal["fixed", "robust", "encoder"]
"""Colour range: -1 to 1; the map's own values; or many queries to the same encoder."""


PERCENTILES = (2.0, 98.0)

LEAST_WIDTH = 1e-3
"""Smallest width of a range."""


def robust_range(
    values: NDArray[np.float32], queries: Sequence[int] = ()
) -> tuple[float, float]:
    """Return the range of a map's own values, without outliers.

    Parameters
    ----------
    values : ndarray of float32, shape (N,)
        NaN where there are none.
    queries : sequence of int, optional
        Example patches to leave out, as their own cosine is 1.

    Returns
    -------
    tuple of float
        The 2nd and the 98th percentile.
    """
    others = np.delete(values, list(queries))
    others = others[np.isfinite(others)]
    if not len(others):
        return -1.0, 1.0
    low, high = (float(v) for v in np.percentile(others, PERCENTILES))
    return (low, high) if high - low > 1e-6 else (low - LEAST_WIDTH, low + LEAST_WIDTH)


def rounded(low: float, high: float) -> tuple[float, float]:
    """Widen a range to round numbers, for the ends of a colour bar.

    Parameters
    ----------
    low, high : float
        The range, within -1 to 1.

    Returns
    -------
    tuple of float
        Multiples of 0.05, or of 0.01 for a narrow range.
    """
    step = 20 if high - low > 0.25 else 100
    low, high = math.floor(low * step) / step, math.ceil(high * step) / step
    return max(low, -1.0), min(high, 1.0)
