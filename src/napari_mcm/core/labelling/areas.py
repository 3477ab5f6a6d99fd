"""Areas of classes in mm² and as a share of the tissue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.labelling.label_set import UNSURE_LABEL
from napari_mcm.core.lattice import patch_areas_mm2


@dataclass(frozen=True)
class ClassArea:
    """The area of one class on a slide, or on several.

    Attributes
    ----------
    label : str
        Name of the class; `UNSURE_LABEL` for what is of none.
    mm2 : float
        Area in mm²; what overlapping patches share, and what lies beyond the border of
        the slide, counts once or not at all.
    share : float
        Fraction of the tissue that has features, 0 to 1.
    patches : int
        Number of patches.
    probability : float
        Mean probability of the likeliest class of these patches, weighted by area; NaN
        without patches.
    """

    label: str
    mm2: float
    share: float
    patches: int
    probability: float


def class_areas(
    patches: PatchGrid | FeatureSet,
    decided: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    names: Sequence[str],
) -> list[ClassArea]:
    """Measure the area of each class on one slide.

    Parameters
    ----------
    patches : PatchGrid or FeatureSet
        N patches of a slide.
    decided : ndarray of int64, shape (N,)
        Class of each patch: -1 for unsure, -2 without features.
    probabilities : ndarray of float32, shape (N, K)
        Of the classes.
    names : sequence of str
        Names of the K classes.

    Returns
    -------
    list of ClassArea
        One for each class, in their order, and last the unsure area.
    """
    grid = patches.grid if isinstance(patches, FeatureSet) else patches
    counted = decided >= -1
    areas = patch_areas_mm2(grid, counted)
    total = float(areas.sum())
    top = np.zeros(len(decided))
    top[counted] = probabilities[counted].max(axis=1) if counted.any() else 0
    found = []
    for number, name in (*enumerate(names), (-1, UNSURE_LABEL)):
        own = decided == number
        mm2 = float(areas[own].sum())
        mean = float((areas[own] * top[own]).sum()) / mm2 if mm2 else float("nan")
        share = mm2 / total if total else 0.0
        found.append(ClassArea(name, mm2, share, int(own.sum()), mean))
    return found


def total_areas(slides: Iterable[Sequence[ClassArea]]) -> list[ClassArea]:
    """Add up the areas of several slides.

    Parameters
    ----------
    slides : iterable of sequence of ClassArea
        Areas of each slide, of the same classes.

    Returns
    -------
    list of ClassArea
        In the order of the first slide; shares are of all tissue.
    """
    rows: dict[str, list[ClassArea]] = {}
    for areas in slides:
        for one in areas:
            rows.setdefault(one.label, []).append(one)
    total = sum(one.mm2 for parts in rows.values() for one in parts)
    found = []
    for label, parts in rows.items():
        mm2 = sum(one.mm2 for one in parts)
        sums = sum(one.mm2 * one.probability for one in parts if one.mm2)
        mean = sums / mm2 if mm2 else float("nan")
        share = mm2 / total if total else 0.0
        count = sum(one.patches for one in parts)
        found.append(ClassArea(label, mm2, share, count, mean))
    return found
