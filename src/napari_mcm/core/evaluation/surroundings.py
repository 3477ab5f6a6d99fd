"""What lies around labelled patches: the mean of their neighbours, and other classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.evaluation.probes import Matrix
from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.features.neighbourhood import neighbour_counts

BORDER = 1.0
"""Distance from another class, in patch widths, up to which a patch is at a border."""


def neighbour_means(features: FeatureSet, rows: NDArray[np.int64]) -> Matrix:
    """Average the features of patches with those of their eight neighbours.

    Parameters
    ----------
    features : FeatureSet
        Features of all patches of a slide.
    rows : ndarray of int64, shape (M,)
        The patches to average.

    Returns
    -------
    ndarray of float32, shape (M, D)
        Means over the patch and those neighbours that have features.
    """
    counts = neighbour_counts(features, NeighbourhoodConfig(radius=1))[rows]  # (M, N)
    totals = np.maximum(counts.sum(axis=1), 1)
    return np.asarray(counts @ features.features / totals[:, None], np.float32)


def near_other_class(
    features: FeatureSet,
    labels: Sequence[str],
    places_um: NDArray[np.float64],
    width: float,
) -> NDArray[np.bool_]:
    """Return which patches have a patch of another class, or of none, near by.

    Context mixes the features of such patches with those of another class.

    Parameters
    ----------
    features : FeatureSet
        Features of the slide's N patches.
    labels : sequence of str, length N
        Class of each patch; empty for none.
    places_um : ndarray of float64, shape (M, 2)
        Centres (x, y) of the patches to look at, in microns.
    width : float
        Distance along x and y in patch widths.

    Returns
    -------
    ndarray of bool, shape (M,)
        True where another class lies within `width` patch widths.
    """
    from scipy.spatial import KDTree

    grid, usable = features.grid, np.flatnonzero(features.ok)
    mpp = np.asarray(grid.slide["mpp"], np.float64)
    side = np.asarray(grid.patch_size_level0) * mpp
    names = np.asarray(labels)[usable]
    # In patch widths: the square then has the same side along x and y.
    tree = KDTree(grid.centres[usable] * mpp / side)
    at = places_um / side
    own = names[tree.query(at)[1]]
    # Centres are rounded to whole pixels, hence a hundredth of a patch.
    near = tree.query_ball_point(at, width + 0.01, p=np.inf)
    return np.asarray(
        [(names[rows] != name).any() for rows, name in zip(near, own, strict=True)],
        bool,
    )
