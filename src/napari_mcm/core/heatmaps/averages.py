"""Cosines of neighbourhood averages, without storing the averages.

Features f are averaged with the weights A of the patches around, and compared with a
query q. The mean of cosines is not the cosine of means: every patch counts by the length
of its features, and the average is scaled to unit length as a whole::

    score(x) = (A f)(x) · q / |(A f)(x)| = sum over y of W(x, y) (u(y) · q)
    W(x, y)  = A(x, y) |f(y)| / |(A f)(x)|,    u(y) = f(y) / |f(y)|

So a query is one product with the unit vectors u, as without a neighbourhood, and one
sparse product W on N numbers. The lengths |(A f)(x)| do not depend on the query: they are
measured once per neighbourhood, some rows at a time, so that the averages are never in
memory together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.features.neighbourhood import neighbour_counts, neighbour_sums
from napari_mcm.core.runtime.jobs import Job, Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scipy.sparse import csr_array

# Averages that are computed at once: they fit into a processor's cache.
_ROWS = 1024


@dataclass(frozen=True, eq=False)
class Averages:
    """Turns products with single patches' unit vectors into those of their averages.

    Attributes
    ----------
    weights : scipy.sparse.csr_array of float32, shape (N, N)
        W of the module's description; about 9, 25 or 49 values per row.
    valid : ndarray of bool, shape (N,)
        Patches whose average has a direction.
    """

    weights: csr_array
    valid: NDArray[np.bool_]

    def apply(
        self, values: NDArray[np.float32], patches: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """Weight values of single patches over the patches around.

        Parameters
        ----------
        values : ndarray of float32, shape (N,) or (N, K)
            Cosines of single patches to a query, or their unit vectors.
        patches : sequence of int, optional
            M patches to return; by default all.

        Returns
        -------
        ndarray of float32, shape (M,) or (M, K)
            Cosines of the averages, or their unit vectors; 0 where there is none.
        """
        weights = self.weights if patches is None else self.weights[list(patches)]
        return np.asarray(weights @ values, np.float32)


def measure_averages(
    features: FeatureSet,
    unit: NDArray[np.float32],
    lengths: NDArray[np.float32],
    neighbourhood: NeighbourhoodConfig,
) -> Job[Averages]:
    """Measure the lengths of all averages, as a job.

    Parameters
    ----------
    features : FeatureSet
        N patches of one slide.
    unit : ndarray of float32, shape (N, D)
        Their unit vectors, 0 where there is none.
    lengths : ndarray of float32, shape (N,)
        The lengths of their features.
    neighbourhood : NeighbourhoodConfig
        Which patches to average over.

    Yields
    ------
    Progress
        In patches.

    Returns
    -------
    Averages
        For cosines with averages over that neighbourhood.
    """
    stage = f"Averaging over {neighbourhood.describe()}"
    yield Progress(stage, 0, len(unit), "patches")
    weights = neighbour_counts(features, neighbourhood)
    weights.data *= lengths[weights.indices]
    norms = np.zeros(len(unit), np.float32)
    for start in range(0, len(unit), _ROWS):
        stop = min(start + _ROWS, len(unit))
        sums = neighbour_sums(weights, unit, start, stop)  # (rows, D)
        norms[start:stop] = np.sqrt(np.einsum("nd,nd->n", sums, sums))
        yield Progress(stage, stop, len(unit), "patches")
    valid = norms > 0
    weights.data /= np.repeat(np.where(valid, norms, 1), np.diff(weights.indptr))
    return Averages(weights, np.asarray(valid))
