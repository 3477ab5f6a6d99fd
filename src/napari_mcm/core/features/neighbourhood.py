"""Features of a patch together with the tissue around it, from stored features.

The features of a patch are averaged with those of the patches whose centres lie within
`radius` patch widths along x and y: a square of 2·radius + 1 patch widths. Only patches
that can be reached from the centre through touching patches inside that square count,
so that tissue across a gap does not. Distances are in widths of the patches as the
encoder saw them: grids of overlapping patches average over the same square in µm.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.features.feature_set import (
    NeighbourhoodConfig as NeighbourhoodConfig,
)
from napari_mcm.core.grid import PatchGrid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scipy.sparse import csr_array

# Rows that are averaged at once: their float32 result fits into the cache's order of
# size, and a cancelled job stops within a fraction of a second.
ROWS = 4096

# Positions of squares that are searched at once: 64 MB of indices.
_POSITIONS = 1 << 24

# Patches of other tools are up to a pixel off their lattice.
_ROUNDING = 0.02


def neighbour_weights(features: FeatureSet, config: NeighbourhoodConfig) -> csr_array:
    """Return how much each patch counts in the neighbourhood of each other patch.

    Parameters
    ----------
    features : FeatureSet
        N patches of one slide.
    config : NeighbourhoodConfig
        Radius and weights.

    Returns
    -------
    scipy.sparse.csr_array of float32, shape (N, N)
        Row i holds the weights of patch i's neighbours, itself included, which sum to
        1. Rows and columns of patches without features are empty.
    """
    counts = neighbour_counts(features, config)
    totals = counts.sum(axis=1)
    counts.data /= np.repeat(totals, np.diff(counts.indptr))
    return counts


def neighbour_counts(features: FeatureSet, config: NeighbourhoodConfig) -> csr_array:
    """Return the weights of neighbours before they are scaled to a sum of 1.

    Parameters
    ----------
    features : FeatureSet
        N patches of one slide.
    config : NeighbourhoodConfig
        Radius and weights.

    Returns
    -------
    scipy.sparse.csr_array of float32, shape (N, N)
        As :func:`neighbour_weights`; each patch counts 1 in its own row.
    """
    from scipy.sparse import csr_array, eye_array

    present = has_features(features)
    rows = len(present)
    if not rows:
        return csr_array((0, 0), dtype=np.float32)
    lattice = features.grid.lattice.astype(np.int64)
    lattice -= lattice.min(axis=0)
    height, width = (int(n) + 1 for n in lattice.max(axis=0))
    keys, cell_of = np.unique(lattice @ (width, 1), return_inverse=True)
    # Patches of other tools may share a cell of the lattice: neighbours are found
    # between cells, and (N, cells) places the patches that have features in them.
    ends = np.arange(rows + 1, dtype=np.int32)
    placed = csr_array(
        (present.astype(np.float32), cell_of.astype(np.int32), ends),
        shape=(rows, len(keys)),
    )
    placed.eliminate_zeros()
    if config.radius:
        widths = _widths(features.grid, features.provenance)
        cells = _cell_weights(keys, (height, width), widths, config)
    else:
        cells = eye_array(len(keys), dtype=np.float32, format="csr")
    found = csr_array(placed @ cells @ placed.T)
    found.sort_indices()
    if config.radius:
        return found
    # Two patches in one cell are one neighbourhood, but not one patch.
    return csr_array(eye_array(rows, dtype=np.float32, format="csr") * found)


def average_neighbourhood(
    features: FeatureSet, config: NeighbourhoodConfig
) -> FeatureSet:
    """Average the features of each patch with those of the tissue around it.

    Parameters
    ----------
    features : FeatureSet
        N patches with D features, not averaged yet.
    config : NeighbourhoodConfig
        Radius and weights.

    Returns
    -------
    FeatureSet
        The same patches with their status and quality; its `neighbourhood` is `config`.
        The features themselves where the radius is 0.

    Raises
    ------
    FeatureError
        If the features are averages already.
    """
    refuse_averaged(features)
    if not config.radius:
        return features
    counts = neighbour_counts(features, config)
    means = np.empty(features.features.shape, np.float32)  # (N, D)
    for start in range(0, len(means), ROWS):
        stop = start + ROWS
        means[start:stop] = neighbour_sums(counts, features.features, start, stop)
        totals = np.asarray(counts[start:stop].sum(axis=1), np.float32)  # (rows,)
        with np.errstate(invalid="ignore"):  # 0 / 0 where there are no features
            means[start:stop] /= totals[:, None]
    return replace(features, features=means, neighbourhood=config)


def neighbour_sums(
    counts: csr_array, values: NDArray[np.float32], start: int, stop: int
) -> NDArray[np.float32]:
    """Return the weighted sums over the neighbourhoods of some patches.

    Parameters
    ----------
    counts : scipy.sparse.csr_array of float32, shape (N, N)
        From :func:`neighbour_counts`.
    values : ndarray of float32, shape (N, D)
        Features; rows of patches without features are not read.
    start, stop : int
        The patches.

    Returns
    -------
    ndarray of float32, shape (stop - start, D)
        Sums, 0 for patches without features.
    """
    return np.asarray(counts[start:stop] @ values, np.float32)


def context_mark(features: FeatureSet) -> str:
    """Return what to append to the encoder's fingerprint where averages matter.

    Parameters
    ----------
    features : FeatureSet
        Features, averaged or not.

    Returns
    -------
    str
        Differs between features that must not be mixed; empty for the patch alone, whose
        fingerprints stay as they were.
    """
    config = features.neighbourhood
    if not config.radius:
        return ""
    weights = "" if config.weights == "uniform" else f"-{config.weights}"
    return f"+context{config.radius}{weights}"


def refuse_averaged(features: FeatureSet) -> None:
    """Check that features are of single patches.

    Parameters
    ----------
    features : FeatureSet
        Features that are to be averaged.

    Raises
    ------
    FeatureError
        If they are averages already.
    """
    if features.neighbourhood.radius:
        raise FeatureError(
            "features are averages over "
            f"{features.neighbourhood.describe()} patches already",
            features.grid.slide.get("name"),
            "Use features of single patches, or --context 0",
        )


def has_features(features: FeatureSet) -> NDArray[np.bool_]:
    """Return which patches have features that can be averaged.

    Parameters
    ----------
    features : FeatureSet
        N patches.

    Returns
    -------
    ndarray of bool, shape (N,)
        True where the status is ``OK`` and all features are finite.
    """
    # A sum is finite where its terms are, and needs no (N, D) array of booleans.
    finite = np.isfinite(features.features.sum(axis=1, dtype=np.float64))
    return np.asarray(features.ok & finite)


def reach(
    grid: PatchGrid, provenance: Mapping[str, Any], config: NeighbourhoodConfig
) -> tuple[int, int]:
    """Return how far a neighbourhood reaches, in cells of the lattice.

    Parameters
    ----------
    grid : PatchGrid
        Patches of one slide.
    provenance : mapping
        Of their features, which may state that patches overlap.
    config : NeighbourhoodConfig
        Radius and weights.

    Returns
    -------
    tuple of int
        Rows and columns on each side of a patch.
    """
    height, width = _widths(grid, provenance)
    return (
        int(config.radius * height + _ROUNDING),
        int(config.radius * width + _ROUNDING),
    )


def _widths(grid: PatchGrid, provenance: Mapping[str, Any]) -> tuple[float, float]:
    """Return a patch's height and width in cells of the lattice, at least 1."""
    imported: dict[str, Any] = provenance.get("imported", {})
    step = grid.patch_size_level0
    size = imported.get("patch_size_level0", step)
    height, width = (max(float(size[axis]) / step[axis], 1.0) for axis in (1, 0))
    return height, width


def _cell_weights(
    keys: NDArray[np.int64],
    shape: tuple[int, int],
    widths: tuple[float, float],
    config: NeighbourhoodConfig,
) -> csr_array:
    """Return the weights (C, C) between the cells of the lattice that hold patches.

    `keys` are row · columns + column of each cell, ascending.
    """
    from scipy.sparse import csr_array, vstack

    reach = [int(config.radius * w + _ROUNDING) for w in widths]
    index = np.full((shape[0] + 2 * reach[0], shape[1] + 2 * reach[1]), -1, np.int32)
    rows, columns = np.divmod(keys, shape[1])
    index[rows + reach[0], columns + reach[1]] = np.arange(len(keys))
    # A view (rows, columns, 2·reach + 1, 2·reach + 1) of the square around each cell.
    squares = np.lib.stride_tricks.sliding_window_view(
        index, (2 * reach[0] + 1, 2 * reach[1] + 1)
    )
    weights = _weights_of_offsets(reach, widths, config)
    touching = [int(w + _ROUNDING) for w in widths]
    chunk = max(_POSITIONS // weights.size, 1)
    parts = []
    for start in range(0, len(keys), chunk):
        some = slice(start, start + chunk)
        near = squares[rows[some], columns[some]]  # (cells, height, width)
        reached = _reachable(near >= 0, touching)
        counts = reached.sum(axis=(1, 2))
        values = np.broadcast_to(weights, near.shape)[reached]
        ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        shape_of_part = (len(near), len(keys))
        parts.append(csr_array((values, near[reached], ends), shape=shape_of_part))
    return csr_array(vstack(parts, format="csr"))


def _weights_of_offsets(
    reach: list[int], widths: tuple[float, float], config: NeighbourhoodConfig
) -> NDArray[np.float32]:
    """Return the weight of each position of the square around a patch."""
    rows, columns = (
        np.arange(-far, far + 1) / width
        for far, width in zip(reach, widths, strict=True)
    )
    distance = np.hypot(rows[:, None], columns)
    if config.weights == "uniform":
        return np.ones(distance.shape, np.float32)
    return np.asarray(1 / (1 + distance), np.float32)


def _reachable(tissue: NDArray[np.bool_], touching: list[int]) -> NDArray[np.bool_]:
    """Return the part of each square that is connected to its centre.

    Cells connect where their patches touch or overlap, corners included: where they are
    at most `touching` rows and columns apart. Most squares are full, or small enough for
    every cell to touch the centre, and are not searched.
    """
    from scipy.ndimage import binary_propagation

    middle = [side // 2 for side in tissue.shape[1:]]
    if middle[0] <= touching[0] and middle[1] <= touching[1]:
        return tissue
    broken = np.flatnonzero(~tissue.all(axis=(1, 2)))
    seeds = np.zeros((len(broken), *tissue.shape[1:]), bool)
    seeds[:, middle[0], middle[1]] = True
    # Flat along the first axis: squares do not connect with each other.
    link = np.ones((1, 2 * touching[0] + 1, 2 * touching[1] + 1), bool)
    reached = tissue.copy()
    reached[broken] = binary_propagation(seeds, link, tissue[broken])
    return reached
