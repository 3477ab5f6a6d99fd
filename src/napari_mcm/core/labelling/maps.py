"""Probabilities of all patches of a slide, and features of its labelled patches.

The classifier is linear, so that the logits of averaged features are the averages of
logits: a slide's averages over a neighbourhood, as large as its features, are never
made. The weights of the neighbours are kept for each feature set.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import (
    FeatureSet,
    NeighbourhoodConfig,
    known_fingerprint,
)
from napari_mcm.core.features.neighbourhood import has_features, neighbour_weights
from napari_mcm.core.labelling.classifier import Matrix, PatchClassifier
from napari_mcm.core.labelling.logistic import narrow_product

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class _Prepared:
    """What does not change from one map of a feature set to the next."""

    def __init__(self, features: FeatureSet) -> None:
        self.present = has_features(features)
        self.weights: dict[NeighbourhoodConfig, csr_array] = {}


_PREPARED: WeakKeyDictionary[FeatureSet, _Prepared] = WeakKeyDictionary()
_LOCK = threading.Lock()


def prepare_maps(features: FeatureSet, neighbourhood: NeighbourhoodConfig) -> None:
    """Find the neighbours of each patch, so that the first map is as quick as others.

    Parameters
    ----------
    features : FeatureSet
        Features of a slide.
    neighbourhood : NeighbourhoodConfig
        What classifiers cover.

    Raises
    ------
    FeatureError
        If the features are averages over another neighbourhood.
    """
    _prepared(features)
    _neighbours(features, neighbourhood)


def patch_probabilities(classifier: PatchClassifier, features: FeatureSet) -> Matrix:
    """Return the probability of each class for every patch of a slide.

    Parameters
    ----------
    classifier : PatchClassifier
        The classifier.
    features : FeatureSet
        N patches, single ones or averaged over the classifier's neighbourhood.

    Returns
    -------
    ndarray of float32, shape (N, K)
        NaN where a patch has no features.

    Raises
    ------
    FeatureError
        If the features are of another encoder, another length or another neighbourhood.
    """
    check_fits(classifier, features)
    weights = _neighbours(features, classifier.config.neighbourhood)
    present = _prepared(features).present
    # Blocks of a fixed size: a map has the same bits wherever it is computed.
    columns = narrow_product(
        np.ascontiguousarray(classifier.weights.T), features.features.T
    )
    logits = np.ascontiguousarray(columns.T)
    if weights is not None:
        # Patches without features are no neighbours: their NaN does not spread.
        logits = np.asarray(weights @ logits, np.float32)
    probabilities = classifier.of_logits(logits + classifier.bias)
    probabilities[~present] = np.nan
    return probabilities


def features_of_rows(
    features: FeatureSet,
    rows: NDArray[np.int64],
    neighbourhood: NeighbourhoodConfig,
) -> Matrix:
    """Return the features of some patches, averaged over their neighbours.

    Parameters
    ----------
    features : FeatureSet
        Features of a slide, single patches or averages over `neighbourhood`.
    rows : ndarray of int64, shape (n,)
        Patches.
    neighbourhood : NeighbourhoodConfig
        What each is averaged over.

    Returns
    -------
    ndarray of float32, shape (n, D)
        NaN where a patch has no features.

    Raises
    ------
    FeatureError
        If the features are averages over another neighbourhood.
    """
    weights = _neighbours(features, neighbourhood)
    if weights is None:
        return np.asarray(features.features[rows], np.float32)
    part = weights[rows]
    # Only the neighbours are read: the product with all features would take longer.
    near, columns = np.unique(part.indices, return_inverse=True)
    part = type(part)(
        (part.data, columns.reshape(-1), part.indptr), shape=(len(rows), len(near))
    )
    found = np.asarray(part @ features.features[near], np.float32)
    found[~_prepared(features).present[rows]] = np.nan
    return found


def check_fits(classifier: PatchClassifier, features: FeatureSet) -> None:
    """Check that features are of the encoder that a classifier was trained on.

    Parameters
    ----------
    classifier : PatchClassifier
        The classifier.
    features : FeatureSet
        Features of a slide.

    Raises
    ------
    FeatureError
        If they are not. Of files that do not state their encoder, only the length can be
        compared.
    """
    own, given = map(known_fingerprint, (classifier.encoder, features.encoder))
    slide = features.grid.slide.get("name")
    if own and given and own != given:
        raise FeatureError(
            f"has features of another encoder ({_called(features.encoder)}) than the "
            f"classifier ({_called(classifier.encoder)})",
            slide,
            "Extract features with the classifier's encoder, or train a classifier on "
            "these",
        )
    if features.dim != classifier.dim:
        raise FeatureError(
            f"has features of length {features.dim}, the classifier needs "
            f"{classifier.dim}",
            slide,
            "Extract features with the classifier's encoder",
        )


def _called(encoder: object) -> str:
    known = dict(encoder) if isinstance(encoder, dict) else {}
    name = known.get("spec") or known.get("architecture") or "unnamed"
    return f"{name}, {known.get('fingerprint') or 'no fingerprint'}"


def _prepared(features: FeatureSet) -> _Prepared:
    with _LOCK:
        if features not in _PREPARED:
            _PREPARED[features] = _Prepared(features)
        return _PREPARED[features]


def _neighbours(features: FeatureSet, wanted: NeighbourhoodConfig) -> csr_array | None:
    """Return the weights (N, N) of neighbours; None where features are used as they are.

    Raises
    ------
    FeatureError
        If the features are averages over another neighbourhood.
    """
    own = features.neighbourhood
    if own == wanted or (not own.radius and not wanted.radius):
        return None
    if own.radius:
        raise FeatureError(
            f"holds averages over {own.describe()} patches, the classifier needs "
            f"{wanted.describe()}",
            features.grid.slide.get("name"),
            "Use features of single patches, which can be averaged over any square",
        )
    prepared = _prepared(features)
    if wanted not in prepared.weights:
        prepared.weights[wanted] = neighbour_weights(features, wanted)
    return prepared.weights[wanted]
