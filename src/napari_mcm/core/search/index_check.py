"""The check of an index against exact search, made while it is built."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.features.mapped import MappedFeatures
from napari_mcm.core.search import graph as graphs
from napari_mcm.core.search.scoring import index_of

LEAST_RECALL = 0.95
"""Fraction of the ten best patches that a part must find."""

NEIGHBOURS = 10
"""Number of best patches that are compared."""

_PROBES = 32
"""Queries of a part's check from its own slide; as many come from other slides."""

_EXPANSIONS = (64, 128, 256, 512, 1024)


class Probes:
    """Queries with which parts are checked: of their own slide, and of earlier ones."""

    def __init__(self) -> None:
        self._of_others: list[NDArray[np.float32]] = []

    def begin(
        self,
        features: MappedFeatures,
        rows: NDArray[np.int64],
        neighbourhood: NeighbourhoodConfig,
    ) -> Check:
        """Draw the queries for one part.

        Parameters
        ----------
        features : MappedFeatures
            The file that is indexed.
        rows : ndarray of int64, shape (n,)
            Its patches that have features.
        neighbourhood : NeighbourhoodConfig
            Over which patches features are averaged.

        Returns
        -------
        Check
            To follow the blocks of the file.
        """
        rng = np.random.default_rng(len(rows))
        drawn = np.sort(rng.choice(rows, min(_PROBES, len(rows)), replace=False))
        inside, index = index_of(features, drawn, neighbourhood)
        own = index.units(inside[index.valid[inside]].tolist())
        others = self._of_others[-_PROBES:]
        # One of each slide: neighbours on a slide are alike.
        self._of_others.append(own[0])
        return Check(np.concatenate([own, *(one[None] for one in others)]))


class Check:
    """Exact search for some queries, while the blocks of a part pass by.

    Parameters
    ----------
    queries : ndarray of float32, shape (P, D)
        Unit vectors.
    """

    def __init__(self, queries: NDArray[np.float32]) -> None:
        self._queries = queries  # (P, D)
        self._rows = np.zeros((len(queries), 0), np.int64)
        self._values = np.zeros((len(queries), 0), np.float32)

    def see(self, rows: NDArray[np.int64], units: NDArray[np.float32]) -> None:
        """Compare the queries with a block.

        Parameters
        ----------
        rows : ndarray of int64, shape (n,)
            Its patches.
        units : ndarray of float32, shape (n, D)
            Their unit vectors.
        """
        values = np.concatenate([self._values, self._queries @ units.T], axis=1)
        known = np.concatenate(
            [self._rows, np.broadcast_to(rows, (len(self._queries), len(rows)))], axis=1
        )
        best = np.argsort(-values, axis=1, kind="stable")[:, :NEIGHBOURS]
        self._values = np.take_along_axis(values, best, axis=1)
        self._rows = np.take_along_axis(known, best, axis=1)

    def widen(self, graph: Any) -> tuple[int, float] | None:
        """Widen the search of a graph until it finds the best patches.

        Parameters
        ----------
        graph : usearch.index.Index
            Of all blocks.

        Returns
        -------
        tuple of (int, float) or None
            How many candidates a query must follow, and the recall; None where no
            number is enough.
        """
        for expansion in _EXPANSIONS:
            graph.expansion_search = expansion
            hits = 0
            for query, wanted in zip(self._queries, self._rows, strict=True):
                rows, _ = graphs.ask(graph, query[None], NEIGHBOURS)
                hits += len(np.intersect1d(rows, wanted))
            recall = hits / max(self._rows.size, 1)
            if recall >= LEAST_RECALL:
                return expansion, recall
        return None
