"""Graphs of nearest neighbours by usearch: made, opened and asked."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.heatmaps.similarity_index import Directions

_CONNECTIVITY, _EXPANSION_ADD = 16, 64

RECIPE = f"f16 {_CONNECTIVITY} {_EXPANSION_ADD}"
"""What a graph depends on besides its vectors."""

_OPEN_GRAPHS = 256
"""Graphs that stay open between queries; each holds a file handle."""


def check_library() -> None:
    """Check that the index can be used here.

    Raises
    ------
    ConfigError
        If its library is not installed; the message says how to install it.
    """
    try:
        import usearch.index  # noqa: F401
    except ImportError:
        raise ConfigError(
            "an index needs a library that is not installed",
            "--index",
            'Install it with: pip install "napari-mcm[search]", or use --index off',
        ) from None


def new_graph(dim: int) -> Any:
    """Return an empty graph for unit vectors.

    Parameters
    ----------
    dim : int
        Length of the vectors.

    Returns
    -------
    usearch.index.Index
        In half precision.
    """
    from usearch.index import Index

    # Named, as the library's own choice may be bfloat16: too coarse to rank by.
    return Index(
        ndim=dim,
        metric="cos",
        dtype="f16",
        connectivity=_CONNECTIVITY,
        expansion_add=_EXPANSION_ADD,
    )


@lru_cache(maxsize=_OPEN_GRAPHS)
def open_graph(path: Path, changed: int, dim: int) -> Any:
    """Open a graph, which stays on the disk and is mapped into memory.

    Parameters
    ----------
    path : Path
        Its file.
    changed : int
        When it was changed: a file that is written again is opened again.
    dim : int
        Length of its vectors.

    Returns
    -------
    usearch.index.Index
        For queries only.

    Raises
    ------
    ValueError
        If it has vectors of another length.
    """
    from usearch.index import Index

    graph = Index(ndim=dim, metric="cos", dtype="f16", enable_key_lookups=False)
    graph.view(str(path))
    if graph.ndim != dim:
        raise ValueError(f"{path} has vectors of {graph.ndim} values")
    return graph


def ask(
    graph: Any, directions: Directions, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the patches of a graph that are nearest to any of several directions.

    Parameters
    ----------
    graph : usearch.index.Index
        Of unit vectors.
    directions : ndarray of float32, shape (K, D)
        Unit vectors.
    count : int
        Number of patches, at most.

    Returns
    -------
    rows : ndarray of int64, shape (n,)
        The patches, the nearest first.
    cosines : ndarray of float32, shape (n,)
        Rounded as the vectors are.
    """
    best: dict[int, float] = {}
    for direction in directions:
        found = graph.search(direction, count, threads=1)
        for row, distance in zip(
            np.asarray(found.keys).tolist(),
            np.asarray(found.distances).tolist(),
            strict=True,
        ):
            best[row] = max(best.get(row, -1.0), 1.0 - distance)
    ranked = sorted(best.items(), key=lambda one: (-one[1], one[0]))[:count]
    rows = np.array([row for row, _ in ranked], np.int64)
    return rows, np.array([value for _, value in ranked], np.float32)
