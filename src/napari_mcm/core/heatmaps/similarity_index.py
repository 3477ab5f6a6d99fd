"""The `SimilarityIndex`: the features of a slide, prepared for many queries."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import (
    PATCH_ALONE,
    FeatureSet,
    NeighbourhoodConfig,
)
from napari_mcm.core.features.neighbourhood import refuse_averaged
from napari_mcm.core.heatmaps.averages import Averages, measure_averages
from napari_mcm.core.runtime.jobs import Job, run

Patches = int | Sequence[int]

Directions = NDArray[np.float32]
"""A query in one encoder's feature space: unit vectors (K, D); the nearest counts."""


Cosines = NDArray[np.float32]

Pool = Literal["mean", "max"]
"""How similar examples are combined: by their mean, or by the nearest of them."""


MOST_NEAREST = 64
"""Largest number of examples where the nearest counts; more are thinned evenly."""


_NOWHERE = 1e-5

_ROWS = 8192

# Directions of which the nearest counts, and which are compared at once.
_TOGETHER = 16

_THREADS = min(4, os.cpu_count() or 1)

_VALUES_PER_THREAD = 4_000_000


class SimilarityIndex:
    """Features prepared for queries: normalised once, then one product per query.

    With a neighbourhood, patches are compared by their features averaged over the tissue
    around them. The averages are never stored: the product of the query with the features
    of single patches is averaged instead, see :mod:`napari_mcm.core.heatmaps.averages`.

    Parameters
    ----------
    features : FeatureSet
        N patches with D features. They are copied.
    neighbourhood : NeighbourhoodConfig, optional
        Which patches to average over; by default the patch alone, or what the features
        are averages over already.

    Attributes
    ----------
    features : FeatureSet
        The features of the index, unchanged.
    neighbourhood : NeighbourhoodConfig
        Which patches a patch is compared with; that of the features where they are
        averages already.
    valid : ndarray of bool, shape (N,)
        Patches that have a direction: status ``OK``, finite and not all zero.
    usual_ranges : dict
        What :func:`usual_range` measured: neighbourhood to (queries, low, high).

    Raises
    ------
    FeatureError
        If the features are averages over another neighbourhood already.
    """

    def __init__(
        self,
        features: FeatureSet,
        neighbourhood: NeighbourhoodConfig = PATCH_ALONE,
    ) -> None:
        self.features = features
        self.neighbourhood = features.neighbourhood
        unit = np.array(features.features, np.float32, order="C")  # (N, D)
        lengths = np.sqrt(np.einsum("nd,nd->n", unit, unit))  # (N,)
        self.valid = features.ok & np.isfinite(lengths) & (lengths > 0)
        unit /= np.where(self.valid, lengths, 1)[:, None]
        unit[~self.valid] = 0
        self._unit, self._own_valid = unit, self.valid
        self._lengths = np.where(self.valid, lengths, 0).astype(np.float32)
        self.usual_ranges: dict[NeighbourhoodConfig, tuple[int, float, float]] = {}
        self._known: dict[NeighbourhoodConfig, Averages] = {}
        self._averages: Averages | None = None
        if not self.is_prepared(neighbourhood):
            self._use(neighbourhood, run(self._measure(neighbourhood)))

    def at(self, neighbourhood: NeighbourhoodConfig) -> SimilarityIndex:
        """Return the index of the same features for another neighbourhood.

        Parameters
        ----------
        neighbourhood : NeighbourhoodConfig
            Which patches to average over.

        Returns
        -------
        SimilarityIndex
            It shares all arrays with this one. The first time, norms are computed: a
            second or so for 100,000 patches; afterwards it takes no time.

        Raises
        ------
        FeatureError
            If the features are averages over another neighbourhood already.
        """
        return run(self.prepare(neighbourhood))

    def prepare(self, neighbourhood: NeighbourhoodConfig) -> Job[SimilarityIndex]:
        """Do what :meth:`at` does, as a job.

        Parameters
        ----------
        neighbourhood : NeighbourhoodConfig
            Which patches to average over.

        Yields
        ------
        Progress
            In patches.

        Returns
        -------
        SimilarityIndex
            As :meth:`at` returns it.

        Raises
        ------
        FeatureError
            If the features are averages over another neighbourhood already.
        """
        other = copy(self)
        if not neighbourhood.radius or neighbourhood == self.features.neighbourhood:
            other._use(self.features.neighbourhood, None)
        else:
            other._use(neighbourhood, (yield from self._measure(neighbourhood)))
        return other

    def is_prepared(self, neighbourhood: NeighbourhoodConfig) -> bool:
        """Return whether :meth:`at` takes no time.

        Parameters
        ----------
        neighbourhood : NeighbourhoodConfig
            Which patches to average over.

        Returns
        -------
        bool
        """
        plain = not neighbourhood.radius or neighbourhood == self.features.neighbourhood
        return plain or neighbourhood in self._known

    def _measure(self, neighbourhood: NeighbourhoodConfig) -> Job[Averages]:
        refuse_averaged(self.features)
        if (known := self._known.get(neighbourhood)) is not None:
            return known
        found = yield from measure_averages(
            self.features, self._unit, self._lengths, neighbourhood
        )
        # Shared by all indices of the features.
        return self._known.setdefault(neighbourhood, found)

    def _use(self, neighbourhood: NeighbourhoodConfig, found: Averages | None) -> None:
        self.neighbourhood, self._averages = neighbourhood, found
        self.valid = self._own_valid if found is None else found.valid

    def query(
        self, index: Patches, against: Patches = (), pool: Pool = "mean"
    ) -> NDArray[np.float32]:
        """Return the cosine similarity of every patch to one or several examples.

        Parameters
        ----------
        index : int or sequence of int
            Similar example patches.
        against : int or sequence of int, optional
            Dissimilar example patches. Their mean direction is subtracted from that of
            `index`.
        pool : {"mean", "max"}, optional
            Whether the mean direction of `index` counts, or, for every patch, the
            nearest one.

        Returns
        -------
        ndarray of float32, shape (N,)
            Cosine similarity, -1 to 1; NaN for patches without features.

        Raises
        ------
        FeatureError
            If an example does not exist or has no features, or if the examples cancel
            out, for example because the same patch is similar and dissimilar.
        """
        return self.compare(self.directions(index, against, pool))

    def directions(
        self, index: Patches, against: Patches = (), pool: Pool = "mean"
    ) -> Directions:
        """Return a query as unit vectors, which can be compared on other slides.

        Parameters
        ----------
        index : int or sequence of int
            Similar example patches.
        against : int or sequence of int, optional
            Dissimilar example patches.
        pool : {"mean", "max"}, optional
            As for :meth:`query`.

        Returns
        -------
        ndarray of float32, shape (K, D)
            Unit vectors: one for ``"mean"``, one per example for ``"max"``.

        Raises
        ------
        FeatureError
            As for :meth:`query`.
        """
        away = self.units(against) if listed(against) else None
        return combine(self.units(index), away, pool)

    def compare(self, directions: Directions) -> NDArray[np.float32]:
        """Return the cosine of every patch to the nearest of several directions.

        Parameters
        ----------
        directions : ndarray of float32, shape (K, D)
            From :meth:`directions`, of this slide or another one.

        Returns
        -------
        ndarray of float32, shape (N,)
            Cosine similarity, -1 to 1; NaN for patches without features.

        Raises
        ------
        FeatureError
            If the length D differs, as it does between encoders.
        """
        if directions.ndim != 2 or directions.shape[1] != self._unit.shape[1]:
            raise FeatureError(
                f"a query of {directions.shape[-1]} values does not fit features of "
                f"{self._unit.shape[1]} values",
                hint="Use features of the encoder that the query was made with",
            )
        if len(directions) == 1:
            cosine = self._averaged(_dot(self._unit, directions[0]))
        else:
            cosine = self._nearest(directions)
        # Rounding may exceed 1 by an ulp.
        np.clip(cosine, -1, 1, out=cosine)
        cosine[~self.valid] = np.nan
        return cosine

    def cosines(self, directions: Directions) -> NDArray[np.float32]:
        """Return the cosine of every patch to each of several directions.

        Parameters
        ----------
        directions : ndarray of float32, shape (K, D)
            Unit vectors.

        Returns
        -------
        ndarray of float32, shape (N, K)
            Cosine similarity; NaN for patches without features.
        """
        products = np.empty((len(self._unit), len(directions)), np.float32)
        for start in range(0, len(products), _ROWS):
            some = slice(start, start + _ROWS)
            np.matmul(self._unit[some], directions.T, out=products[some])
        products = self._averaged(products)
        products[~self.valid] = np.nan
        return products

    def units(self, patches: Patches) -> NDArray[np.float32]:
        """Return the unit vectors of patches.

        Parameters
        ----------
        patches : int or sequence of int
            M patches.

        Returns
        -------
        ndarray of float32, shape (M, D)
            Of their features, averaged over the neighbourhood.

        Raises
        ------
        FeatureError
            If a patch does not exist or has no features.
        """
        rows = listed(patches)
        for patch in rows or [-1]:
            if not 0 <= patch < len(self.valid):
                raise FeatureError(f"patch {patch} of {len(self.valid)} does not exist")
            if not self.valid[patch]:
                raise FeatureError(
                    f"patch {patch} has no features to compare with",
                    hint="Choose a patch that is neither blank nor damaged",
                )
        if self._averages is None:
            return np.asarray(self._unit[rows])
        return self._averages.apply(self._unit, rows)

    def _averaged(self, products: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn products of single patches, (N,) or (N, K), into those of averages."""
        if self._averages is None:
            return products
        return self._averages.apply(products)

    def _nearest(self, directions: Directions) -> Cosines:
        """Return the largest cosine (N,) to any of K directions."""
        best = np.full(len(self._unit), -np.inf, np.float32)
        # By parts, so that no product (N, K) is in memory.
        for start in range(0, len(directions), _TOGETHER):
            some = self.cosines(directions[start : start + _TOGETHER])  # (N, part of K)
            np.fmax(best, some.max(axis=1), out=best)
        return best


def combine(
    similar: NDArray[np.float32],
    dissimilar: NDArray[np.float32] | None = None,
    pool: Pool = "mean",
) -> Directions:
    """Combine the unit vectors of examples, of one slide or several, to a query.

    Parameters
    ----------
    similar : ndarray of float32, shape (M, D)
        Unit vectors of similar examples.
    dissimilar : ndarray of float32, shape (L, D), optional
        Unit vectors of dissimilar examples, whose mean is subtracted.
    pool : {"mean", "max"}, optional
        Whether the mean of the similar examples counts, or the nearest of them.

    Returns
    -------
    ndarray of float32, shape (K, D)
        Unit vectors: one for ``"mean"``, one per example for ``"max"``.

    Raises
    ------
    FeatureError
        If the examples cancel out.
    """
    vectors = similar
    if pool == "max":
        kept = np.linspace(0, len(vectors) - 1, min(len(vectors), MOST_NEAREST))
        vectors = vectors[np.unique(np.rint(kept).astype(int))]  # (K, D)
    else:
        vectors = vectors.mean(axis=0, keepdims=True)  # (1, D)
    if dissimilar is not None:
        vectors = vectors - dissimilar.mean(axis=0)
    lengths = np.linalg.norm(vectors, axis=1)  # (K,)
    # Below this length a direction is rounding error.
    vectors = vectors[lengths >= _NOWHERE]
    if not len(vectors):
        raise FeatureError(
            "the features of the example patches cancel each other out",
            hint="Choose other patches",
        )
    return np.asarray(vectors / lengths[lengths >= _NOWHERE, None], np.float32)


def _dot(unit: NDArray[np.float32], direction: NDArray[np.float32]) -> Cosines:
    """Multiply (N, D) by (D,) in threads, as reading the features takes the time.

    A matrix product is as fast, but its threads spin for a while afterwards and compete
    with the one that paints the result.
    """
    cosine = np.empty(len(unit), np.float32)
    parts = min(_THREADS, -(-unit.size // _VALUES_PER_THREAD)) or 1
    edges = np.linspace(0, len(unit), parts + 1).astype(int)

    def part(first: int, last: int) -> None:
        np.vecdot(unit[first:last], direction, out=cosine[first:last])

    if parts == 1:
        part(0, len(unit))
    else:
        list(_pool().map(part, edges[:-1], edges[1:]))
    return cosine


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="similarity")


def listed(patches: Patches) -> list[int]:
    """Return one or several patches as a list.

    Parameters
    ----------
    patches : int or sequence of int
        Rows of a grid.

    Returns
    -------
    list of int
    """
    return [int(patches)] if isinstance(patches, int | np.integer) else list(patches)
