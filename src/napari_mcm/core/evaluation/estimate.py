"""A measure with what each patch adds to it, from which intervals are drawn.

The influence of a patch is how much a measure would change if the patch counted a little
more. Summed over whatever is resampled together it gives the measure of a resample to
first order, for any measure alike, without computing it anew. For the AUROC these are
the placement values of DeLong et al., Biometrics 44 (1988), whose variance is theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Estimate:
    """A measure over N patches.

    Attributes
    ----------
    value : float
        NaN where it cannot be told.
    influence : ndarray of float64, shape (N,)
        What each patch adds to `value` when it counts once more.
    by_group : ndarray of float64, shape (G,), or None
        The measure in each group, where it is the mean over groups; NaN in groups
        that do not count.
    """

    value: float
    influence: Floats
    by_group: Floats | None = None

    def of_groups(self, groups: NDArray[np.int64]) -> Floats:
        """Give what each group adds when it counts once more (G,)."""
        if self.by_group is None:
            return np.bincount(groups, self.influence).astype(np.float64)
        counts = np.isfinite(self.by_group)
        apart = np.where(counts, self.by_group - self.value, 0)
        return np.asarray(apart / max(counts.sum(), 1))

    def minus(self, other: Estimate) -> Estimate:
        """Give the difference of two measures on the same patches."""
        return combine([self, other], [1.0, -1.0])


def combine(parts: Sequence[Estimate], weights: Sequence[float]) -> Estimate:
    """Give a weighted sum of measures on the same patches."""
    pairs = list(zip(weights, parts, strict=True))
    groups = [(w, part.by_group) for w, part in pairs if part.by_group is not None]
    shared = len(groups) == len(pairs) and _agree([group for _, group in groups])
    return Estimate(
        sum(w * part.value for w, part in pairs),
        sum((w * part.influence for w, part in pairs), np.zeros(1)),
        sum((w * group for w, group in groups), np.zeros(1)) if shared else None,
    )


def _agree(groups: Sequence[Floats]) -> bool:
    """Tell whether measures count the same groups."""
    known = [np.isfinite(group) for group in groups]
    return all((one == known[0]).all() for one in known)


def placements(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> Floats:
    """Tell for each patch what part of the other side it is on the right side of.

    Parameters
    ----------
    scores : ndarray of float, shape (N,)
        Higher means rather positive.
    positive : ndarray of bool, shape (N,)
        The truth; both kinds must occur.

    Returns
    -------
    ndarray of float64, shape (N,)
        0 to 1; ties count half. The mean over either side is the AUROC.
    """
    placed = np.empty(len(scores))
    placed[positive] = _below(scores[~positive], scores[positive])
    placed[~positive] = 1 - _below(scores[positive], scores[~positive])
    return placed


def _below(others: NDArray[np.floating], scores: NDArray[np.floating]) -> Floats:
    """Give the part of `others` below each score, ties by half."""
    ordered = np.sort(others)
    low = np.searchsorted(ordered, scores, "left")
    high = np.searchsorted(ordered, scores, "right")
    return np.asarray((low + high) / (2 * len(ordered)))


def auroc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Give the area under the ROC curve; NaN where one kind is missing."""
    if positive.all() or not positive.any():
        return float("nan")
    return float(placements(scores, positive)[positive].mean())


def grouped_auroc(
    scores: NDArray[np.floating],
    positive: NDArray[np.bool_],
    groups: NDArray[np.int64],
) -> Estimate:
    """Give the AUROC within each group, averaged over groups.

    Scores of different folds need not share a scale, so patches are compared within
    their group. Where fewer than half of the groups hold both kinds, all patches are
    compared with all.

    Parameters
    ----------
    scores, positive
        As for :func:`placements`.
    groups : ndarray of int64, shape (N,)
        0 to G - 1.
    """
    total = int(groups.max()) + 1
    rows = [np.flatnonzero(groups == group) for group in range(total)]
    by_group = np.asarray([auroc(scores[row], positive[row]) for row in rows])
    counts = np.isfinite(by_group)
    if 2 * counts.sum() < total:
        return _pooled_auroc(scores, positive)
    influence = np.zeros(len(scores))
    for group in np.flatnonzero(counts):
        row = rows[group]
        influence[row] = _influence(scores[row], positive[row]) / counts.sum()
    return Estimate(float(by_group[counts].mean()), influence, by_group)


def _pooled_auroc(
    scores: NDArray[np.floating], positive: NDArray[np.bool_]
) -> Estimate:
    value = auroc(scores, positive)
    if np.isnan(value):
        return Estimate(value, np.zeros(len(scores)))
    return Estimate(value, _influence(scores, positive))


def _influence(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> Floats:
    placed = placements(scores, positive)
    share = np.where(positive, positive.sum(), (~positive).sum())
    return np.asarray((placed - placed[positive].mean()) / share)


def macro_auroc(
    scores: NDArray[np.floating],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    positive: int | None = None,
) -> Estimate:
    """Give the AUROC of each class against the others, averaged over classes.

    Parameters
    ----------
    scores : ndarray of float, shape (N, K)
        How well each class fits.
    labels : ndarray of int64, shape (N,)
        The truth, 0 to K - 1.
    groups : ndarray of int64, shape (N,)
        As for :func:`grouped_auroc`.
    positive : int, optional
        The one class to look at, instead of all.
    """
    classes = range(scores.shape[1]) if positive is None else [positive]
    parts = [grouped_auroc(scores[:, k], labels == k, groups) for k in classes]
    return combine(parts, [1 / len(parts)] * len(parts))


def balanced_accuracy(
    scores: NDArray[np.floating], labels: NDArray[np.int64]
) -> Estimate:
    """Give the part of each class that is found, averaged over classes."""
    hits = scores.argmax(axis=1) == labels
    influence, found = np.zeros(len(labels)), []
    classes = np.unique(labels)
    for label in classes:
        row = labels == label
        found.append(hits[row].mean())
        influence[row] = (hits[row] - found[-1]) / (row.sum() * len(classes))
    return Estimate(float(np.mean(found)), influence)
