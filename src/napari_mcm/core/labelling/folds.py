"""Folds of labels: whole slides where there are several, else mixed by class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Classes = NDArray[np.int64]

ALWAYS = -1
"""Fold of a label that is always in the training set."""


def deal_labels(
    classes: Classes, groups: Classes | None, most: int, seed: int = 0
) -> Classes | None:
    """Assign labels to folds.

    Parameters
    ----------
    classes : ndarray of int64, shape (n,)
        Class of each label.
    groups : ndarray of int64, shape (n,), or None
        Slide of each label.
    most : int
        Maximum number of folds.
    seed : int, optional
        Random seed, where slides do not decide.

    Returns
    -------
    ndarray of int64, shape (n,), or None
        Fold of each label, so that every fold's training part has all classes: whole
        slides if that is possible, else labels of each class dealt in turn. The only
        label of a class is in no fold (`ALWAYS`). None if fewer than two classes have
        two labels.
    """
    by_slide = None if groups is None else deal_slides(classes, groups, most)
    return by_slide if by_slide is not None else _deal_classes(classes, most, seed)


def deal_slides(classes: Classes, groups: Classes, most: int) -> Classes | None:
    """Assign whole slides to folds.

    Parameters
    ----------
    classes, groups : ndarray of int64, shape (n,)
        Class and slide of each label.
    most : int
        Maximum number of folds.

    Returns
    -------
    ndarray of int64, shape (n,), or None
        Fold of each label; None if there is one slide only, or a class that is on the
        slides of one fold only.
    """
    names, index = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return None
    sizes = np.bincount(index)
    fold_of = np.zeros(len(names), np.int64)
    held = np.zeros(min(most, len(names)), np.int64)
    # The largest first leaves small slides to even out the folds.
    for group in np.argsort(-sizes, kind="stable"):
        fold_of[group] = held.argmin()
        held[fold_of[group]] += sizes[group]
    folds = fold_of[index]
    return folds if _all_trained(classes, folds) else None


def _deal_classes(classes: Classes, most: int, seed: int) -> Classes | None:
    (several,) = np.nonzero(np.bincount(classes) > 1)
    if len(several) < 2:
        return None
    count = int(min(most, len(classes)))
    rng = np.random.default_rng((seed, 23))
    folds = np.full(len(classes), ALWAYS)
    start = 0
    for one in several:
        rows = rng.permutation(np.flatnonzero(classes == one))
        # Each class starts where the last one ended: folds are of about one size.
        folds[rows] = (start + np.arange(len(rows))) % count
        start += len(rows)
    return folds


def _all_trained(classes: Classes, folds: Classes) -> bool:
    kinds = np.unique(classes)
    return all(
        np.isin(kinds, classes[folds != fold]).all() for fold in np.unique(folds)
    )
