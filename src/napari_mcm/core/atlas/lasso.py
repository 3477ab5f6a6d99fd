"""Which points of a 2-D map lie inside a lasso or next to the pointer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def points_inside(
    points: NDArray[np.floating], polygon: NDArray[np.floating]
) -> NDArray[np.intp]:
    """Return the points inside a polygon, which closes itself.

    Where the outline crosses itself, a point is inside if a ray from it crosses the
    outline an odd number of times.

    Parameters
    ----------
    points : ndarray, shape (N, 2)
        Points (x, y); those that are not finite are outside.
    polygon : ndarray, shape (V, 2)
        Corners (x, y) in the same coordinates.

    Returns
    -------
    ndarray of int
        Rows of `points`, ascending; none for fewer than three corners.
    """
    from skimage.measure import points_in_poly

    polygon = np.asarray(polygon, np.float64)
    if len(polygon) < 3:
        return np.empty(0, np.intp)
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    near = np.flatnonzero(((points >= low) & (points <= high)).all(axis=1))
    inside = points_in_poly(np.asarray(points[near], np.float64), polygon)
    return np.asarray(near[np.asarray(inside, bool)], np.intp)
