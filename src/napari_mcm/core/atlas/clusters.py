"""Clusters of patches, numbered from the largest to the smallest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BATCH = 4096

_STARTS = 3
"""Number of first guesses of k-means, of which the best counts."""


def kmeans_clusters(
    reduced: NDArray[np.float32], count: int, seed: int
) -> NDArray[np.int32]:
    """Put patches into clusters by mini-batch k-means.

    Parameters
    ----------
    reduced : ndarray of float32, shape (N, K)
        Principal components of the patches.
    count : int
        Number of clusters; of fewer patches, as many as there are.
    seed : int
        Seed: the same patches and seed give the same clusters.

    Returns
    -------
    ndarray of int32, shape (N,)
        Cluster of each patch, from 0, the largest.
    """
    from sklearn.cluster import MiniBatchKMeans

    count = min(count, len(reduced))
    fitted = MiniBatchKMeans(
        n_clusters=count, batch_size=_BATCH, n_init=_STARTS, random_state=seed
    ).fit(reduced)
    return by_size(fitted.labels_)


def by_size(labels: NDArray[np.integer]) -> NDArray[np.int32]:
    """Sort clusters from the largest to the smallest, and number them without gaps.

    Parameters
    ----------
    labels : ndarray of int, shape (N,)
        A cluster's number per patch, in any order.

    Returns
    -------
    ndarray of int32, shape (N,)
        From 0. Of clusters of one size, the one that a patch of a lower row is in comes
        first.
    """
    _, first, inverse, sizes = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -sizes))
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return np.asarray(rank[inverse], np.int32)


def typical_patches(
    reduced: NDArray[np.float32],
    clusters: NDArray[np.integer],
    cluster: int,
    count: int,
    slides: NDArray[np.integer] | None = None,
) -> NDArray[np.intp]:
    """Return the patches that show best what a cluster is: those next to its mean.

    Parameters
    ----------
    reduced : ndarray of float32, shape (N, K)
        Principal components of the patches.
    clusters : ndarray of int, shape (N,)
        Cluster of each patch.
    cluster : int
        The cluster.
    count : int
        How many patches to return at most.
    slides : ndarray of int, shape (N,), optional
        Slide of each patch: each slide gives at most so many patches as its share of the
        cluster, rounded up, so that not one slide alone shows it.

    Returns
    -------
    ndarray of int
        Patches, the most typical one first.
    """
    members = np.flatnonzero(clusters == cluster)
    if not len(members):
        return members
    vectors = reduced[members].astype(np.float64)
    distance = np.linalg.norm(vectors - vectors.mean(axis=0), axis=1)
    nearest = members[np.argsort(distance, kind="stable")]
    if slides is None:
        return nearest[:count]
    kept = []
    left = {
        int(slide): -(-count * int(number) // len(members))
        for slide, number in zip(
            *np.unique(slides[members], return_counts=True), strict=True
        )
    }
    for patch in nearest:
        slide = int(slides[patch])
        if left[slide] > 0:
            left[slide] -= 1
            kept.append(patch)
        if len(kept) == count:
            break
    return np.asarray(kept, np.intp)
