"""Candidates for the patches to label next, of the open slides and of closed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import McmError
from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.features.neighbourhood import has_features
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.labelling import (
    LabelSet,
    PatchClassifier,
    features_of_rows,
    rows_of_labels,
)

MOST_RANDOM, MOST_OF_CLASS = 1500, 100
"""Patches of a slide that are compared: some of all, and some of each predicted class."""
MOST_CLOSED = 40_000
"""Patches of closed slides that are kept in memory, of all slides together."""


@dataclass(frozen=True)
class Suggestion:
    """A patch to label next.

    Attributes
    ----------
    slide : str
        Fingerprint of its slide.
    grid : PatchGrid
        Patches of the slide.
    row : int
        Row of the grid.
    label : str
        The likeliest class; empty before there is a classifier.
    probability : float
        Of that class.
    """

    slide: str
    grid: PatchGrid
    row: int
    label: str
    probability: float

    @property
    def key(self) -> tuple[str, int, int]:
        """What identifies the patch, whatever was computed of it."""
        x, y = self.grid.xy[self.row].tolist()
        return self.slide, x, y


@dataclass(frozen=True, eq=False)
class Pool:
    """Some patches of one slide.

    Attributes
    ----------
    grid : PatchGrid
        All patches of the slide.
    rows : ndarray of int64, shape (n,)
        The patches.
    features : ndarray of float32, shape (n, D)
        Their features, averaged over their neighbours.
    """

    grid: PatchGrid
    rows: NDArray[np.int64]
    features: NDArray[np.float32]


class ClosedPools:
    """Patches of slides that are not open, read from feature files once.

    Called in one thread only.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Path, NeighbourhoodConfig], Pool | None] = {}

    def of(
        self, files: Mapping[str, Path], neighbourhood: NeighbourhoodConfig
    ) -> list[Pool]:
        """Return patches of each file, at random.

        Parameters
        ----------
        files : mapping of str to Path
            Feature files by the fingerprint of the slide.
        neighbourhood : NeighbourhoodConfig
            What features are averaged over.
        """
        count = max(MOST_CLOSED // max(len(files), 1), 50)
        found = []
        for path in files.values():
            key = path, neighbourhood
            if key not in self._known:
                self._known[key] = _read(path, neighbourhood, count)
            if (pool := self._known[key]) is not None:
                found.append(pool)
        return found


def _read(path: Path, neighbourhood: NeighbourhoodConfig, count: int) -> Pool | None:
    from napari_mcm.core.features.reading import read_features

    try:
        features = read_features(path)
    except McmError:
        # Of a file that is gone, nothing is suggested.
        return None
    rows = np.flatnonzero(has_features(features))
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(rows)[:count])
    return Pool(features.grid, rows, features_of_rows(features, rows, neighbourhood))


def pool_of(
    features: FeatureSet,
    probabilities: NDArray[np.float32] | None,
    neighbourhood: NeighbourhoodConfig,
    labels: LabelSet,
    seed: int = 0,
) -> Pool:
    """Return some patches of a slide, of all predicted classes.

    Parameters
    ----------
    features : FeatureSet
        N patches of the slide.
    probabilities : ndarray of float32, shape (N, K), or None
        Of the classes, if there is a classifier.
    neighbourhood : NeighbourhoodConfig
        What features are averaged over.
    labels : LabelSet
        All labels; those of the slide are among the patches.
    seed : int
        Random seed.
    """
    rows = np.flatnonzero(has_features(features))
    rng = np.random.default_rng(seed)
    # The labelled ones, too: what is suggested differs from them.
    own = np.intersect1d(rows, rows_of_labels(labels, features)[0])
    some = np.union1d(own, rng.permutation(rows)[:MOST_RANDOM])
    if probabilities is not None and len(rows) > MOST_RANDOM:
        # A random sample has next to none of a rare class.
        classes = probabilities[rows].argmax(axis=1)
        for kind in range(probabilities.shape[1]):
            found = rng.permutation(rows[classes == kind])[:MOST_OF_CLASS]
            some = np.union1d(some, found)
    some = np.sort(some)
    return Pool(features.grid, some, features_of_rows(features, some, neighbourhood))


def suggest(
    pools: Sequence[Pool],
    classifier: PatchClassifier | None,
    labels: LabelSet,
    besides: frozenset[tuple[str, int, int]],
    count: int,
) -> list[Suggestion]:
    """Return patches whose labels would teach the classifier most.

    Parameters
    ----------
    pools : sequence of Pool
        Patches to choose from.
    classifier : PatchClassifier or None
        What is known so far.
    labels : LabelSet
        Labels, whose patches are not suggested.
    besides : frozenset
        Keys of patches that the user skipped, see :attr:`Suggestion.key`.
    count : int
        Number of patches.
    """
    pools = [pool for pool in pools if len(pool.rows)]
    if not pools:
        return []
    features = np.concatenate([pool.features for pool in pools])
    known = np.concatenate([_known(pool, labels, besides) for pool in pools])
    names: tuple[str, ...] = ()
    probabilities: NDArray[np.float32] | None = None
    if classifier is not None:
        names, probabilities = classifier.names, classifier.probabilities(features)
    from napari_mcm.core.labelling.selection import Strategy, choose_next

    # Typical ones of all kinds, until there are classes.
    strategy: Strategy = "random" if probabilities is not None else "balanced"
    rows = choose_next(
        features, probabilities, np.flatnonzero(known), count, len(labels), strategy
    )
    starts = np.cumsum([0, *(len(pool.rows) for pool in pools)])
    found = []
    for row in rows.tolist():
        at = int(np.searchsorted(starts, row, "right")) - 1
        likely = None if probabilities is None else probabilities[row]
        best = 0 if likely is None else int(likely.argmax())
        found.append(
            Suggestion(
                str(pools[at].grid.slide.get("fingerprint") or ""),
                pools[at].grid,
                int(pools[at].rows[row - starts[at]]),
                "" if likely is None else names[best],
                float("nan") if likely is None else float(likely[best]),
            )
        )
    return found


def _known(
    pool: Pool, labels: LabelSet, besides: frozenset[tuple[str, int, int]]
) -> NDArray[np.bool_]:
    """Return which patches of a pool are labelled, or were skipped."""
    labelled = np.isin(pool.rows, rows_of_labels(labels, pool.grid)[0])
    slide = str(pool.grid.slide.get("fingerprint") or "")
    corners = {key[1:] for key in besides if key[0] == slide}
    if corners:
        places = pool.grid.xy[pool.rows].tolist()
        labelled |= np.asarray([(x, y) in corners for x, y in places])
    return np.asarray(labelled)
