"""What the colours of an atlas mean: cluster, class, slide, or a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.atlas import distinct_colours

if TYPE_CHECKING:
    from napari_mcm.core.atlas import Atlas
    from napari_mcm.core.labelling.label_set import LabelSet

ColourBy = Literal["cluster", "class", "label", "slide", "similarity", "attention"]
"""What a point's colour says."""

CHOICES: tuple[ColourBy, ...] = (
    "cluster",
    "class",
    "label",
    "slide",
    "similarity",
    "attention",
)

NOTHING = (128, 128, 128)
"""RGB of points of which nothing is known: grey, as it is on any background."""

_DIMMED = 0.22
"""Share of its colour that a point keeps which is not selected while others are."""


@dataclass(frozen=True, eq=False)
class Category:
    """One kind of points.

    Attributes
    ----------
    name : str
        Its name.
    colour : tuple of int
        RGB.
    count : int
        Number of points.
    """

    name: str
    colour: tuple[int, int, int]
    count: int


@dataclass(frozen=True, eq=False)
class Colouring:
    """Colours of the points of an atlas.

    Attributes
    ----------
    by : str
        What they say.
    colours : ndarray of uint8, shape (N, 3)
        RGB of each point.
    kinds : ndarray of int32, shape (N,) or None
        Position of each point's kind in `categories`, -1 for none; None for values.
    categories : tuple of Category
        Kinds of points; none for values.
    limits : tuple of float or None
        Values at the ends of the colour bar; None for kinds.
    note : str
        What is missing, in one line.
    """

    by: ColourBy
    colours: NDArray[np.uint8]
    kinds: NDArray[np.int32] | None = None
    categories: tuple[Category, ...] = ()
    limits: tuple[float, float] | None = None
    note: str = ""


def by_cluster(atlas: Atlas, labels: LabelSet) -> Colouring:
    """Colour the points by their clusters.

    Parameters
    ----------
    atlas : Atlas
        The atlas.
    labels : LabelSet
        Labels of any slides: clusters are named after those that were made as clusters.
    """
    count = atlas.cluster_count
    own = tuple(one for one in labels.labels if one.source == "cluster")
    kinds = classes_of(atlas, replace(labels, labels=own))
    names = []
    for number in range(count):
        named = kinds[(kinds >= 0) & (atlas.clusters == number)]
        name = f": {labels.names[np.bincount(named).argmax()]}" if len(named) else ""
        names.append(f"cluster {number + 1}{name}")
    return _by_kind("cluster", atlas.clusters, names, distinct_colours(count))


def by_slide(atlas: Atlas) -> Colouring:
    """Colour the points by their slides."""
    names = [slide.name for slide in atlas.slides]
    return _by_kind("slide", atlas.slide, names, distinct_colours(len(names)))


def by_label(atlas: Atlas, labels: LabelSet) -> Colouring:
    """Colour the points by the classes of their labels.

    Parameters
    ----------
    atlas : Atlas
        The atlas.
    labels : LabelSet
        Labels of any slides.
    """
    kinds = classes_of(atlas, labels)
    note = "" if (kinds >= 0).any() else "No patch has a label yet"
    return _by_class("label", kinds, labels, note)


def by_class(
    atlas: Atlas, labels: LabelSet, predicted: NDArray[np.int32] | None, note: str = ""
) -> Colouring:
    """Colour the points by their classes: as labelled, else as predicted.

    Parameters
    ----------
    atlas : Atlas
        The atlas.
    labels : LabelSet
        Labels of any slides.
    predicted : ndarray of int32, shape (N,) or None
        An index into the classes of `labels`; -1 for unsure. None without a classifier.
    note : str
        What is missing, in one line.
    """
    kinds = classes_of(atlas, labels)
    if predicted is not None:
        kinds = np.where(kinds >= 0, kinds, predicted)
    return _by_class("class", kinds, labels, note)


def _by_class(
    by: ColourBy, kinds: NDArray[np.int32], labels: LabelSet, note: str
) -> Colouring:
    colours = [_rgb(one.color) for one in labels.classes]
    return _by_kind(
        by,
        kinds,
        labels.names,
        np.asarray(colours, np.uint8).reshape(-1, 3),
        note,
    )


def by_value(
    by: ColourBy,
    values: NDArray[np.float32],
    limits: tuple[float, float],
    colours: NDArray[np.uint8],
    note: str = "",
) -> Colouring:
    """Colour the points by values, such as similarities.

    Parameters
    ----------
    by : str
        What the values are.
    values : ndarray of float32, shape (N,)
        NaN where there is none.
    limits : tuple of float
        Values at the ends of the colour bar.
    colours : ndarray of uint8, shape (C, 3)
        The colour bar.
    note : str
        What is missing, in one line.
    """
    low, high = limits
    known = np.isfinite(values)
    share = (np.where(known, values, low) - low) / max(high - low, 1e-9)
    steps = np.rint(share.clip(0, 1) * (len(colours) - 1)).astype(np.intp)
    shown = colours[steps]
    shown[~known] = NOTHING
    return Colouring(by, shown, limits=limits, note=note)


def classes_of(atlas: Atlas, labels: LabelSet) -> NDArray[np.int32]:
    """Return the class of each point, an index into the classes; -1 without a label."""
    from napari_mcm.core.labelling.placing import rows_of_labels

    kinds = np.full(len(atlas), -1, np.int32)
    if not len(labels):
        return kinds
    for number, slide in enumerate(atlas.slides):
        patches = atlas.patches_of(number)
        of_row = np.full(len(slide.grid), -1, np.int32)
        rows, classes = rows_of_labels(labels, slide.grid)
        of_row[rows] = classes
        kinds[patches] = of_row[atlas.row[patches]]
    return kinds


def dimmed(
    colours: NDArray[np.uint8],
    selected: NDArray[np.integer],
    background: tuple[int, int, int],
) -> NDArray[np.uint8]:
    """Return colours of which those of points that are not selected are faint.

    Parameters
    ----------
    colours : ndarray of uint8, shape (N, 3)
        RGB of each point.
    selected : ndarray of int
        Points that stand out; with none, all colours stay.
    background : tuple of int
        RGB.
    """
    if not len(selected):
        return colours
    mixed = colours * np.float32(_DIMMED)
    mixed += np.asarray(background, np.float32) * (1 - _DIMMED)
    faint = mixed.astype(np.uint8)
    faint[selected] = colours[selected]
    return faint


def _by_kind(
    by: ColourBy,
    kinds: NDArray[np.int32],
    names: Sequence[str],
    colours: NDArray[np.uint8],
    note: str = "",
) -> Colouring:
    # The last colour is that of -1: no kind.
    table = np.concatenate([colours, np.asarray([NOTHING], np.uint8)])
    counts = np.bincount(kinds[kinds >= 0], minlength=len(names))
    categories = tuple(
        Category(name, (int(c[0]), int(c[1]), int(c[2])), int(count))
        for name, c, count in zip(names, colours, counts, strict=True)
    )
    return Colouring(by, table[kinds], kinds, categories, note=note)


def _rgb(colour: str) -> tuple[int, ...]:
    """Return the RGB of ``#rrggbb``."""
    return tuple(bytes.fromhex(colour.lstrip("#")[:6]))
