"""What to label next.

Three strategies. ``random``, the default, draws patches: by the rule that was set before
the measurements of ``docs/results/labelling.md`` no other one is better. ``margin`` takes
those that the classifier tells least apart: the smallest difference between the two
likeliest classes.
``balanced`` is margin with diversity, patch by patch:

1. The next patch is of the predicted class that has the fewest labels so far. Patches of
   small margin are mostly of the common classes, but a map is judged class by class.
2. Some patches of each predicted class are drawn at random; of these, those of smallest
   margin are the candidates, as many as are asked for. The least sure patches of all are
   often mixed or mislabelled ones, and a classifier of these alone is worse than one of
   random patches.
3. Of the candidates the one is taken whose features are least similar to any labelled or
   chosen patch: next to each other on the slide lie patches of one margin that show the
   same.

While fewer than two classes are labelled there is no margin. ``margin`` and ``balanced``
then take the most typical patch of each of the largest clusters of features that have no
label yet (as TypiClust does: Hacohen et al., "Active learning on a budget", ICML 2022).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import LabelError

Matrix = NDArray[np.float32]
Rows = NDArray[np.int64]

Strategy = Literal["random", "margin", "balanced"]

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

CLUSTERS = 32
"""Clusters that the first patches come from."""

DRAWN = 2
"""How many patches are drawn for each one that is asked for."""

# Clusters of a whole slide's patches would take seconds.
_SAMPLE, _STEPS = 2048, 10


def choose_next(
    features: Matrix,
    probabilities: Matrix | None,
    labelled_rows: Rows,
    count: int,
    seed: int = 0,
    strategy: Strategy = "random",
    drawn: int = DRAWN,
) -> Rows:
    """Choose the patches to label next.

    Parameters
    ----------
    features : ndarray of float32, shape (N, D)
        Features of all patches; patches without finite features are never chosen.
    probabilities : ndarray of float32, shape (N, K), or None
        Of the classifier trained on the labels so far, NaN without features. None while
        fewer than two classes are labelled.
    labelled_rows : ndarray of int64, shape (n,)
        Patches that are labelled, or were skipped: they are not chosen.
    count : int
        How many patches to choose.
    seed : int, optional
        Random seed: the same arguments give the same patches.
    strategy : {"random", "margin", "balanced"}, optional
        How to choose.
    drawn : int, optional
        For ``balanced``: patches that are drawn of each predicted class, as a multiple of
        the patches that are asked for per class. 1 is random within the class; a large
        number means the least sure patches of all.

    Returns
    -------
    ndarray of int64, shape (m,)
        Rows in the order in which to label them; m is `count`, or the number of patches
        that are left.

    Raises
    ------
    LabelError
        If there is no such strategy, or features and probabilities do not match.
    """
    _check(features, probabilities, strategy)
    if probabilities is not None and probabilities.shape[1] < 2:
        probabilities = None
    usable = _usable(features, probabilities)
    labelled = np.unique(np.asarray(labelled_rows, np.int64))
    taken = ~usable
    taken[labelled] = True
    free, known = np.flatnonzero(~taken), labelled[usable[labelled]]
    count = min(max(count, 0), len(free))
    if not count:
        return np.empty(0, np.int64)
    if strategy == "random":
        return np.random.default_rng(seed).choice(free, count, replace=False)
    if probabilities is None:
        return _typical(features, free, known, count, seed)
    if strategy == "margin":
        return _smallest(_margins(probabilities[free]), free, count)
    per_class = drawn * -(-count // probabilities.shape[1])
    rows = _candidates(probabilities, free, count, per_class, seed)
    return _balanced(features, probabilities, rows, known, count)


def _check(features: Matrix, probabilities: Matrix | None, strategy: str) -> None:
    if strategy not in STRATEGIES:
        raise LabelError(
            f"there is no strategy {strategy}",
            hint=f"The strategies are: {', '.join(STRATEGIES)}",
        )
    if probabilities is not None and len(probabilities) != len(features):
        raise LabelError(
            f"probabilities of {len(probabilities)} patches for {len(features)}"
        )


def _usable(features: Matrix, probabilities: Matrix | None) -> NDArray[np.bool_]:
    """Return which patches have features."""
    if probabilities is not None:
        # NaN where features are, and far smaller.
        return np.asarray(np.isfinite(probabilities).all(axis=1))
    # A sum is finite where its terms are, and needs no (N, D) array of booleans.
    return np.asarray(np.isfinite(features.sum(axis=1, dtype=np.float64)))


def _margins(probabilities: Matrix) -> Matrix:
    """Return how much likelier the likeliest class is than the second, 0 to 1."""
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.asarray(two[:, 1] - two[:, 0], np.float32)


def _smallest(values: Matrix, rows: Rows, count: int) -> Rows:
    """Return the rows of the smallest values, ascending; of equal ones the lower row."""
    if count < len(rows):
        kept = values <= np.partition(values, count - 1)[count - 1]
        values, rows = values[kept], rows[kept]
    return np.asarray(rows[np.argsort(values, kind="stable")[:count]], np.int64)


def _candidates(
    probabilities: Matrix, free: Rows, count: int, per_class: int, seed: int
) -> Rows:
    """Draw patches of each predicted class, and return the least sure of them."""
    rng = np.random.default_rng(seed)
    classes, margins = probabilities[free].argmax(axis=1), _margins(probabilities[free])
    found = []
    for kind in range(probabilities.shape[1]):
        (own,) = np.nonzero(classes == kind)
        # Fewer than are asked for would not fill the strip if this is the only class.
        most = min(max(per_class, count), len(own))
        own = np.sort(rng.choice(own, most, replace=False))
        found.append(_smallest(margins[own], free[own], count))
    return np.concatenate(found)


def _balanced(
    features: Matrix, probabilities: Matrix, rows: Rows, labelled: Rows, count: int
) -> Rows:
    """Choose of candidates by predicted class, then difference from what is known."""
    total = probabilities.shape[1]
    kinds = probabilities[rows].argmax(axis=1)
    # Predicted, not given, classes: skipped patches count, too.
    labels = np.bincount(probabilities[labelled].argmax(axis=1), minlength=total)
    mean = features[rows].mean(axis=0)
    directions = _directions(features[rows] - mean)  # (m, D)
    similar = np.full(len(rows), -np.inf)
    if len(labelled):
        similar = (directions @ _directions(features[labelled] - mean).T).max(axis=1)
    waiting, chosen = np.ones(len(rows), bool), []
    for _ in range(count):
        kind = min(np.unique(kinds[waiting]), key=lambda one: labels[one])
        among = np.flatnonzero(waiting & (kinds == kind))
        best = among[similar[among].argmin()]
        chosen.append(rows[best])
        waiting[best] = False
        labels[kind] += 1
        similar = np.maximum(similar, directions @ directions[best])
    return np.asarray(chosen, np.int64)


def _directions(features: Matrix) -> Matrix:
    """Return features scaled to unit length; zero stays zero."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(lengths > 0, lengths, 1), np.float32)


def _typical(
    features: Matrix, free: Rows, labelled: Rows, count: int, seed: int
) -> Rows:
    """Choose the patches nearest to the centres of the largest clusters without labels."""
    rng = np.random.default_rng(seed)
    most = min(max(_SAMPLE, count), len(free))
    rows = np.sort(rng.choice(free, most, replace=False))
    mean = features[rows].mean(axis=0)
    directions = _directions(features[rows] - mean)
    centres = _cluster_centres(directions, rng)
    near = directions @ centres.T  # (n, C)
    clusters = near.argmax(axis=1)
    far = -near[np.arange(len(rows)), clusters]
    known = _directions(features[labelled] - mean) @ centres.T
    got = np.bincount(known.argmax(axis=1), minlength=len(centres))
    sizes = np.bincount(clusters, minlength=len(centres))
    waiting = {
        kind: _smallest(far[clusters == kind], rows[clusters == kind], count).tolist()
        for kind in np.unique(clusters).tolist()
    }
    chosen: list[int] = []
    for _ in range(count):
        left = [kind for kind, some in waiting.items() if some]
        kind = min(left, key=lambda one: (got[one], -sizes[one]))
        chosen.append(waiting[kind].pop(0))
        got[kind] += 1
    return np.asarray(chosen, np.int64)


def _cluster_centres(directions: Matrix, rng: np.random.Generator) -> Matrix:
    """Return the centres (C, D) of clusters of unit vectors, by spherical k-means."""
    first = rng.choice(len(directions), min(CLUSTERS, len(directions)), replace=False)
    centres = directions[np.sort(first)]
    for _ in range(_STEPS):
        clusters = (directions @ centres.T).argmax(axis=1)
        own = np.zeros((len(centres), len(directions)), np.float32)
        own[clusters, np.arange(len(directions))] = 1
        sums = own @ directions
        # A cluster without patches stays where it is.
        empty = ~own.any(axis=1)
        sums[empty] = centres[empty]
        centres = _directions(sums)
    return centres
