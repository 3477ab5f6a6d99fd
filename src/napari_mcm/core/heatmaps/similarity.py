"""Similarity maps: the cosine of every patch of a slide to a query.

A query consists of similar and, optionally, dissimilar example patches. Features are
scaled to unit length, u(p) = f(p) / |f(p)|. The examples are combined by Rocchio's rule
without a previous query and with both weights 1, and each patch is scored by its cosine::

    q = mean of u(p) over similar examples - mean of u(n) over dissimilar examples
    score(x) = u(x) · q / |q|

For a given query the score orders patches as their mean cosine to the similar examples
less their mean cosine to the dissimilar ones does, of which it is a multiple, and it stays
between -1 and 1. Where the nearest example counts instead of the mean, the score is the
largest cosine to any of the similar examples, each less the mean of the dissimilar ones.

References
----------
Rocchio (1971), *Relevance feedback in information retrieval*, in *The SMART Retrieval
System*, pages 313-323; in the form of Manning, Raghavan and Schütze (2008), *Introduction
to Information Retrieval*, equation 9.3.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.heatmaps.heatmap import Heatmap

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

_THREADS = min(4, os.cpu_count() or 1)

_VALUES_PER_THREAD = 4_000_000

_NAMED = 6


class SimilarityIndex:
    """Features prepared for queries: normalised once, then one product per query.

    Parameters
    ----------
    features : FeatureSet
        N patches with D features. They are copied.

    Attributes
    ----------
    features : FeatureSet
        The features of the index, unchanged.
    valid : ndarray of bool, shape (N,)
        Patches that have a direction: status ``OK``, finite and not all zero.
    """

    def __init__(self, features: FeatureSet) -> None:
        self.features = features
        unit = np.array(features.features, np.float32, order="C")  # (N, D)
        lengths = np.sqrt(np.einsum("nd,nd->n", unit, unit))  # (N,)
        self.valid = features.ok & np.isfinite(lengths) & (lengths > 0)
        unit /= np.where(self.valid, lengths, 1)[:, None]
        unit[~self.valid] = 0
        self._unit = unit

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
        vectors = self._units(index)  # (examples, D)
        if pool == "max":
            kept = np.linspace(0, len(vectors) - 1, min(len(vectors), MOST_NEAREST))
            vectors = vectors[np.unique(np.rint(kept).astype(int))]  # (K, D)
        else:
            vectors = vectors.mean(axis=0, keepdims=True)  # (1, D)
        if _listed(against):
            vectors = vectors - self._units(against).mean(axis=0)
        lengths = np.linalg.norm(vectors, axis=1)  # (K,)
        # Below this length a direction is rounding error.
        vectors = vectors[lengths >= _NOWHERE]
        if not len(vectors):
            raise FeatureError(
                "the features of the example patches cancel each other out",
                hint="Choose other patches",
            )
        return np.asarray(vectors / lengths[lengths >= _NOWHERE, None], np.float32)

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
            cosine = _dot(self._unit, directions[0])
        else:
            # By parts, so that no product (N, K) is in memory.
            cosine = np.empty(len(self._unit), np.float32)
            for start in range(0, len(cosine), _ROWS):
                rows = self._unit[start : start + _ROWS]  # (rows, D)
                # (rows, D) @ (D, K), then the largest of K
                (rows @ directions.T).max(axis=1, out=cosine[start : start + _ROWS])
        # Rounding may exceed 1 by an ulp.
        np.clip(cosine, -1, 1, out=cosine)
        cosine[~self.valid] = np.nan
        return cosine

    def _units(self, patches: Patches) -> NDArray[np.float32]:
        listed = _listed(patches)
        for patch in listed or [-1]:
            if not 0 <= patch < len(self.valid):
                raise FeatureError(f"patch {patch} of {len(self.valid)} does not exist")
            if not self.valid[patch]:
                raise FeatureError(
                    f"patch {patch} has no features to compare with",
                    hint="Choose a patch that is neither blank nor damaged",
                )
        return np.asarray(self._unit[listed])


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


def similarity(
    features: FeatureSet | SimilarityIndex,
    query: Patches,
    against: Patches = (),
    limits: Limits = "fixed",
    pool: Pool = "mean",
) -> Heatmap:
    """Map the cosine similarity of all patches of a slide to example patches.

    Parameters
    ----------
    features : FeatureSet or SimilarityIndex
        N patches of one slide. Pass an index for many queries on the same features.
    query : int or sequence of int
        Similar example patches.
    against : int or sequence of int, optional
        Dissimilar example patches.
    limits : {"fixed", "robust", "encoder"}, optional
        Range of the colours: -1 to 1, which makes encoders comparable; the 2nd to the
        98th percentile of all patches but the examples, which shows structure where all
        features point in similar directions; or the range of many queries to this
        encoder, which makes its maps comparable.
    pool : {"mean", "max"}, optional
        Whether the mean of several similar examples counts, or the nearest one.

    Returns
    -------
    Heatmap
        Its ``query`` is the first similar example.

    Raises
    ------
    FeatureError
        As for :meth:`SimilarityIndex.query`.
    """
    index = (
        features if isinstance(features, SimilarityIndex) else SimilarityIndex(features)
    )
    similar = _listed(query)
    title = title_of(similar, _listed(against), pool)
    directions = index.directions(query, against, pool)
    return heatmap_of(index, directions, title, limits, similar)


def title_of(like: list[int], unlike: list[int], pool: Pool = "mean") -> str:
    """Return the title of a map: ``cosine similarity to patch 7, away from patch 9``.

    Parameters
    ----------
    like, unlike : list of int
        Similar and dissimilar example patches.
    pool : {"mean", "max"}, optional
        How similar examples are combined.

    Returns
    -------
    str
        It names up to six patches of each kind, and counts more.
    """
    title = f"cosine similarity to {_name(like, pool)}"
    return f"{title}, away from {_name(unlike)}" if unlike else title


def heatmap_of(
    index: SimilarityIndex,
    directions: Directions,
    title: str,
    limits: Limits = "fixed",
    queries: Sequence[int] = (),
) -> Heatmap:
    """Map the cosine similarity of all patches of a slide to given directions.

    Parameters
    ----------
    index : SimilarityIndex
        N patches of one slide.
    directions : ndarray of float32, shape (K, D)
        The query, from :meth:`SimilarityIndex.directions`, possibly of another slide.
    title : str
        Title of the map.
    limits : {"fixed", "robust", "encoder"}, optional
        As for :func:`similarity`.
    queries : sequence of int, optional
        Example patches on this slide; the first is marked.

    Returns
    -------
    Heatmap
        With values, limits and title.

    Raises
    ------
    FeatureError
        If the query is of another encoder.
    """
    values = index.compare(directions)
    ends = (-1.0, 1.0)
    if limits == "robust":
        ends = robust_range(values, queries)
    elif limits == "encoder":
        ends = rounded(*usual_range(index))
    marked = queries[0] if len(queries) else None
    return Heatmap(values, index.features.grid, ends, title, query=marked)


def _listed(patches: Patches) -> list[int]:
    return [int(patches)] if isinstance(patches, int | np.integer) else list(patches)


def _name(patches: list[int], pool: Pool = "mean") -> str:
    plural = "es" if len(patches) > 1 else ""
    if len(patches) > _NAMED:
        nearest = "the nearest of " if pool == "max" else ""
        return f"{nearest}{len(patches):,} patches"
    nearest = "the nearer of " if pool == "max" and plural else ""
    return f"{nearest}patch{plural} {', '.join(map(str, patches))}"


Limits = Literal["fixed", "robust", "encoder"]
"""Colour range: -1 to 1; the map's own values; or many queries to the same encoder."""


PERCENTILES = (2.0, 98.0)

_LEAST = 1e-3


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
    return (low, high) if high - low > 1e-6 else (low - _LEAST, low + _LEAST)


def usual_range(index: SimilarityIndex, queries: int = 32) -> tuple[float, float]:
    """Return the range of similarities over random queries on a slide.

    One range per encoder makes its maps comparable between queries.

    Parameters
    ----------
    index : SimilarityIndex
        N patches of one slide.
    queries : int, optional
        Number of random query patches.

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
