"""Between which values the colours of a similarity map run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_mcm.core.heatmaps.similarity import SimilarityIndex

Limits = Literal["fixed", "robust", "encoder"]
"""From -1 to 1; by the map's own values; or by many queries to the same encoder."""

PERCENTILES = (2.0, 98.0)
_LEAST = 1e-3


def robust_range(
    values: NDArray[np.float32], queries: Sequence[int] = ()
) -> tuple[float, float]:
    """Give the range of a map's own values.

    Parameters
    ----------
    values : ndarray of float32, shape (N,)
        NaN where there are none.
    queries : sequence of int
        Patches that were asked for: left out, as they are 1 to themselves.

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
    return (low, high) if high - low > 1e-6 else (low - _LEAST, low + _LEAST)


def usual_range(index: SimilarityIndex, queries: int = 32) -> tuple[float, float]:
    """Tell between which values most similarities lie, over queries taken at random.

    One range for an encoder lets its maps be compared from query to query.

    Returns
    -------
    tuple of float
        The 2nd and the 98th percentile.
    """
    patches = np.flatnonzero(index.valid)
    if len(patches) < 2:
        return -1.0, 1.0
    drawn = np.random.default_rng(0).permutation(patches)[:queries]
    values = [np.delete(index.query(int(patch)), patch) for patch in drawn]
    low, high = np.nanpercentile(np.concatenate(values), PERCENTILES)
    return float(low), float(max(high, low + _LEAST))


def rounded(low: float, high: float) -> tuple[float, float]:
    """Widen a range to round numbers, which can be read off a colour bar."""
    step = 20 if high - low > 0.25 else 100
    low, high = math.floor(low * step) / step, math.ceil(high * step) / step
    return max(low, -1.0), min(high, 1.0)
