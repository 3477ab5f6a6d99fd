"""What features look like without a classifier: who is like whom, in how many directions."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.evaluation.estimate import Estimate, placements
from napari_mcm.core.evaluation.probes import Labels, Matrix, directions
from napari_mcm.core.jobs import Job, Meter

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
