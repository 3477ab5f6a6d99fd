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

With a neighbourhood, f(p) is the mean of the features around p; its direction is computed
by :mod:`napari_mcm.core.heatmaps.averages`.

References
----------
Rocchio (1971), *Relevance feedback in information retrieval*, in *The SMART Retrieval
System*, pages 313-323; in the form of Manning, Raghavan and Schütze (2008), *Introduction
to Information Retrieval*, equation 9.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.heatmaps.color_limits import (
    LEAST_WIDTH,
    PERCENTILES,
    Limits,
    robust_range,
    rounded,
)
from napari_mcm.core.heatmaps.heatmap import Heatmap, name_context
from napari_mcm.core.heatmaps.similarity_index import (
    Directions,
    Patches,
    Pool,
    SimilarityIndex,
    listed,
)

_NAMED = 6


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
        Its ``query`` is the first similar example. Where the index has a neighbourhood,
        so has the map.

    Raises
    ------
    FeatureError
        As for :meth:`SimilarityIndex.query`.
    """
    index = (
        features if isinstance(features, SimilarityIndex) else SimilarityIndex(features)
    )
    similar = listed(query)
    title = title_of(similar, listed(against), pool)
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
        Title of the map, to which the neighbourhood is added.
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
    around = index.neighbourhood
    title = name_context(title, around)
    grid = index.features.grid
    return Heatmap(values, grid, ends, title, query=marked, neighbourhood=around)


def _name(patches: list[int], pool: Pool = "mean") -> str:
    plural = "es" if len(patches) > 1 else ""
    if len(patches) > _NAMED:
        nearest = "the nearest of " if pool == "max" else ""
        return f"{nearest}{len(patches):,} patches"
    nearest = "the nearer of " if pool == "max" and plural else ""
    return f"{nearest}patch{plural} {', '.join(map(str, patches))}"


def usual_range(index: SimilarityIndex, queries: int = 32) -> tuple[float, float]:
    """Return the range of similarities over random queries on a slide.

    One range per encoder and neighbourhood makes its maps comparable between queries.
    It is measured once per index.

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
    known = index.usual_ranges.get(index.neighbourhood)
    if known is not None and known[0] == queries:
        return known[1:]
    low, high = _measure_range(index, queries)
    index.usual_ranges[index.neighbourhood] = (queries, low, high)
    return low, high


def has_usual_range(index: SimilarityIndex) -> bool:
    """Return whether :func:`usual_range` takes no time.

    Parameters
    ----------
    index : SimilarityIndex
        N patches of one slide.

    Returns
    -------
    bool
    """
    return index.neighbourhood in index.usual_ranges


def _measure_range(index: SimilarityIndex, queries: int) -> tuple[float, float]:
    patches = np.flatnonzero(index.valid)
    if len(patches) < 2:
        return -1.0, 1.0
    drawn = np.random.default_rng(0).permutation(patches)[:queries]
    values = index.cosines(index.units(drawn.tolist()))  # (N, queries)
    values[drawn, np.arange(len(drawn))] = np.nan  # the query itself
    low, high = np.percentile(values[np.isfinite(values)], PERCENTILES)
    return float(low), float(max(high, low + LEAST_WIDTH))
