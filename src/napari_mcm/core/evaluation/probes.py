"""What a simple classifier makes of features: linear probe, neighbours, few labels.

Every score of a patch comes from a classifier that saw no patch of the same fold, and a
group (a patient, a slide) lies in one fold. All draws depend on labels, folds and seed
only, so that encoders are compared on the same ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
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
"""Inverse strengths of the penalty among which the inner split chooses."""
INNER_FOLDS = 3
_ITERATIONS, _TOLERANCE = 200, 1e-4
_QUERIES = 256


def deal_folds(groups: Labels, most: int = 10) -> Labels:
    """Give each patch the fold in which it is tested (N,): each group its own.

    With more than `most` groups, several share a fold: the largest are dealt first,
    each to the fold with the fewest patches so far.
    """
    sizes = np.bincount(groups)
    if len(sizes) <= most:
        return groups
    fold_of, held = np.zeros(len(sizes), np.int64), np.zeros(most, np.int64)
    for group in np.argsort(-sizes, kind="stable"):
        fold_of[group] = held.argmin()
        held[fold_of[group]] += sizes[group]
    return np.asarray(fold_of[groups])


@dataclass(frozen=True, eq=False)
class Scale:
    """What brings features to mean 0 and standard deviation 1.

    They are then divided by the root of their number, so that one strength of penalty
    means the same for encoders with few and with many. Those that do not vary become 0.

    Attributes
    ----------
    mean, factor : ndarray of float32, shape (D,)
        What is taken away, and what is multiplied with then.
    """

    mean: Matrix
    factor: Matrix

    @classmethod
    def of(cls, train: Matrix) -> Scale:
        """Measure a training set."""
        mean = train.mean(axis=0, dtype=np.float64)
        std = train.std(axis=0, dtype=np.float64)
        # What is left by rounding is no variation.
        varies = std > 1e-6 * np.abs(mean)
        factor = np.where(varies, 1 / np.where(varies, std, 1), 0)
        return cls(
            mean.astype(np.float32),
            (factor / np.sqrt(train.shape[1])).astype(np.float32),
        )

    def __call__(self, features: Matrix) -> Matrix:
        """Bring features to this scale."""
        return np.asarray((features - self.mean) * self.factor, np.float32)


def linear_probe(
    features: Matrix,
    labels: Labels,
    folds: Labels,
    strength: float | None = None,
    what: str = "Linear probe",
) -> Job[tuple[NDArray[np.float64], list[float]]]:
    """Score each patch by logistic regression trained on the other folds.

    Parameters
    ----------
    features : ndarray of float32, shape (N, D)
        One row a patch.
    labels : ndarray of int64, shape (N,)
        0 to K - 1; classes count alike in training, however many patches each has.
    folds : ndarray of int64, shape (N,)
        Where each patch is tested.
    strength : float, optional
        scikit-learn's C, the inverse strength of the L2 penalty. Without one it is
        chosen among `GRID` for each fold, by macro AUROC in an inner split of the
        training folds (1 where there is only one of them).

    Yields
    ------
    Progress
        A fit at a time.

    Returns
    -------
    scores : ndarray of float64, shape (N, K)
        Higher for the likelier class.
    strengths : list of float
        What was chosen in each fold.
    """
    strengths = []
    scores = np.zeros((len(labels), int(labels.max()) + 1))
    tested = np.unique(folds)
    meter = Meter(what, None, "fits")
    for fold in tested:
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


def _choose(
    features: Matrix, labels: Labels, folds: Labels, meter: Meter
) -> Job[float]:
    """Choose the penalty by an inner split; of equals the strongest."""
    if len(np.unique(folds)) < 2:
        return 1.0
    classes = int(labels.max()) + 1
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
    # Where no inner fold holds two classes there is nothing to choose by.
    return GRID[int(np.argmax(np.round(quality, 6)))] if quality.any() else 1.0


def _mean_auroc(scores: NDArray[np.float64], labels: Labels) -> float:
    """Average the AUROC over the classes that can be told from others; 0 for none."""
    found = [auroc(scores[:, k], labels == k) for k in range(scores.shape[1])]
    known = [value for value in found if np.isfinite(value)]
    return float(np.mean(known)) if known else 0.0


class _Model:
    """Logistic regression that goes on from its last fit, which is quicker."""

    def __init__(self, features: Matrix, labels: Labels) -> None:
        from sklearn.linear_model import LogisticRegression

        self._data = features, labels
        self._model: Any = LogisticRegression(
            class_weight="balanced",
            max_iter=_ITERATIONS,
            tol=_TOLERANCE,
            warm_start=True,
        )

    def fit(self, strength: float) -> _Model:
        """Fit with a penalty; of a row of them, the strongest first."""
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            # Weak penalties need more steps than are worth taking.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.set_params(C=strength).fit(*self._data)
        return self

    def scores(self, features: Matrix, classes: int) -> NDArray[np.float64]:
        """Give log-odds or log-probabilities (N, K), which never tie at 0 or 1."""
        raw = np.asarray(self._model.decision_function(features), np.float64)
        raw = np.column_stack([-raw, raw]) if raw.ndim == 1 else log_softmax(raw, 1)
        found = np.full((len(features), classes), -np.inf)
        found[:, self._model.classes_] = raw
        return found


def nearest_neighbours(
    features: Matrix, labels: Labels, folds: Labels, k: int = 20
) -> Job[NDArray[np.float64]]:
    """Score each patch by the classes of its k most similar ones in other folds.

    Returns
    -------
    ndarray of float64, shape (N, K)
        The part of the k neighbours, by cosine similarity, that is of each class.
    """
    unit = directions(features)
    kinds = np.eye(int(labels.max()) + 1)[labels]
    scores = np.zeros(kinds.shape)
    meter = Meter("Nearest neighbours", len(labels))
    for fold in np.unique(folds):
        known, asked = unit[folds != fold], np.flatnonzero(folds == fold)
        there = kinds[folds != fold]
        least = min(k, len(known))
        for start in range(0, len(asked), _QUERIES):
            rows = asked[start : start + _QUERIES]
            near = np.argpartition(-(unit[rows] @ known.T), least - 1, axis=1)
            scores[rows] = there[near[:, :least]].mean(axis=1)
            yield meter.advance(len(rows))
    return scores


def directions(features: Matrix) -> Matrix:
    """Give the features' directions; zero where there is none."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(lengths > 0, lengths, 1), np.float32)


def few_shot(
    features: Matrix,
    labels: Labels,
    folds: Labels,
    k: int = 10,
    draws: int = 40,
    seed: int = 0,
) -> Iterator[NDArray[np.float64]]:
    """Score all patches by probes that know k labels a class, draw after draw.

    The features are standardised by all training patches, whose labels are not needed
    for it; the penalty is C = 1.

    Yields
    ------
    ndarray of float64, shape (N, K)
        Scores of one draw: for each fold, from labels of the other folds.
    """
    classes = int(labels.max()) + 1
    tested = [int(fold) for fold in np.unique(folds)]
    scales = {fold: Scale.of(features[folds != fold]) for fold in tested}
    asked = {fold: features[folds == fold] for fold in tested}
    for draw in range(draws):
        scores = np.zeros((len(labels), classes))
        for fold, scale in scales.items():
            rows = draw_labels(labels, folds != fold, k, (seed, fold, draw))
            known = scale(features[rows])
            # What is learned lies in the span of the few rows: few numbers do.
            basis = np.linalg.qr(known.T)[0]
            model = _Model(known @ basis, labels[rows]).fit(1.0)
            basis *= scale.factor[:, None]
            part = asked[fold] @ basis - scale.mean @ basis
            scores[folds == fold] = model.scores(part, classes)
        yield scores


def draw_labels(
    labels: Labels, known: NDArray[np.bool_], k: int, key: tuple[int, ...]
) -> Labels:
    """Draw k known patches of each class, by the key.

    Raises
    ------
    FeatureError
        If a class has fewer.
    """
    rng = np.random.default_rng((*key, 17))
    rows = []
    for label in range(int(labels.max()) + 1):
        there = np.flatnonzero(known & (labels == label))
        if len(there) < k:
            raise FeatureError(
                f"class {label} has {len(there)} training patches, {k} are to be drawn"
            )
        rows.append(rng.choice(there, k, replace=False))
    return np.concatenate(rows)
