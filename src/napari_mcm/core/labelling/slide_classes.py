"""The classes of all patches of a slide: what maps, areas and exports are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.labelling.areas import ClassArea, class_areas
from napari_mcm.core.labelling.classifier import NO_FEATURES, PatchClassifier
from napari_mcm.core.labelling.maps import patch_probabilities


@dataclass(frozen=True, eq=False)
class SlideClasses:
    """Classes and probabilities of the N patches of a slide.

    Attributes
    ----------
    grid : PatchGrid
        The patches.
    names, colors : tuple of str
        Of the K classes; colours are ``#rrggbb``.
    probabilities : ndarray of float32, shape (N, K)
        NaN where a patch has no features.
    decided : ndarray of int64, shape (N,)
        Class of each patch: -1 for unsure, -2 without features.
    neighbourhood : NeighbourhoodConfig
        What the features covered.
    """

    grid: PatchGrid
    names: tuple[str, ...]
    colors: tuple[str, ...]
    probabilities: NDArray[np.float32]
    decided: NDArray[np.int64]
    neighbourhood: NeighbourhoodConfig

    @property
    def slide(self) -> str:
        """Name of the slide.

        Returns
        -------
        str
        """
        return str(self.grid.slide.get("name") or "slide")

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the slide.

        Returns
        -------
        str
        """
        return str(self.grid.slide.get("fingerprint") or "")

    @property
    def shown(self) -> NDArray[np.int64]:
        """Patches that have features.

        Returns
        -------
        ndarray of int64, shape (n,)
        """
        return np.flatnonzero(self.decided != NO_FEATURES)

    def areas(self) -> list[ClassArea]:
        """Measure the area of each class, and last the unsure area.

        Returns
        -------
        list of ClassArea
        """
        return class_areas(self.grid, self.decided, self.probabilities, self.names)


def classify_slide(classifier: PatchClassifier, features: FeatureSet) -> SlideClasses:
    """Classify all patches of a slide.

    Parameters
    ----------
    classifier : PatchClassifier
        The classifier.
    features : FeatureSet
        Features of the slide.

    Returns
    -------
    SlideClasses

    Raises
    ------
    FeatureError
        If the features are of another encoder or neighbourhood.
    """
    probabilities = patch_probabilities(classifier, features)
    return SlideClasses(
        features.grid,
        classifier.names,
        classifier.colors or ("#808080",) * len(classifier.names),
        probabilities,
        classifier.decide(probabilities),
        classifier.config.neighbourhood,
    )
