"""What all encoders are measured on, and a measure of one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.evaluation.config import ProtocolConfig
from napari_mcm.core.evaluation.dataset import LabelledPatches
from napari_mcm.core.evaluation.intervals import Estimate, macro_auroc
from napari_mcm.core.evaluation.probes import Labels
from napari_mcm.core.features.feature_set import NeighbourhoodConfig


@dataclass(frozen=True, eq=False)
class Measured:
    """A measure with its details.

    Attributes
    ----------
    estimate : Estimate
        Its value, and each patch's contribution.
    details : mapping
        By class, group or draw; ready for JSON.
    """

    estimate: Estimate
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Task:
    """What every encoder is measured on.

    Attributes
    ----------
    patches : LabelledPatches
        The patches and their classes.
    folds : ndarray of int64, shape (N,)
        Fold in which each patch is tested.
    positive : int or None
        The class to measure; None for the mean over all.
    protocol : ProtocolConfig
        How classifiers are trained.
    neighbourhood : NeighbourhoodConfig
        What the features of each patch cover.
    """

    patches: LabelledPatches
    folds: Labels
    positive: int | None
    protocol: ProtocolConfig
    neighbourhood: NeighbourhoodConfig = NeighbourhoodConfig()

    def auroc(self, scores: NDArray[np.float64]) -> Estimate:
        """Compute the AUROC of scores, within groups.

        Parameters
        ----------
        scores : ndarray of float64, shape (N, K)
            Score of each class.

        Returns
        -------
        Estimate
            Of the positive class, or the mean over all.
        """
        labels, groups = self.patches.labels, self.patches.groups
        return macro_auroc(scores, labels, groups, self.positive)

    def auroc_apart(self, scores: NDArray[np.float64]) -> dict[str, Estimate]:
        """Compute the AUROC among patches at the borders of labels, and among the others.

        Parameters
        ----------
        scores : ndarray of float64, shape (N, K)
            Score of each class, by the same classifier for all patches.

        Returns
        -------
        dict of str to Estimate
            ``border`` and ``inner``; empty where one of them is not defined.
        """
        border = self.patches.border
        found = {
            "border": self._auroc_of(scores, np.flatnonzero(border)),
            "inner": self._auroc_of(scores, np.flatnonzero(~border)),
        }
        known = all(np.isfinite(part.value) for part in found.values())
        return found if known else {}

    def count(self, where: str) -> dict[str, int]:
        """Count the patches at borders of labels, or the others.

        Parameters
        ----------
        where : {"border", "inner"}
            Which of the two.

        Returns
        -------
        dict of str to int
            ``patches``: their number.
        """
        border = int(self.patches.border.sum())
        return {"patches": border if where == "border" else len(self.patches) - border}

    def _auroc_of(self, scores: NDArray[np.float64], rows: Labels) -> Estimate:
        """Compute the AUROC among some patches; the others have no influence on it."""
        influence = np.zeros(len(scores))
        labels, groups = self.patches.labels[rows], self.patches.groups[rows]
        if len(np.unique(labels)) < scores.shape[1]:
            return Estimate(float("nan"), influence)
        # Groups without such patches are left out of the mean over groups.
        known, numbers = np.unique(groups, return_inverse=True)
        part = macro_auroc(scores[rows], labels, numbers, self.positive)
        influence[rows] = part.influence
        if part.by_group is None:
            return Estimate(part.value, influence)
        by_group = np.full(len(self.patches.group_names), np.nan)
        by_group[known] = part.by_group
        return Estimate(part.value, influence, by_group)
