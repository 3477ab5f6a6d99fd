"""Principal components: the axes along which features differ most."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

COMPONENTS = 50
"""Number of components that clusters and maps are made from."""

_BLOCK = 8192

# Multiply-adds up to which float64 takes no noticeable time.
_CHEAP = 2e10

_AXES_ROWS = 100_000
"""Rows from which the axes of more patches are computed, drawn at random."""


def reduce_features(
    vectors: NDArray[np.float32], components: int = COMPONENTS, seed: int = 0
) -> NDArray[np.float32]:
    """Return the first principal components of features.

    The axes are exact, from the scatter matrix of all rows; above 100,000 rows they are
    those of 100,000 rows drawn at random. The sign of an axis is such that its largest
    coefficient is positive, so that the same features always give the same map.

    Parameters
    ----------
    vectors : ndarray of float32, shape (N, D)
        Features.
    components : int, optional
        Number of components.
    seed : int, optional
        Seed of the draw.

    Returns
    -------
    ndarray of float32, shape (N, min(components, N, D))
        Coordinates along the axes, the most important one first; centred.
    """
    mean, axes = principal_axes(vectors, components, seed)
    reduced = np.empty((len(vectors), len(axes)), np.float32)
    turned = axes.T.astype(np.float32)  # (D, K)
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK] - mean  # (rows, D)
        reduced[start : start + _BLOCK] = block.astype(np.float32) @ turned
    return reduced


def principal_axes(
    vectors: NDArray[np.float32], components: int = COMPONENTS, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of features and their principal axes.

    Parameters
    ----------
    vectors : ndarray of float32, shape (N, D)
        Features.
    components : int, optional
        Number of axes.
    seed : int, optional
        Seed of the draw where there are more than 100,000 rows.

    Returns
    -------
    mean : ndarray of float64, shape (D,)
        The mean of the rows that the axes are of.
    axes : ndarray of float64, shape (min(components, N, D), D)
        Unit vectors, the most important one first.
    """
    from scipy.linalg import eigh

    rows = vectors
    if len(rows) > _AXES_ROWS:
        drawn = np.random.default_rng(seed).choice(len(rows), _AXES_ROWS, replace=False)
        rows = rows[np.sort(drawn)]
    count, size = rows.shape
    kept = min(components, count, size)
    mean = rows.mean(axis=0, dtype=np.float64)
    if count < size:
        # The smaller of the two products has the same eigenvalues.
        centred = rows - mean
        product = centred @ centred.T  # (N, N)
        _, found = eigh(product, subset_by_index=[count - kept, count - 1])
        axes = found.T @ centred  # (K, D)
    else:
        product = _scatter(rows, mean)
        _, found = eigh(product, subset_by_index=[size - kept, size - 1])
        axes = found.T
    return mean, _oriented(_unit(axes[::-1]))


def _scatter(
    rows: NDArray[np.float32], mean: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the scatter matrix (D, D) of rows."""
    size = rows.shape[1]
    cheap = len(rows) * size * size <= _CHEAP
    kind: Any = np.float64 if cheap else np.float32
    total = np.zeros((size, size))
    for start in range(0, len(rows), _BLOCK):
        block: NDArray[Any] = (rows[start : start + _BLOCK] - mean).astype(kind)
        total += block.T @ block
    return total


def _unit(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(axes, axis=1, keepdims=True)
    return np.asarray(axes / np.where(lengths > 0, lengths, 1))


def _oriented(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = np.abs(axes).argmax(axis=1)
    signs = np.sign(axes[np.arange(len(axes)), largest])
    return np.asarray(axes * np.where(signs == 0, 1, signs)[:, None])
