"""What features look like without a classifier: who is like whom, in how many directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.evaluation.config import ProtocolConfig
from napari_mcm.core.evaluation.dataset import LabelledPatches
from napari_mcm.core.evaluation.intervals import (
    Estimate,
    balanced_accuracy,
    combine,
    macro_auroc,
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
    """Tell whether what looks alike to an encoder is of one class, query by query.

    Each patch in turn is the query, as a click on a slide would make it. All candidates
    are ordered by their cosine similarity to it, and the AUROC says how well this tells
    those of its class from the others.

    Parameters
    ----------
    features : ndarray of float32, shape (N, D)
        One row a patch.
    labels, groups : ndarray of int64, shape (N,)
        Class, and patient or slide.
    candidates : {"other", "same", "all"}
        Patches of other groups, of the query's own, or all; never the query itself.
    queries : ndarray of bool, shape (N,), optional
        Which patches are asked with; all by default.

    Yields
    ------
    Progress
        In queries.

    Returns
    -------
    estimate : Estimate
        Mean over queries. A patch counts as query and as candidate.
    by_query : ndarray of float64, shape (N,)
        AUROC of each query, NaN where it has none.
    """
    unit = directions(features)
    by_query = np.full(len(labels), np.nan)
    influence = np.zeros(len(labels))
    asked = np.flatnonzero(queries) if queries is not None else np.arange(len(labels))
    meter = Meter("Similarity", len(asked), "queries")
    for group in np.unique(groups[asked]):
        mine = asked[groups[asked] == group]
        there = _candidates(groups, int(group), candidates)
        known = unit[there].T
        for start in range(0, len(mine), _ROWS):
            rows = mine[start : start + _ROWS]
            cosines = unit[rows] @ known
            found, parts = _ask(
                cosines, labels[rows], labels[there], there == rows[:, None]
            )
            by_query[rows] = found
            influence[there] += parts
            yield meter.advance(len(rows))
    return _mean_over_queries(by_query, influence), by_query


def _candidates(groups: Labels, group: int, which: Candidates) -> Labels:
    if which == "all":
        return np.arange(len(groups))
    return np.flatnonzero((groups == group) == (which == "same"))


def _ask(
    cosines: Matrix, wanted: Labels, labels: Labels, itself: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the AUROC of R queries (R,), and what each candidate (M,) adds to the sum."""
    alike = labels == wanted[:, None]
    # The query itself is of neither kind: wherever it is sorted, it counts nowhere.
    positive, negative = alike & ~itself, ~alike
    order = np.argsort(cosines, axis=1)
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
    for row in np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(1) & both[:, 0]):
        real = ~itself[row]
        ranked[row, real] = placements(cosines[row, real], positive[row, real])
    found = (ranked * positive).sum(1, keepdims=True) / np.maximum(many, 1)
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
    influence[known] += by_query[known] - value
    return Estimate(value, influence / known.sum())


def anisotropy(features: Matrix) -> Estimate:
    """Give the mean cosine similarity over all pairs of patches.

    Near 1, all features point the same way and a heatmap shows one colour; 0 for
    features that point everywhere.
    """
    unit = directions(features).astype(np.float64)
    n, total = len(unit), unit.sum(axis=0)
    mean = unit @ total - (unit**2).sum(axis=1)
    value = float(mean.sum() / (n * (n - 1)))
    return Estimate(value, 2 * (mean / (n - 1) - value) / n)


def effective_rank(features: Matrix) -> Estimate:
    """Tell in how many directions features spread.

    The exponential of the entropy of the singular values' shares, after centring: 1
    where all lie on a line, at most the number of patches or of dimensions.

    Roy & Vetterli, "The effective rank", EUSIPCO 2007.
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
    real = values > 1e-7 * values.max()
    values, axes = values[real], axes[:, real]
    shares = values / values.sum()
    entropy = -float((shares * np.log(shares)).sum())
    # What each patch adds to each squared singular value.
    parts = (centred @ axes) ** 2 if dim <= n else (axes * values) ** 2
    slope = -(np.log(shares) + entropy) / values.sum()
    rank = float(np.exp(entropy))
    return Estimate(rank, rank * parts @ (slope / (2 * values)))


def feature_spread(features: Matrix) -> Estimate:
    """Give the standard deviation of a feature over patches, mean over features."""
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
    "anisotropy": "mean similarity",
    "effective_rank": "effective rank",
    "feature_std": "feature std",
}
"""Measures in the order in which they are shown; the first two are the primary ones."""


BY_CHANCE = {name: 0.5 for name in TITLES if name.endswith("auroc")}
"""What an encoder that knows nothing gets."""


@dataclass(frozen=True, eq=False)
class Measured:
    """A measure and what stands behind it.

    Attributes
    ----------
    estimate : Estimate
        Its value, and each patch's part in it.
    details : mapping
        By class or by draw; ready for JSON.
    """

    estimate: Estimate
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Task:
    """What is asked of an encoder: the same for all of them.

    Attributes
    ----------
    patches : LabelledPatches
        With their classes.
    folds : ndarray of int64, shape (N,)
        Where each patch is tested.
    positive : int or None
        The class that counts, None for the mean over all.
    protocol : ProtocolConfig
        How.
    """

    patches: LabelledPatches
    folds: Labels
    positive: int | None
    protocol: ProtocolConfig

    def auroc(self, scores: NDArray[np.float64]) -> Estimate:
        """Give the AUROC that counts, within folds' groups."""
        labels, groups = self.patches.labels, self.patches.groups
        return macro_auroc(scores, labels, groups, self.positive)


Made = Job[dict[str, Measured]]


@dataclass(frozen=True)
class Part:
    """Measures that come from one computation.

    Attributes
    ----------
    source : {"features", "surroundings"}
        What it is computed from.
    make : callable
        The computation.
    protocol : frozenset of str
        What it heeds of the protocol.
    """

    source: Literal["features", "surroundings"]
    make: Callable[[Matrix, Task], Made]
    protocol: frozenset[str] = frozenset()


def neighbour_gain(probe: Measured, surroundings: Measured) -> Measured:
    """Tell how much averaging neighbours adds to the linear probe."""
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
        yield meter.advance()
    values = [part.value for part in parts]
    details = {"draws": values, "std_over_draws": float(np.std(values))}
    return {
        "few_shot_auroc": Measured(
            combine(parts, [1 / len(parts)] * len(parts)), details
        )
    }


def _similarity(features: Matrix, task: Task) -> Made:
    labels = task.patches.labels
    asked = None if task.positive is None else labels == task.positive
    estimate, by_query = yield from similarity_auroc(
        features, labels, task.patches.groups, task.protocol.candidates, asked
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
