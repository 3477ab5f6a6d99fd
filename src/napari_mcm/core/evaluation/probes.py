"""Probes of features: logistic regression, nearest neighbours, few-shot.

Every score of a patch comes from a classifier that saw no patch of the same fold, and a
group (a patient or a slide) lies in one fold. The linear probe is an L2-penalised
logistic regression on standardised features z, with balanced class weights w and
inverse strength C::

    min_W  1/2 ||W||² + C Σ_i w_{y_i} · ( - log softmax(W z_i)_{y_i} )

The few-shot probe is the same with C = 1 on k labels per class, for several draws. All
draws depend on labels, folds and seed only, so that encoders are compared on the same
ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.evaluation.intervals import auroc
from napari_mcm.core.runtime.jobs import Job, Meter

Matrix = NDArray[np.float32]
Labels = NDArray[np.int64]

GRID = (0.1, 1.0, 10.0, 100.0)
"""Inverse strengths of the penalty that the inner split chooses from."""
INNER_FOLDS = 3
_ITERATIONS, _TOLERANCE = 200, 1e-4
_QUERIES = 256


def deal_folds(groups: Labels, most: int = 10) -> Labels:
    """Assign groups to folds; each group is its own fold if there are few.

    With more than `most` groups, several share a fold: the largest are dealt first,
    each to the fold with the fewest patches so far.

    Parameters
    ----------
    groups : ndarray of int64, shape (N,)
        Group of each patch, counted from 0.
    most : int, optional
        Maximum number of folds.

    Returns
    -------
    ndarray of int64, shape (N,)
        Fold in which each patch is tested.
    """
    sizes = np.bincount(groups)
    if len(sizes) <= most:
        return groups
    fold_of, held = np.zeros(len(sizes), np.int64), np.zeros(most, np.int64)
    # The largest first leaves small groups to even out the folds.
    for group in np.argsort(-sizes, kind="stable"):
        fold_of[group] = held.argmin()
        held[fold_of[group]] += sizes[group]
    return np.asarray(fold_of[groups])


@dataclass(frozen=True, eq=False)
class Scale:
    """Standardisation of features to mean 0 and standard deviation 1.

    They are then divided by the root of their number, so that one penalty strength
    means the same for encoders with few and with many features. Constant features
    become 0.

    Attributes
    ----------
    mean, factor : ndarray of float32, shape (D,)
        What is subtracted, and what is multiplied with afterwards.
    """

    mean: Matrix
    factor: Matrix

    @classmethod
    def of(cls, train: Matrix) -> Scale:
        """Measure mean and standard deviation on a training set.

        Parameters
        ----------
        train : ndarray of float32, shape (N, D)
            Features of the training set.

        Returns
        -------
        Scale
            The standardisation.
        """
        # float64: sums of many float32 values lose digits.
        mean = train.mean(axis=0, dtype=np.float64)
        std = train.std(axis=0, dtype=np.float64)
        # Rounding alone is not variation.
        varies = std > 1e-6 * np.abs(mean)
        factor = np.where(varies, 1 / np.where(varies, std, 1), 0)
        return cls(
            mean.astype(np.float32),
            (factor / np.sqrt(train.shape[1])).astype(np.float32),
        )

    def __call__(self, features: Matrix) -> Matrix:
        """Standardise features of shape (N, D)."""
        return np.asarray((features - self.mean) * self.factor, np.float32)


def linear_probe(
    features: Matrix,
    labels: Labels,
    folds: Labels,
    strength: float | None = None,
    what: str = "Linear probe",
    tested: Sequence[int] | None = None,
) -> Job[tuple[NDArray[np.float64], list[float]]]:
    """Score each patch by logistic regression trained on the other folds, as a job.

    Parameters
    ----------
    features : ndarray of float32, shape (N, D)
        One row per patch.
    labels : ndarray of int64, shape (N,)
        Class of each patch, 0 to K - 1; classes have the same weight in training, however
        many patches each has.
    folds : ndarray of int64, shape (N,)
        Fold in which each patch is tested.
    strength : float, optional
        scikit-learn's C, the inverse strength of the L2 penalty. By default it is chosen
        from `GRID` for each fold, by macro AUROC in an inner split of the training folds
        (1 where there is only one training fold).
    what : str, optional
        Text of the progress.
    tested : sequence of int, optional
        Folds to score; by default all. Scores of the others are 0.

    Yields
    ------
    Progress
        In fits.

    Returns
    -------
    scores : ndarray of float64, shape (N, K)
        Higher for the likelier class.
    strengths : list of float
        The strength used in each fold.
    """
    strengths = []
    scores = np.zeros((len(labels), int(labels.max()) + 1))
    meter = Meter(what, None, "fits")
    for fold in _tested(folds, tested):
        train, test = folds != fold, folds == fold
        chosen = strength
        if chosen is None:
            chosen = yield from _choose(
                features[train], labels[train], folds[train], meter
            )
        scale = Scale.of(features[train])
        model = _Model(scale(features[train]), labels[train]).fit(chosen)
        scores[test] = model.scores(scale(features[test]), scores.shape[1])
        strengths.append(chosen)
        yield meter.advance()
    return scores, strengths


def _tested(folds: Labels, tested: Sequence[int] | None) -> list[int]:
    return [int(f) for f in (np.unique(folds) if tested is None else tested)]


def _choose(
    features: Matrix, labels: Labels, folds: Labels, meter: Meter
) -> Job[float]:
    """Choose the penalty by an inner split; of equally good ones the strongest."""
    if len(np.unique(folds)) < 2:
        return 1.0
    classes = int(labels.max()) + 1
    # Inner folds are whole outer folds: no group is in training and test.
    inner = deal_folds(np.unique(folds, return_inverse=True)[1], INNER_FOLDS)
    quality = np.zeros(len(GRID))
    for fold in np.unique(inner):
        train, test = inner != fold, inner == fold
        scale = Scale.of(features[train])
        outside = scale(features[test])
        model = _Model(scale(features[train]), labels[train])
        for number, strength in enumerate(GRID):
            scored = model.fit(strength).scores(outside, classes)
            quality[number] += _mean_auroc(scored, labels[test])
            yield meter.advance()
    # Where no inner fold holds two classes there is no AUROC to compare.
    return GRID[int(np.argmax(np.round(quality, 6)))] if quality.any() else 1.0


def _mean_auroc(scores: NDArray[np.float64], labels: Labels) -> float:
    """Average the AUROC over the classes for which it is defined; 0 for none."""
    found = [auroc(scores[:, k], labels == k) for k in range(scores.shape[1])]
    known = [value for value in found if np.isfinite(value)]
    return float(np.mean(known)) if known else 0.0


class _Model:
    """Logistic regression that starts from its last fit, which is quicker."""

    def __init__(self, features: Matrix, labels: Labels) -> None:
        from sklearn.linear_model import LogisticRegression

        self._data = features, labels
        self._model: Any = LogisticRegression(
            # Rare classes weigh as much as common ones, as in a macro-averaged AUROC.
            class_weight="balanced",
            max_iter=_ITERATIONS,
            tol=_TOLERANCE,
            warm_start=True,
        )

    def fit(self, strength: float) -> _Model:
        """Fit with a penalty; of several, the strongest comes first."""
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            # Weak penalties converge slowly, and more steps hardly change the scores.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.set_params(C=strength).fit(*self._data)
        return self

    def scores(self, features: Matrix, classes: int) -> NDArray[np.float64]:
        """Return log-odds or log-probabilities (N, K), which never tie at 0 or 1."""
        raw = np.asarray(self._model.decision_function(features), np.float64)
        raw = np.column_stack([-raw, raw]) if raw.ndim == 1 else log_softmax(raw, 1)
        # A class without training patches has the lowest score.
        found = np.full((len(features), classes), -np.inf)
        found[:, self._model.classes_] = raw
        return found


def nearest_neighbours(
    features: Matrix,
    labels: Labels,
    folds: Labels,
    k: int = 20,
    tested: Sequence[int] | None = None,
) -> Job[NDArray[np.float64]]:
    """Score each patch by the classes of its k most similar ones in other folds, as a job.

    Parameters
    ----------
    features : ndarray of float32, shape (N, D)
        One row per patch.
    labels : ndarray of int64, shape (N,)
        Class of each patch, 0 to K - 1.
    folds : ndarray of int64, shape (N,)
        Fold in which each patch is tested.
    k : int, optional
        Number of neighbours, by cosine similarity.
    tested : sequence of int, optional
        Folds to score; by default all. Scores of the others are 0.

    Yields
    ------
    Progress
        In patches.

    Returns
    -------
    ndarray of float64, shape (N, K)
        Fraction of the k neighbours that is of each class.
    """
    unit = directions(features)
    kinds = np.eye(int(labels.max()) + 1)[labels]  # (N, K), one-hot
    scores = np.zeros(kinds.shape)
    chosen = _tested(folds, tested)
    meter = Meter("Nearest neighbours", int(np.isin(folds, chosen).sum()))
    for fold in chosen:
        known, inside = unit[folds != fold], np.flatnonzero(folds == fold)
        known_kinds = kinds[folds != fold]
        least = min(k, len(known))
        for start in range(0, len(inside), _QUERIES):
            rows = inside[start : start + _QUERIES]
            # Without order among the k nearest: a partition is faster than a sort.
            near = np.argpartition(-(unit[rows] @ known.T), least - 1, axis=1)
            scores[rows] = known_kinds[near[:, :least]].mean(axis=1)
            yield meter.advance(len(rows))
    return scores


def directions(features: Matrix) -> Matrix:
    """Return features scaled to unit length.

    Parameters
    ----------
    features : ndarray of float32, shape (N, D)
        One row per patch.

    Returns
    -------
    ndarray of float32, shape (N, D)
        Zero where a feature vector is zero.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(lengths > 0, lengths, 1), np.float32)


def few_shot(
    features: Matrix,
    labels: Labels,
    folds: Labels,
    k: int = 10,
    draws: int = 40,
    seed: int = 0,
    tested: Sequence[int] | None = None,
) -> Iterator[NDArray[np.float64]]:
    """Score all patches by probes trained on k labels per class, draw by draw.

    Features are standardised by all training patches, which needs no labels; the
    penalty is C = 1.

    Parameters
    ----------
    features : ndarray of float32, shape (N, D)
        One row per patch.
    labels : ndarray of int64, shape (N,)
        Class of each patch, 0 to K - 1.
    folds : ndarray of int64, shape (N,)
        Fold in which each patch is tested.
    k : int, optional
        Labels per class.
    draws : int, optional
        Number of draws.
    seed : int, optional
        Random seed.
    tested : sequence of int, optional
        Folds to score; by default all. Scores of the others are 0.

    Yields
    ------
    ndarray of float64, shape (N, K)
        Scores of one draw: for each fold, from labels of the other folds.

    Raises
    ------
    FeatureError
        If a class has fewer than k training patches.
    """
    classes = int(labels.max()) + 1
    chosen = _tested(folds, tested)
    scales = {fold: Scale.of(features[folds != fold]) for fold in chosen}
    tests = {fold: features[folds == fold] for fold in chosen}
    for draw in range(draws):
        scores = np.zeros((len(labels), classes))
        for fold, scale in scales.items():
            # Keyed by fold and draw: every encoder sees the same labels.
            rows = draw_labels(labels, folds != fold, k, (seed, fold, draw))
            known = scale(features[rows])
            # The weights lie in the span of the few rows: fit in that basis.
            basis = np.linalg.qr(known.T)[0]  # (D, r), r = min(D, k·K)
            model = _Model(known @ basis, labels[rows]).fit(1.0)
            basis *= scale.factor[:, None]
            part = tests[fold] @ basis - scale.mean @ basis  # (n, r)
            scores[folds == fold] = model.scores(part, classes)
        yield scores


def draw_labels(
    labels: Labels, known: NDArray[np.bool_], k: int, key: tuple[int, ...]
) -> Labels:
    """Draw k known patches of each class.

    Parameters
    ----------
    labels : ndarray of int64, shape (N,)
        Class of each patch, 0 to K - 1.
    known : ndarray of bool, shape (N,)
        Patches to draw from.
    k : int
        Labels per class.
    key : tuple of int
        Key of the random generator.

    Returns
    -------
    ndarray of int64, shape (K · k,)
        Rows of the drawn patches, class by class.

    Raises
    ------
    FeatureError
        If a class has fewer.
    """
    rng = np.random.default_rng((*key, 17))
    rows = []
    for label in range(int(labels.max()) + 1):
        candidates = np.flatnonzero(known & (labels == label))
        if len(candidates) < k:
            raise FeatureError(
                f"class {label} has {len(candidates)} training patches, and {k} are to "
                "be drawn"
            )
        rows.append(rng.choice(candidates, k, replace=False))
    return np.concatenate(rows)
