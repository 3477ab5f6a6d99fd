"""Scores of a feature file by blocks, with the same code as the map of one slide.

A block of patches is read together with the patches around that their context reaches, as
a feature set of its own, and :class:`~napari_mcm.core.heatmaps.SimilarityIndex` scores it.
So memory holds one block, and a patch has the value that its slide's map shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.features.mapped import MappedFeatures
from napari_mcm.core.features.neighbourhood import reach
from napari_mcm.core.heatmaps.similarity_index import Directions, SimilarityIndex

BLOCK = 2048
"""Patches per block: their features fit into a processor's cache."""

Indices = NDArray[np.int64]


def score_patches(
    file: MappedFeatures,
    directions: Directions,
    neighbourhood: NeighbourhoodConfig,
    is_stopped: Callable[[], bool] = lambda: False,
) -> NDArray[np.float32]:
    """Return the cosine of every patch of a file to the nearest of several directions.

    Parameters
    ----------
    file : MappedFeatures
        N patches.
    directions : ndarray of float32, shape (K, D)
        Unit vectors.
    neighbourhood : NeighbourhoodConfig
        Which patches to average over.
    is_stopped : callable, optional
        Asked between blocks.

    Returns
    -------
    ndarray of float32, shape (N,)
        Cosine similarity, as :meth:`SimilarityIndex.compare` returns it; NaN for patches
        without features.

    Raises
    ------
    FeatureError
        If the file is damaged or of another encoder, or if it was stopped.
    """
    values = np.full(len(file), np.nan, np.float32)
    for inside, index, rows in blocks(file, neighbourhood):
        if is_stopped():
            raise FeatureError("was not searched: cancelled", file.path)
        values[rows] = index.compare(directions)[inside]
    return values


def blocks(
    file: MappedFeatures, neighbourhood: NeighbourhoodConfig, size: int = BLOCK
) -> Iterator[tuple[Indices, SimilarityIndex, Indices]]:
    """Read a file block by block.

    Parameters
    ----------
    file : MappedFeatures
        N patches.
    neighbourhood : NeighbourhoodConfig
        Which patches to average over.
    size : int, optional
        Patches per block.

    Yields
    ------
    inside : ndarray of int64, shape (n,)
        Rows of the index that are patches of the block; others are around.
    index : SimilarityIndex
        Of the block and the patches around.
    rows : ndarray of int64, shape (n,)
        Rows of the file that the block holds.
    """
    for start in range(0, len(file), size):
        rows = np.arange(start, min(start + size, len(file)))
        yield (*index_of(file, rows, neighbourhood), rows)


def index_of(
    file: MappedFeatures, rows: Indices, neighbourhood: NeighbourhoodConfig
) -> tuple[Indices, SimilarityIndex]:
    """Prepare some patches of a file for queries.

    Parameters
    ----------
    file : MappedFeatures
        The file.
    rows : ndarray of int64, shape (n,)
        The patches, ascending.
    neighbourhood : NeighbourhoodConfig
        Which patches to average over.

    Returns
    -------
    inside : ndarray of int64, shape (n,)
        Rows of the index that are these patches.
    index : SimilarityIndex
        Of these patches and all that their context reaches.
    """
    kept = _with_context(file, rows, neighbourhood)
    index = SimilarityIndex(file.subset(kept), neighbourhood)
    return np.searchsorted(kept, rows), index


def _with_context(
    file: MappedFeatures, rows: Indices, neighbourhood: NeighbourhoodConfig
) -> Indices:
    """Return patches and all others that their context reaches, ascending."""
    if not neighbourhood.radius:
        return rows
    far = reach(file.grid, file.provenance, neighbourhood)[0]
    lines = file.grid.lattice[:, 0]
    # Lines of the lattice that have one of the patches, and those within reach.
    near = np.zeros(int(lines.max()) + 2 * far + 1, bool)
    for line in np.unique(lines[rows]):
        near[line : line + 2 * far + 1] = True
    return np.flatnonzero(near[lines + far])
