"""Measures of features: similarity, geometry, and the probes' scores.

Similarity takes each patch q as a query and ranks candidates by the cosine of their
features; geometry describes the features without labels, by the mean cosine over pairs
and by the effective rank of the singular values σ (Roy and Vetterli, EUSIPCO 2007)::

    similarity AUROC = mean over q of AUROC( cos(x_q, x_c), class(c) = class(q) )
    anisotropy       = mean over pairs of cos(x_i, x_j)
    effective rank   = exp( - Σ_k p_k log p_k ),   p_k = σ_k / Σ σ
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.evaluation.intervals import (
    Estimate,
    balanced_accuracy,
    combine,
    placements,
)
from napari_mcm.core.evaluation.probes import (
    Labels,
    Matrix,
    directions,
    few_shot,
    linear_probe,
    nearest_neighbours,
)
from napari_mcm.core.evaluation.task import Measured, Task
from napari_mcm.core.runtime.jobs import Job, Meter, Progress

Candidates = Literal["other", "same", "all"]

_ROWS = 64


def similarity_auroc(
    features: Matrix,
    labels: Labels,
    groups: Labels,
    candidates: Candidates = "other",
    queries: NDArray[np.bool_] | None = None,
) -> Job[tuple[Estimate, NDArray[np.float64]]]:
    """Measure how well cosine similarity finds patches of the query's class, as a job.

    Each patch in turn is the query, as a click on a slide would make it. All candidates
    are ordered by their cosine similarity to it, and the AUROC measures how well this
    separates those of its class from the others.

    Parameters
    ----------
    features : ndarray of float32, shape (N, D)
        One row per patch.
    labels, groups : ndarray of int64, shape (N,)
        Class, and patient or slide.
    candidates : {"other", "same", "all"}, optional
        Patches of other groups, of the query's own, or all; never the query itself.
    queries : ndarray of bool, shape (N,), optional
        Which patches are queries; all by default.

    Yields
    ------
    Progress
        In queries.

    Returns
    -------
    estimate : Estimate
        Mean over queries. A patch contributes as a query and as a candidate.
    by_query : ndarray of float64, shape (N,)
        AUROC of each query, NaN where it has none.
    """
    unit = directions(features)
    by_query = np.full(len(labels), np.nan)
    influence = np.zeros(len(labels))
    chosen = np.flatnonzero(queries) if queries is not None else np.arange(len(labels))
    meter = Meter("Similarity", len(chosen), "queries")
    for group in np.unique(groups[chosen]):
        mine = chosen[groups[chosen] == group]
        others = _candidates(groups, int(group), candidates)
        known = unit[others].T  # (D, M)
        for start in range(0, len(mine), _ROWS):
            rows = mine[start : start + _ROWS]
            cosines = unit[rows] @ known  # (R, M)
            found, parts = _query_auroc(
                cosines, labels[rows], labels[others], others == rows[:, None]
            )
            by_query[rows] = found
            influence[others] += parts
            yield meter.advance(len(rows))
    return _mean_over_queries(by_query, influence), by_query


def _candidates(groups: Labels, group: int, which: Candidates) -> Labels:
    if which == "all":
        return np.arange(len(groups))
    return np.flatnonzero((groups == group) == (which == "same"))


def _query_auroc(
    cosines: Matrix, wanted: Labels, labels: Labels, itself: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the AUROC of R queries (R,), and what each candidate (M,) adds to the sum."""
    same_class = labels == wanted[:, None]
    # The query itself is neither positive nor negative, so its rank does not matter.
    positive, negative = same_class & ~itself, ~same_class  # (R, M) each
    order = np.argsort(cosines, axis=1)  # (R, M), least first
    # The AUROC is the mean over positives of the negatives ranked below each, and the
    # mean over negatives of the positives ranked above each.
    below = np.cumsum(np.take_along_axis(negative, order, 1), axis=1)
    passed = np.cumsum(np.take_along_axis(positive, order, 1), axis=1)
    many, few = passed[:, -1:], below[:, -1:]
    both = (many > 0) & (few > 0)
    ranked = np.empty(cosines.shape)
    right = np.where(
        np.take_along_axis(positive, order, 1),
        below / np.maximum(few, 1),
        1 - passed / np.maximum(many, 1),
    )
    np.put_along_axis(ranked, order, right, 1)
    ordered = np.take_along_axis(cosines, order, 1)
    # The ranks above ignore ties; rows that have any are computed exactly.
    for row in np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(1) & both[:, 0]):
        real = ~itself[row]
        ranked[row, real] = placements(cosines[row, real], positive[row, real])
    found = (ranked * positive).sum(1, keepdims=True) / np.maximum(many, 1)
    # Infinity takes the query itself, and rows without an AUROC, out of the sum.
    share = np.where(positive, many, few) * np.where(itself | ~both, np.inf, 1.0)
    parts = ((ranked - found) / np.where(share > 0, share, 1)).sum(axis=0)
    return np.where(both, found, np.nan)[:, 0], parts


def _mean_over_queries(
    by_query: NDArray[np.float64], influence: NDArray[np.float64]
) -> Estimate:
    known = np.isfinite(by_query)
    if not known.any():
        return Estimate(float("nan"), influence)
    value = float(by_query[known].mean())
    # A patch counts twice: as a candidate, before, and as a query, here.
    influence[known] += by_query[known] - value
    return Estimate(value, influence / known.sum())


def anisotropy(features: Matrix) -> Estimate:
    """Compute the mean cosine similarity over all pairs of patches.

    Near 1, all features point the same way and a heatmap shows one colour; 0 for
    features that point in all directions.

    Parameters
    ----------
    features : ndarray of float32, shape (N, D)
        One row per patch.

    Returns
    -------
    Estimate
        The mean and its influence.
    """
    unit = directions(features).astype(np.float64)  # (n, D)
    n, total = len(unit), unit.sum(axis=0)
    # The sum over all pairs takes one product; a patch's pair with itself is removed.
    mean = unit @ total - (unit**2).sum(axis=1)
    value = float(mean.sum() / (n * (n - 1)))
    # Twice, because each patch is in its pairs as the first and as the second.
    return Estimate(value, 2 * (mean / (n - 1) - value) / n)


def effective_rank(features: Matrix) -> Estimate:
    """Compute the number of directions in which features spread.

    The exponential of the entropy of the singular values' shares, after centring: 1
    where all lie on a line, at most the number of patches or of dimensions.

    Parameters
    ----------
    features : ndarray of float32, shape (N, D)
        One row per patch.

    Returns
    -------
    Estimate
        The rank and its influence.

    References
    ----------
    Roy and Vetterli, "The effective rank: a measure of effective dimensionality",
    EUSIPCO 2007.
    """
    centred = features.astype(np.float64)
    centred -= centred.mean(axis=0)
    n, dim = centred.shape
    # Squared singular values and their directions, from the smaller of two products.
    product = centred.T @ centred if dim <= n else centred @ centred.T
    squares, axes = np.linalg.eigh(product)
    values = np.sqrt(np.clip(squares, 0, None))
    if values.max() < 1e-12:
        return Estimate(0.0, np.zeros(n))
    # Singular values at rounding level are not directions.
    real = values > 1e-7 * values.max()
    values, axes = values[real], axes[:, real]
    shares = values / values.sum()
    entropy = -float((shares * np.log(shares)).sum())
    # What each patch adds to each squared singular value.
    parts = (centred @ axes) ** 2 if dim <= n else (axes * values) ** 2
    # The derivative of the entropy by each singular value.
    slope = -(np.log(shares) + entropy) / values.sum()
    rank = float(np.exp(entropy))
    return Estimate(rank, rank * parts @ (slope / (2 * values)))


def feature_spread(features: Matrix) -> Estimate:
    """Compute the standard deviation of a feature over patches, averaged over features.

    Parameters
    ----------
    features : ndarray of float32, shape (N, D)
        One row per patch.

    Returns
    -------
    Estimate
        The mean and its influence.
    """
    centred = features.astype(np.float64)
    centred -= centred.mean(axis=0)
    variance = (centred**2).mean(axis=0)
    std = np.sqrt(variance)
    varies = std > 0
    change = (centred[:, varies] ** 2 - variance[varies]) / (2 * std[varies])
    return Estimate(
        float(std.mean()), change.sum(axis=1) / (len(features) * features.shape[1])
    )


TITLES = {
    "few_shot_auroc": "few-shot AUROC",
    "similarity_auroc": "similarity AUROC",
    "probe_auroc": "linear probe AUROC",
    "probe_accuracy": "linear probe balanced accuracy",
    "knn_auroc": "k-NN AUROC",
    "knn_accuracy": "k-NN balanced accuracy",
    "surroundings_auroc": "probe AUROC, neighbour mean",
    "neighbour_gain": "neighbour gain in AUROC",
    "border_few_shot_auroc": "few-shot AUROC, at borders",
    "inner_few_shot_auroc": "few-shot AUROC, inside",
    "border_probe_auroc": "linear probe AUROC, at borders",
    "inner_probe_auroc": "linear probe AUROC, inside",
    "anisotropy": "mean similarity",
    "effective_rank": "effective rank",
    "feature_std": "feature std",
}
"""Measures in the order in which they are shown; the first two are the primary ones."""


APART = tuple(name for name in TITLES if name.startswith(("border_", "inner_")))
"""Measures among patches at the borders of labels, and among the others."""


BY_CHANCE = {name: 0.5 for name in TITLES if name.endswith("auroc")}
"""Value of each measure at chance."""


Made = Job[dict[str, Measured]]


@dataclass(frozen=True)
class Part:
    """Measures that come from one computation.

    Attributes
    ----------
    source : {"features", "surroundings"}
        The features it uses.
    make : callable
        The computation, a job.
    protocol : frozenset of str
        Options of the protocol that it depends on.
    """

    source: Literal["features", "surroundings"]
    make: Callable[[Matrix, Task], Made]
    protocol: frozenset[str] = frozenset()


def neighbour_gain(probe: Measured, surroundings: Measured) -> Measured:
    """Return how much averaging neighbours adds to the linear probe's AUROC.

    Parameters
    ----------
    probe, surroundings : Measured
        AUROC of single patches, and of means over neighbours.

    Returns
    -------
    Measured
        The difference.
    """
    return Measured(surroundings.estimate.minus(probe.estimate))


def _strength(task: Task) -> float | None:
    chosen = task.protocol.strength
    return None if chosen == "inner" else chosen


def _probe(features: Matrix, task: Task) -> Made:
    labels = task.patches.labels
    scores, chosen = yield from linear_probe(
        features, labels, task.folds, _strength(task)
    )
    details = {"strengths": chosen, **_by_group(scores, task)}
    return {
        "probe_auroc": Measured(task.auroc(scores), details),
        "probe_accuracy": Measured(balanced_accuracy(scores, labels)),
        **{
            f"{where}_probe_auroc": Measured(estimate, task.count(where))
            for where, estimate in task.auroc_apart(scores).items()
        },
    }


def _surroundings(features: Matrix, task: Task) -> Made:
    scores, chosen = yield from linear_probe(
        features,
        task.patches.labels,
        task.folds,
        _strength(task),
        "Linear probe, neighbour mean",
    )
    details = {"strengths": chosen, **_by_group(scores, task)}
    return {"surroundings_auroc": Measured(task.auroc(scores), details)}


def _knn(features: Matrix, task: Task) -> Made:
    labels = task.patches.labels
    scores = yield from nearest_neighbours(
        features, labels, task.folds, task.protocol.neighbours
    )
    return {
        "knn_auroc": Measured(task.auroc(scores), _by_group(scores, task)),
        "knn_accuracy": Measured(balanced_accuracy(scores, labels)),
    }


def _few_shot(features: Matrix, task: Task) -> Made:
    protocol, parts = task.protocol, []
    apart: list[dict[str, Estimate]] = []
    meter = Meter("Few-shot probe", protocol.draws, "draws")
    yield meter.progress()
    for scores in few_shot(
        features,
        task.patches.labels,
        task.folds,
        protocol.few_shot,
        protocol.draws,
        protocol.seed,
    ):
        parts.append(task.auroc(scores))
        apart.append(task.auroc_apart(scores))
        yield meter.advance()
    weights = [1 / len(parts)] * len(parts)
    values = [part.value for part in parts]
    details = {"draws": values, "std_over_draws": float(np.std(values))}
    return {"few_shot_auroc": Measured(combine(parts, weights), details)} | {
        f"{where}_few_shot_auroc": Measured(
            combine([one[where] for one in apart], weights), task.count(where)
        )
        # Labels decide whether they are defined, so all draws have the same.
        for where in apart[0]
    }


def _similarity(features: Matrix, task: Task) -> Made:
    labels = task.patches.labels
    queries = None if task.positive is None else labels == task.positive
    estimate, by_query = yield from similarity_auroc(
        features, labels, task.patches.groups, task.protocol.candidates, queries
    )
    by_class = {
        name: _mean(by_query[labels == label])
        for label, name in enumerate(task.patches.classes)
    }
    return {"similarity_auroc": Measured(estimate, {"by_class": by_class})}


def _geometry(features: Matrix, task: Task) -> Made:
    yield Progress("Geometry of the features", 0, 3, "measures")
    found = {"anisotropy": Measured(anisotropy(features))}
    yield Progress("Geometry of the features", 1, 3, "measures")
    found["effective_rank"] = Measured(
        effective_rank(features), {"dimensions": int(features.shape[1])}
    )
    yield Progress("Geometry of the features", 2, 3, "measures")
    found["feature_std"] = Measured(feature_spread(features))
    return found


_FEW_SHOT = frozenset({"few_shot", "draws", "seed"})

PARTS = {
    "few_shot": Part("features", _few_shot, _FEW_SHOT),
    "similarity": Part("features", _similarity, frozenset({"candidates"})),
    "probe": Part("features", _probe, frozenset({"strength"})),
    "knn": Part("features", _knn, frozenset({"neighbours"})),
    "surroundings": Part("surroundings", _surroundings, frozenset({"strength"})),
    "geometry": Part("features", _geometry),
}


def _by_group(scores: NDArray[np.float64], task: Task) -> dict[str, Any]:
    by_group = task.auroc(scores).by_group
    if by_group is None:
        return {}
    names = task.patches.group_names
    values = [float(v) if np.isfinite(v) else None for v in by_group]
    return {"by_group": dict(zip(names, values, strict=True))}


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
