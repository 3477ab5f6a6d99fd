"""A classifier of patches: logistic regression on stored features, fitted in milliseconds.

With standardised features z of the n labelled patches, one weight vector for each of
the K classes, and weights w that make all classes count alike::

    min_W  λ/2 ||W||² + C Σ_i w_{y_i} · ( - log softmax(W z_i + b)_{y_i} )

Features are centred at the labelled patches, and divided by standard deviations that
shrink towards their common mean: with few labels all features are scaled alike, as a
deviation measured on five patches says little. The scale is folded into the weights, so
that the map of a slide is one matrix product. From `CALIBRATED_FROM` labels on, the
logits are divided by a temperature (:mod:`.calibration`).

The fit depends on the labelled patches and their order only: not on the fit before it,
which would be quicker, but then a map would depend on the order of the clicks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import LabelError
from napari_mcm.core.labelling.calibration import fit_temperature
from napari_mcm.core.labelling.config import ClassifierConfig
from napari_mcm.core.labelling.folds import ALWAYS, deal_labels
from napari_mcm.core.labelling.logistic import fit_logistic, narrow_product

Matrix = NDArray[np.float32]
Classes = NDArray[np.int64]

CALIBRATED_FROM = 20
"""Number of labels from which probabilities are calibrated."""

UNSURE, NO_FEATURES = -1, -2
"""What :meth:`PatchClassifier.decide` returns where there is no class."""

STRENGTH = 30.0
"""scikit-learn's C where the regularization is 1."""

# A temperature needs no third digit.
_TOLERANCE, _ROUGH = 1e-4, 1e-3

_MANY = 200
"""Labels from which three folds are enough for a temperature."""

_SHRINK = 50
"""Labels from which a feature's own deviation counts more than the common one."""


@dataclass(frozen=True, eq=False)
class PatchClassifier:
    """A classifier of patches on the features of one encoder.

    Attributes
    ----------
    names : tuple of str
        Names of the K classes, in the order of the columns of `weights`.
    weights : ndarray of float32, shape (D, K)
        For features as they are stored, averaged over the neighbourhood of `config`.
    bias : ndarray of float32, shape (K,)
        Added to the product.
    temperature : float
        Logits are divided by it.
    calibrated : bool
        Whether the temperature is measured; otherwise it is 1.
    config : ClassifierConfig
        Options it was trained with.
    counts : tuple of int
        Number of labelled patches of each class.
    encoder : mapping
        Recipe and fingerprint of the features' encoder; empty while unknown.
    colors : tuple of str
        ``#rrggbb`` of each class; may be empty.
    provenance : mapping
        Which labels it was trained on, and when; ready for JSON.
    """

    names: tuple[str, ...]
    weights: Matrix
    bias: Matrix
    temperature: float
    calibrated: bool
    config: ClassifierConfig
    counts: tuple[int, ...]
    encoder: Mapping[str, Any] = field(default_factory=dict)
    colors: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        """Return the length of a feature vector.

        Returns
        -------
        int
        """
        return len(self.weights)

    def logits(self, features: Matrix) -> Matrix:
        """Return the score of each class before calibration.

        Parameters
        ----------
        features : ndarray of float32, shape (M, D)
            One row per patch.

        Returns
        -------
        ndarray of float32, shape (M, K)
            NaN where features are NaN.
        """
        return np.asarray(features @ self.weights + self.bias, np.float32)

    def probabilities(self, features: Matrix) -> Matrix:
        """Return the probability of each class.

        Parameters
        ----------
        features : ndarray of float32, shape (M, D)
            One row per patch, averaged over the neighbourhood of `config`.

        Returns
        -------
        ndarray of float32, shape (M, K)
            Rows sum to 1; NaN where features are NaN.
        """
        return self.of_logits(self.logits(features))

    def of_logits(self, logits: Matrix) -> Matrix:
        """Return the calibrated probabilities of logits.

        Parameters
        ----------
        logits : ndarray of float32, shape (M, K)
            From :meth:`logits`, or means of them over neighbours.

        Returns
        -------
        ndarray of float32, shape (M, K)
        """
        scaled = logits / np.float32(self.temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        np.exp(scaled, out=scaled)
        scaled /= scaled.sum(axis=1, keepdims=True)
        return np.asarray(scaled, np.float32)

    def decide(self, probabilities: Matrix) -> Classes:
        """Return the class of each patch.

        Parameters
        ----------
        probabilities : ndarray of float32, shape (M, K)
            From :meth:`probabilities`.

        Returns
        -------
        ndarray of int64, shape (M,)
            Index of the class; `UNSURE` (-1) where the likeliest is less probable than
            ``config.unsure_below``, `NO_FEATURES` (-2) where probabilities are NaN.
        """
        if not len(probabilities):
            return np.empty(0, np.int64)
        best = probabilities.argmax(axis=1)
        top = probabilities[np.arange(len(best)), best]
        decided = np.where(top >= self.config.unsure_below, best, UNSURE)
        return np.where(np.isnan(top), NO_FEATURES, decided).astype(np.int64)


def fit_classifier(
    features: Matrix,
    classes: Classes,
    names: Sequence[str],
    config: ClassifierConfig,
    groups: Classes | None = None,
    calibrate: bool = True,
) -> PatchClassifier:
    """Train a classifier on labelled patches.

    Parameters
    ----------
    features : ndarray of float32, shape (n, D)
        Features of the labelled patches, averaged over ``config.neighbourhood``.
    classes : ndarray of int64, shape (n,)
        Class of each, an index into `names`.
    names : sequence of str
        Names of all classes; those without a label are left out.
    config : ClassifierConfig
        Regularization and limits.
    groups : ndarray of int64, shape (n,), optional
        Slide of each label. Where there are several, a label is calibrated by models
        that saw none of its slide.
    calibrate : bool, optional
        Whether to measure the temperature where there are enough labels.

    Returns
    -------
    PatchClassifier
        Of the classes that have labels.

    Raises
    ------
    LabelError
        If there are labels of fewer than two classes, or features are missing.
    """
    present, index = _check(features, classes, names)
    fit = _Fit(features, index, config)
    weights, bias = fit.unscaled()
    temperature, folds = 1.0, None
    if calibrate and len(index) >= CALIBRATED_FROM:
        folds = deal_labels(index, groups, calibration_folds(len(index)))
    if folds is not None:
        held_out = folds != ALWAYS
        temperature = fit_temperature(
            fit.held_out_logits(folds)[held_out], index[held_out]
        )
    return PatchClassifier(
        tuple(names[k] for k in present),
        weights,
        bias,
        temperature,
        folds is not None,
        config,
        tuple(np.bincount(index).tolist()),
    )


def with_origin(
    classifier: PatchClassifier,
    encoder: Mapping[str, Any],
    colors: Mapping[str, str] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> PatchClassifier:
    """Return a classifier that knows what it was trained on.

    Parameters
    ----------
    classifier : PatchClassifier
        The classifier.
    encoder : mapping
        Recipe and fingerprint of the features' encoder.
    colors : mapping of str to str, optional
        Colour of each class.
    provenance : mapping, optional
        Which labels it was trained on.

    Returns
    -------
    PatchClassifier
    """
    known = colors or {}
    shown = tuple(known.get(name, "#808080") for name in classifier.names)
    return replace(
        classifier, encoder=encoder, colors=shown, provenance=provenance or {}
    )


def calibration_folds(labels: int) -> int:
    """Return how many models a calibration takes.

    Parameters
    ----------
    labels : int
        Number of labels.

    Returns
    -------
    int
        5, or 3 where two thirds of the labels are many.
    """
    return 5 if labels < _MANY else 3


def _check(
    features: Matrix, classes: Classes, names: Sequence[str]
) -> tuple[list[int], Classes]:
    """Return the classes that have labels, and the index of each label among them.

    Raises
    ------
    LabelError
        If there are fewer than two, or features are missing.
    """
    if len(features) != len(classes):
        raise LabelError(f"{len(classes)} labels for {len(features)} feature vectors")
    present = np.unique(classes)
    if len(present) < 2:
        only = f" ({names[present[0]]})" if len(present) else ""
        raise LabelError(
            f"labels are of {len(present) or 'no'} class{only}, two are needed",
            hint="Label a patch of another class",
        )
    if not np.isfinite(features).all():
        raise LabelError("a labelled patch has no features")
    return present.tolist(), np.searchsorted(present, classes).astype(np.int64)


class _Fit:
    """Logistic regression on standardised features of labelled patches."""

    def __init__(
        self, features: Matrix, index: Classes, config: ClassifierConfig
    ) -> None:
        rows = np.asarray(features, np.float64)
        self._mean = rows.mean(axis=0)
        rows = rows - self._mean
        variances = np.square(rows).mean(axis=0)  # (D,)
        common, n = variances.mean(), len(rows)
        shrunk = (n * variances + _SHRINK * common) / (n + _SHRINK)
        # The root of their number: a row has length 1 or so, whatever the encoder.
        self._factor = 1 / np.sqrt(np.where(shrunk > 0, shrunk, 1) * rows.shape[1])
        self._rows, self._index = rows * self._factor, index
        self._strength = STRENGTH / config.regularization

    def unscaled(self) -> tuple[Matrix, Matrix]:
        """Fit to all labels; return weights (D, K) and bias (K,) for stored features."""
        everything = np.ones((1, len(self._index)), bool)
        (found,) = self._fit(everything, _TOLERANCE)
        weights = (found[:, :-1] * self._factor).T
        bias = found[:, -1] - self._mean @ weights
        return weights.astype(np.float32), bias.astype(np.float32)

    def held_out_logits(self, folds: Classes) -> NDArray[np.float64]:
        """Return logits (n, K) of each label by a model that did not see its fold."""
        trained = folds != np.unique(folds[folds != ALWAYS])[:, None]  # (M, n)
        held_out = np.full((len(folds), self._index.max() + 1), np.nan)
        for train, found in zip(trained, self._fit(trained, _ROUGH), strict=True):
            logits = narrow_product(found[:, :-1], self._rows[~train].T)
            held_out[~train] = logits.T + found[:, -1]
        return held_out

    def _fit(self, used: NDArray[np.bool_], tolerance: float) -> NDArray[np.float64]:
        """Fit one model for each row of `used` (M, n); all classes count alike."""
        kinds = np.eye(self._index.max() + 1)[self._index]  # (n, K)
        counts = used @ kinds  # (M, K)
        weights = used / counts[:, self._index]
        weights *= (used.sum(axis=1) / counts.shape[1])[:, None]
        return fit_logistic(
            self._rows, self._index, weights, self._strength, tolerance=tolerance
        )
