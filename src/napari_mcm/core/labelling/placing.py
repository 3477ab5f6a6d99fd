"""Which patches of a grid labels mean: those whose centre lies in the labelled square.

Labels of a grid with the same patches find their patch by its corner. Others, of
patches of another size or another grid, find all patches with their centre inside: a
label of a large patch labels several small ones, and one of a small patch labels the
large one around it only if it lies at its centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.labelling.label_set import LabelSet, PatchLabel

Rows = NDArray[np.int64]

# Candidates that are compared at once: 64 MB of indices.
_CANDIDATES = 1 << 22


@dataclass(frozen=True, eq=False)
class PlacedLabels:
    """Labels of one slide on the patches of a grid.

    Attributes
    ----------
    rows : ndarray of int64, shape (n,)
        Labelled patches, ascending.
    classes : ndarray of int64, shape (n,)
        Class of each, an index into the classes of the label set.
    outside : tuple of PatchLabel
        Labels of this slide that mean no patch: they lie outside of the tissue, or where
        no features could be computed.
    """

    rows: Rows
    classes: Rows
    outside: tuple[PatchLabel, ...]


def rows_of_labels(
    labels: LabelSet, patches: PatchGrid | FeatureSet
) -> tuple[Rows, Rows]:
    """Return the patches of a slide that are labelled.

    Parameters
    ----------
    labels : LabelSet
        Labels of any slides; those of the patches' slide count.
    patches : PatchGrid or FeatureSet
        Patches of one slide. Of a feature set, only those with features.

    Returns
    -------
    rows : ndarray of int64, shape (n,)
        Labelled patches, ascending.
    classes : ndarray of int64, shape (n,)
        Class of each, an index into the classes of `labels`. Where several labels mean
        one patch, the latest counts.
    """
    placed = place_labels(labels, patches)
    return placed.rows, placed.classes


def place_labels(labels: LabelSet, patches: PatchGrid | FeatureSet) -> PlacedLabels:
    """Find the patches that labels mean, and the labels that mean none.

    Parameters
    ----------
    labels : LabelSet
        Labels of any slides; those of the patches' slide count.
    patches : PatchGrid or FeatureSet
        Patches of one slide. Of a feature set, only those with features.

    Returns
    -------
    PlacedLabels
    """
    grid = patches.grid if isinstance(patches, FeatureSet) else patches
    slide = str(grid.slide.get("fingerprint") or "")
    own = [one for one in labels.labels if one.slide == slide]
    number, row = _pairs(_boxes(own), grid)
    if isinstance(patches, FeatureSet):
        there = patches.ok[row]
        there[there] = np.isfinite(patches.features[row[there]]).all(axis=1)
        number, row = number[there], row[there]
    index = {name: i for i, name in enumerate(labels.names)}
    classes = np.asarray([index[one.label] for one in own], np.int64)
    # Of several labels of one patch the last in the set is the latest.
    latest = np.full(len(grid), -1, np.int64)
    np.maximum.at(latest, row, number)
    rows = np.flatnonzero(latest >= 0)
    hit = np.zeros(len(own), bool)
    hit[number] = True
    outside = tuple(one for one, found in zip(own, hit, strict=True) if not found)
    return PlacedLabels(rows, classes[latest[rows]], outside)


def _boxes(labels: list[PatchLabel]) -> Rows:
    """Return x, y, width and height of each label, (n, 4)."""
    boxes = [(one.x, one.y, one.width, one.height) for one in labels]
    return np.asarray(boxes, np.int64).reshape(-1, 4)


def _pairs(boxes: Rows, grid: PatchGrid) -> tuple[Rows, Rows]:
    """Return all pairs of a box and a patch whose centre is inside, by box."""
    if not len(boxes) or not len(grid):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    size = np.maximum(np.rint(grid.patch_size_level0), 1).astype(np.int64)
    alike = np.flatnonzero((boxes[:, 2:] == size).all(axis=1))
    number, row = _by_corner(boxes[alike, :2], grid.xy)
    number = alike[number]
    rest = np.setdiff1d(np.arange(len(boxes)), number)
    if len(rest):
        more, found = _by_centre(boxes[rest], grid.centres)
        number = np.concatenate([number, rest[more]])
        row = np.concatenate([row, found])
    return number, row


def _by_corner(corners: Rows, xy: Rows) -> tuple[Rows, Rows]:
    """Return the pairs of equal corners; patches of other tools may share one."""
    low = xy.min(axis=0)
    span = int(xy[:, 0].max() - low[0]) + 1
    keys = (xy - low) @ (1, span)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    moved = corners - low
    wanted = moved @ (1, span)
    first = np.searchsorted(keys, wanted, "left")
    last = np.searchsorted(keys, wanted, "right")
    # A corner left of all patches would be one at the right end of the row above.
    last = np.where((moved[:, 0] >= 0) & (moved[:, 0] < span), last, first)
    number, at = _expand(first, last)
    return number, order[at]


def _by_centre(boxes: Rows, centres: NDArray[np.float64]) -> tuple[Rows, Rows]:
    order = np.argsort(centres[:, 0], kind="stable")
    x, y = centres[order].T
    first = np.searchsorted(x, boxes[:, 0], "left")
    last = np.searchsorted(x, boxes[:, 0] + boxes[:, 2], "left")
    parts = []
    ends = np.cumsum(last - first)
    start = 0
    while start < len(boxes):
        begun = ends[start - 1] if start else 0
        stop = int(np.searchsorted(ends, begun + _CANDIDATES, "right"))
        stop = max(stop, start + 1)
        number, at = _expand(first[start:stop], last[start:stop])
        number += start
        top = boxes[number, 1]
        inside = (y[at] >= top) & (y[at] < top + boxes[number, 3])
        parts.append((number[inside], order[at[inside]]))
        start = stop
    numbers, rows = zip(*parts, strict=True)
    return np.concatenate(numbers), np.concatenate(rows)


def _expand(first: Rows, last: Rows) -> tuple[Rows, Rows]:
    """Return the pairs (i, j) for each i and all j from first[i] to last[i] - 1."""
    counts = last - first
    number = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    at = np.arange(len(number)) - before[number] + first[number]
    return number.astype(np.int64), at.astype(np.int64)
