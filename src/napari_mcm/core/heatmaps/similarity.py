"""How alike patches look to an encoder: cosine of examples to all other patches.

Several examples are put together by the rule of Rocchio (1971), *Relevance feedback in
information retrieval*, in *The SMART Retrieval System*, pages 313-323, as Manning,
Raghavan and Schütze write it (2008, *Introduction to Information Retrieval*, equation
9.3), without an older query and with both weights 1, on features of length 1::

    q = mean of u(p) over patches to be like - mean of u(n) over patches to be unlike
    score of a patch = cosine of its features and q

For a given query the cosine puts patches in the same order as their mean cosine to the
patches to be like less their mean cosine to those to be unlike, of which it is a
multiple, and it stays between -1 and 1.
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
"""What a query is to one encoder: K unit vectors (K, D); the nearest one counts."""


Cosines = NDArray[np.float32]

Pool = Literal["mean", "max"]
"""Of several patches to be like, their mean counts, or whichever is nearest."""


MOST_NEAREST = 64
"""Where the nearest counts, no more patches are compared with, drawn evenly."""


_NOWHERE = 1e-5

_ROWS = 8192

_THREADS = min(4, os.cpu_count() or 1)

_A_THREAD_S_WORK = 4_000_000

_NAMED = 6


class SimilarityIndex:
    """Features made ready for queries: normalised once, then one product a query.

    Parameters
    ----------
    features : FeatureSet
        N patches with D features. They are copied, and left as they are.

    Attributes
    ----------
    features : FeatureSet
        What the index was made from.
    valid : ndarray of bool, shape (N,)
        Patches that have a direction: status ``OK``, finite and not all zero.
    """

    def __init__(self, features: FeatureSet) -> None:
        self.features = features
        unit = np.array(features.features, np.float32, order="C")
        lengths = np.sqrt(np.einsum("nd,nd->n", unit, unit))
        self.valid = features.ok & np.isfinite(lengths) & (lengths > 0)
        unit /= np.where(self.valid, lengths, 1)[:, None]
        unit[~self.valid] = 0
        self._unit = unit

    def query(
        self, index: Patches, against: Patches = (), pool: Pool = "mean"
    ) -> NDArray[np.float32]:
        """Compare all patches with one or several.

        Parameters
        ----------
        index : int or sequence of int
            Patches to be like.
        against : int or sequence of int
            Patches to be unlike. Their mean direction is taken away from that of
            `index`, and the cosine to what is left is given.
        pool : {"mean", "max"}
            Whether the mean of the directions of `index` counts, or, patch by patch,
            that which is nearest.

        Returns
        -------
        ndarray of float32, shape (N,)
            Cosine similarity, -1 to 1; NaN for patches without features.

        Raises
        ------
        FeatureError
            If a patch asked for does not exist or has no features, or if together they
            cancel out: those to be like and unlike are the same, say.
        """
        return self.compare(self.directions(index, against, pool))

    def directions(
        self, index: Patches, against: Patches = (), pool: Pool = "mean"
    ) -> Directions:
        """Say what a query is to this encoder: it can be asked of other slides.

        Parameters
        ----------
        index, against, pool
            As :meth:`query` takes them.

        Returns
        -------
        ndarray of float32, shape (K, D)
            Unit vectors; one, unless the nearest of several patches counts.

        Raises
        ------
        FeatureError
            As :meth:`query` does.
        """
        found = self._units(index)
        if pool == "max":
            kept = np.linspace(0, len(found) - 1, min(len(found), MOST_NEAREST))
            found = found[np.unique(np.rint(kept).astype(int))]
        else:
            found = found.mean(axis=0, keepdims=True)
        if _listed(against):
            found = found - self._units(against).mean(axis=0)
        lengths = np.linalg.norm(found, axis=1)
        found = found[lengths >= _NOWHERE]
        if not len(found):
            raise FeatureError(
                "the features of the patches asked for cancel each other out",
                hint="Choose other patches",
            )
        return np.asarray(found / lengths[lengths >= _NOWHERE, None], np.float32)

    def compare(self, directions: Directions) -> NDArray[np.float32]:
        """Give the cosine of each patch to the nearest of some directions.

        Parameters
        ----------
        directions : ndarray of float32, shape (K, D)
            From :meth:`directions`, of this slide or another one.

        Returns
        -------
        ndarray of float32, shape (N,)
            -1 to 1; NaN for patches without features.

        Raises
        ------
        FeatureError
            If they are of another encoder, so that their length differs.
        """
        if directions.ndim != 2 or directions.shape[1] != self._unit.shape[1]:
            raise FeatureError(
                f"a query of {directions.shape[-1]} values was asked of features that "
                f"have {self._unit.shape[1]}",
                hint="Ask the encoder that the query was made with",
            )
        if len(directions) == 1:
            cosine = _dot(self._unit, directions[0])
        else:
            cosine = np.empty(len(self._unit), np.float32)
            for start in range(0, len(cosine), _ROWS):
                rows = self._unit[start : start + _ROWS]
                (rows @ directions.T).max(axis=1, out=cosine[start : start + _ROWS])
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
                    hint="Choose a patch that could be read and is not blank",
                )
        return np.asarray(self._unit[listed])


def _dot(unit: NDArray[np.float32], direction: NDArray[np.float32]) -> Cosines:
    """Multiply, a part a thread: what it costs is reading the features.

    A matrix product does it as fast, but its threads go on spinning for a while, and
    compete with whoever paints the answer.
    """
    cosine = np.empty(len(unit), np.float32)
    parts = min(_THREADS, -(-unit.size // _A_THREAD_S_WORK)) or 1
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
    """Show how like a query patch all others are.

    Parameters
    ----------
    features : FeatureSet or SimilarityIndex
        N patches of one slide. Pass an index for many queries on the same features.
    query, against : int or sequence of int
        Patches to be like, and unlike (:meth:`SimilarityIndex.query`).
    limits : {"fixed", "robust", "encoder"}
        Range of the colours: -1 to 1, which lets encoders be compared; the 2nd to
        the 98th percentile of all patches but the queries, which shows the structure
        of features that all point much the same way; or that of many queries to this
        encoder, which lets its maps be compared.
    pool : {"mean", "max"}
        Of several patches to be like, the mean counts, or the nearest.

    Returns
    -------
    Heatmap
        Its ``query`` is the first patch asked for.
    """
    index = (
        features if isinstance(features, SimilarityIndex) else SimilarityIndex(features)
    )
    shown = _listed(query)
    title = title_of(shown, _listed(against), pool)
    directions = index.directions(query, against, pool)
    return heatmap_of(index, directions, title, limits, shown)


def title_of(like: list[int], unlike: list[int], pool: Pool = "mean") -> str:
    """Say what a map shows: ``cosine similarity to patch 7, away from patch 9``."""
    title = f"cosine similarity to {_name(like, pool)}"
    return f"{title}, away from {_name(unlike)}" if unlike else title


def heatmap_of(
    index: SimilarityIndex,
    directions: Directions,
    title: str,
    limits: Limits = "fixed",
    queries: Sequence[int] = (),
) -> Heatmap:
    """Show how like a query all patches are, one that came from another slide, say.

    Parameters
    ----------
    index : SimilarityIndex
        N patches of one slide.
    directions : ndarray of float32, shape (K, D)
        The query, as :meth:`SimilarityIndex.directions` gives it.
    title : str
        What the map shows.
    limits : {"fixed", "robust", "encoder"}
        As :func:`similarity` takes them.
    queries : sequence of int
        Patches of this slide that were asked for; the first is marked.

    Returns
    -------
    Heatmap
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
