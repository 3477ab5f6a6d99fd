"""AUROC and accuracy as means of contributions, and their bootstrap intervals.

The AUROC is the mean placement of the positives: the fraction of negatives with a lower
score, ties by half. With every measure comes its influence function, what each patch
adds when it counts once more. A resample b that draws unit u n_bu times then has, to
first order,::

    value_b = value + Σ_u (n_bu - 1) · sqrt(m / (m - 1)) · influence_u

Units are whole groups where there are at least five, else squares of tissue. Resamples are
shared by all encoders, so that differences are paired.

References
----------
Efron and Tibshirani, "An introduction to the bootstrap", 1993; DeLong, DeLong and
Clarke-Pearson, Biometrics 44, 1988, for placements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.evaluation.squares import PERCENTILES, draw_units, squares_of

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Estimate:
    """A measure over N patches, with the contribution of each.

    Attributes
    ----------
    value : float
        NaN where it is not defined.
    influence : ndarray of float64, shape (N,)
        What each patch adds to `value` when it counts once more.
    by_group : ndarray of float64, shape (G,), or None
        The measure in each group, where it is the mean over groups; NaN in groups without a
        value.
    """

    value: float
    influence: Floats
    by_group: Floats | None = None

    def of_groups(self, groups: NDArray[np.int64]) -> Floats:
        """Return what each group adds when it counts once more.

        Parameters
        ----------
        groups : ndarray of int64, shape (N,)
            Group of each patch, 0 to G - 1.

        Returns
        -------
        ndarray of float64, shape (G,)
            Influence of each group.
        """
        if self.by_group is None:
            return np.bincount(groups, self.influence).astype(np.float64)
        counts = np.isfinite(self.by_group)
        deviations = np.where(counts, self.by_group - self.value, 0)
        return np.asarray(deviations / max(counts.sum(), 1))

    def minus(self, other: Estimate) -> Estimate:
        """Return the difference of two measures on the same patches.

        Parameters
        ----------
        other : Estimate
            The measure to subtract.

        Returns
        -------
        Estimate
            Value and influence of the difference.
        """
        return combine([self, other], [1.0, -1.0])


def combine(parts: Sequence[Estimate], weights: Sequence[float]) -> Estimate:
    """Return a weighted sum of measures on the same patches.

    Parameters
    ----------
    parts : sequence of Estimate
        The measures.
    weights : sequence of float
        One per measure.

    Returns
    -------
    Estimate
        Value and influence of the sum.
    """
    pairs = list(zip(weights, parts, strict=True))
    # Group values add up only if every part has them, for the same groups.
    groups = [(w, part.by_group) for w, part in pairs if part.by_group is not None]
    shared = len(groups) == len(pairs) and _agree([group for _, group in groups])
    return Estimate(
        sum(w * part.value for w, part in pairs),
        sum((w * part.influence for w, part in pairs), np.zeros(1)),
        sum((w * group for w, group in groups), np.zeros(1)) if shared else None,
    )


def _agree(groups: Sequence[Floats]) -> bool:
    """Return whether measures have values in the same groups."""
    known = [np.isfinite(group) for group in groups]
    return all((one == known[0]).all() for one in known)


def placements(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> Floats:
    """Return for each patch the fraction of the other class that it is ranked correctly to.

    Parameters
    ----------
    scores : ndarray of floating, shape (N,)
        Higher means more likely positive.
    positive : ndarray of bool, shape (N,)
        The truth; both kinds must occur.

    Returns
    -------
    ndarray of float64, shape (N,)
        0 to 1; ties count half. The mean over either class is the AUROC.
    """
    placed = np.empty(len(scores))
    placed[positive] = _below(scores[~positive], scores[positive])
    placed[~positive] = 1 - _below(scores[positive], scores[~positive])
    return placed


def _below(others: NDArray[np.floating], scores: NDArray[np.floating]) -> Floats:
    """Return the fraction of `others` below each score; ties count half."""
    ordered = np.sort(others)
    low = np.searchsorted(ordered, scores, "left")
    high = np.searchsorted(ordered, scores, "right")
    return np.asarray((low + high) / (2 * len(ordered)))


def auroc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve.

    Parameters
    ----------
    scores : ndarray of floating, shape (N,)
        Higher means more likely positive.
    positive : ndarray of bool, shape (N,)
        The truth.

    Returns
    -------
    float
        NaN where one kind is missing.
    """
    if positive.all() or not positive.any():
        return float("nan")
    return float(placements(scores, positive)[positive].mean())


def grouped_auroc(
    scores: NDArray[np.floating],
    positive: NDArray[np.bool_],
    groups: NDArray[np.int64],
) -> Estimate:
    """Compute the AUROC within each group, averaged over groups.

    Scores of different folds need not share a scale, so patches are compared within
    their group. Where fewer than half of the groups hold both kinds, all patches are
    compared with all.

    Parameters
    ----------
    scores : ndarray of floating, shape (N,)
        Higher means more likely positive.
    positive : ndarray of bool, shape (N,)
        The truth.
    groups : ndarray of int64, shape (N,)
        Group of each patch, 0 to G - 1.

    Returns
    -------
    Estimate
        The mean AUROC and its influence.
    """
    total = int(groups.max()) + 1
    rows = [np.flatnonzero(groups == group) for group in range(total)]
    by_group = np.asarray([auroc(scores[row], positive[row]) for row in rows])
    counts = np.isfinite(by_group)
    # Too few groups with both classes would make the mean over groups unstable.
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
    # Each class contributes through its own mean, hence the division by its own size.
    share = np.where(positive, positive.sum(), (~positive).sum())
    return np.asarray((placed - placed[positive].mean()) / share)


def macro_auroc(
    scores: NDArray[np.floating],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    positive: int | None = None,
) -> Estimate:
    """Compute the AUROC of each class against the others, averaged over classes.

    Parameters
    ----------
    scores : ndarray of floating, shape (N, K)
        Score of each class.
    labels : ndarray of int64, shape (N,)
        The truth, 0 to K - 1.
    groups : ndarray of int64, shape (N,)
        Group of each patch, as for :func:`grouped_auroc`.
    positive : int, optional
        Use this class only, instead of all.

    Returns
    -------
    Estimate
        The mean AUROC and its influence.
    """
    classes = range(scores.shape[1]) if positive is None else [positive]
    parts = [grouped_auroc(scores[:, k], labels == k, groups) for k in classes]
    return combine(parts, [1 / len(parts)] * len(parts))


def balanced_accuracy(
    scores: NDArray[np.floating], labels: NDArray[np.int64]
) -> Estimate:
    """Compute the recall averaged over classes.

    Parameters
    ----------
    scores : ndarray of floating, shape (N, K)
        Score of each class.
    labels : ndarray of int64, shape (N,)
        The truth, 0 to K - 1.

    Returns
    -------
    Estimate
        The mean recall over the classes that occur, and its influence.
    """
    hits = scores.argmax(axis=1) == labels
    influence, found = np.zeros(len(labels)), []
    classes = np.unique(labels)
    for label in classes:
        row = labels == label
        found.append(hits[row].mean())
        influence[row] = (hits[row] - found[-1]) / (row.sum() * len(classes))
    return Estimate(float(np.mean(found)), influence)


LEAST_GROUPS = 5


def widen_at_edge(
    value: float, interval: tuple[float, float], units: int
) -> tuple[float, float]:
    """Replace the interval of a fraction that is exactly 0 or 1.

    A bootstrap of observations that are all right never draws a wrong one: it says 1 to 1.
    Clopper and Pearson's bound counts each unit as one observation instead, and covers at
    least what it says, also for the AUROC, which needs more than that to be below 1.

    Parameters
    ----------
    value : float
        A fraction, such as an AUROC or an accuracy.
    interval : tuple of float
        Its bootstrap interval.
    units : int
        Independent units: groups, squares of tissue, slides or patients; of several
        classes, those of the rarest.

    Returns
    -------
    tuple of float
        From 0.025^(1 / units) to 1 where the value is 1, from 0 where it is 0, else the
        interval itself.

    References
    ----------
    Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case
    of the binomial", Biometrika 26, 1934.
    """
    bound = (PERCENTILES[0] / 100) ** (1 / max(units, 1))
    if np.isclose(value, 1, rtol=0, atol=1e-9):
        return min(bound, interval[0]), 1.0
    if np.isclose(value, 0, rtol=0, atol=1e-9):
        return 0.0, max(1 - bound, interval[1])
    return interval


@dataclass(frozen=True, eq=False)
class Resampling:
    """Bootstrap resamples that all measures of all encoders share, which pairs them.

    Attributes
    ----------
    level : {"group", "block"}
        What is drawn with replacement.
    units : ndarray of int64, shape (N,)
        Unit of each patch.
    groups : ndarray of int64, shape (N,)
        Group of each patch.
    extra : ndarray of float64, shape (B, U)
        How many times more than once each unit is drawn, by resample. Scaled by the root of
        m / (m - 1) for m units, because m draws vary less than m new units.
    note : str
        What is drawn, and what the interval does not cover.
    """

    level: Literal["group", "block"]
    units: NDArray[np.int64]
    groups: NDArray[np.int64]
    extra: Floats
    note: str

    def interval(self, estimate: Estimate) -> tuple[float, float]:
        """Return the 95 % interval of a measure, or of a difference of two.

        Parameters
        ----------
        estimate : Estimate
            The measure.

        Returns
        -------
        tuple of float
            Lower and upper end; NaN where the value is not finite.
        """
        if not np.isfinite(estimate.value):
            return float("nan"), float("nan")
        by_unit = (
            estimate.of_groups(self.groups)
            if self.level == "group"
            else np.bincount(self.units, estimate.influence)
        )
        # First-order bootstrap: one matrix product instead of recomputing the measure.
        drawn = estimate.value + self.extra @ by_unit  # (B,)
        low, high = (float(v) for v in np.percentile(drawn, PERCENTILES))
        return low, high


def make_resampling(
    groups: NDArray[np.int64],
    slides: NDArray[np.int64],
    places_um: NDArray[np.float64],
    block_um: float = 1000.0,
    count: int = 2000,
    seed: int = 0,
) -> Resampling:
    """Choose the units to resample, and draw the resamples.

    Parameters
    ----------
    groups, slides : ndarray of int64, shape (N,)
        Group (patient or slide) and slide of each patch, counted from 0.
    places_um : ndarray of float64, shape (N, 2)
        Centre of each patch on its slide, in microns.
    block_um : float, optional
        Side in microns of the squares that are drawn where there are fewer than
        `LEAST_GROUPS` groups.
    count : int, optional
        Number of resamples.
    seed : int, optional
        Random seed.

    Returns
    -------
    Resampling
        Whole groups where there are enough, else squares within each slide.
    """
    # A key of its own keeps these draws independent of the few-shot draws.
    rng = np.random.default_rng((seed, 31))
    total = int(groups.max()) + 1
    if total >= LEAST_GROUPS:
        extra = draw_units(np.zeros(total, np.int64), count, rng)
        note = f"{total} groups drawn with replacement"
        return Resampling("group", groups, groups, extra, note)
    units, strata = squares_of(slides, places_um, block_um)
    note = (
        f"squares of {block_um:g} µm drawn within each slide, because there are fewer "
        f"than {LEAST_GROUPS} groups ({total}); intervals are too narrow, they do not "
        "cover differences between slides and patients"
    )
    return Resampling("block", units, groups, draw_units(strata, count, rng), note)
