"""Labels of patches: which square of which slide is of which class, by whom and when.

A label belongs to a place on a slide, not to a row of a feature file: labels survive
features of another encoder, patches of another size, and another computer.
:mod:`.placing` finds the rows of a patch grid that they mean.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import Field

from napari_mcm.core.errors import LabelError
from napari_mcm.core.grid import PatchGrid

LabelSource = Literal[
    "click",
    "lasso",
    "threshold",
    "gallery",
    "suggestion",
    "import",
    "cluster",
    "carried",
]

SOURCES: tuple[str, ...] = get_args(LabelSource)
"""How a label can come about."""

COLORS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#56b4e9",
    "#f0e442",
    "#cc79a7",
    "#332288",
    "#999933",
)
"""Colours of new classes, which colour-blind eyes tell apart (Okabe and Ito, 2008)."""

KEYS = range(1, 10)

UNSURE_LABEL = "unsure"
"""What patches and areas are called that are of no class."""

Place = tuple[str, int, int, int, int]
"""Slide, left, top, width and height of a labelled square, in level-0 pixels."""

ClassName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
Fingerprint = Annotated[str, Field(max_length=128)]
Pixel = Annotated[int, Field(ge=-(2**40), le=2**40)]
Side = Annotated[int, Field(ge=1, le=2**31)]


@dataclass(frozen=True, slots=True)
class LabelClass:
    """A class that patches can be of.

    Attributes
    ----------
    name : str
        Unique in its set.
    color : str
        ``#rrggbb``.
    key : int or None
        Digit, 1 to 9, that labels with this class.
    """

    name: ClassName
    color: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
    key: Annotated[int, Field(ge=1, le=9)] | None = None


@dataclass(frozen=True, slots=True)
class PatchLabel:
    """The class of one square of a slide.

    Attributes
    ----------
    slide : str
        Fingerprint of the slide.
    x, y : int
        Upper left corner in level-0 pixels.
    width, height : int
        Size in level-0 pixels.
    label : str
        Name of the class.
    author : str
        Who labelled; may be empty.
    source : str
        One of :data:`SOURCES`.
    made_at : str
        Time in ISO 8601.
    """

    slide: Fingerprint
    x: Pixel
    y: Pixel
    width: Side
    height: Side
    label: ClassName
    author: Annotated[str, Field(max_length=200)] = ""
    source: LabelSource = "click"
    made_at: Annotated[str, Field(max_length=64)] = ""

    @property
    def place(self) -> Place:
        """The square that is labelled, which can have one class only.

        Returns
        -------
        tuple
            Slide, x, y, width, height.
        """
        return self.slide, self.x, self.y, self.width, self.height


@dataclass(frozen=True)
class LabelSet:
    """Classes, and the labels of any number of slides; never changed in place.

    Attributes
    ----------
    classes : tuple of LabelClass
        The index of a class is its place here.
    labels : tuple of PatchLabel
        At most one for each place; the latest last.
    slide_names : mapping of str to str
        Name of each labelled slide by its fingerprint, for people; may lack some.

    Raises
    ------
    LabelError
        If two classes have the same name, one is called `UNSURE_LABEL`, or a label is of
        no class.
    """

    classes: tuple[LabelClass, ...] = ()
    labels: tuple[PatchLabel, ...] = ()
    slide_names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [one.name for one in self.classes]
        if UNSURE_LABEL in names:
            raise LabelError(
                f"a class cannot be called {UNSURE_LABEL}: patches without a class are"
            )
        for name in set(names):
            if names.count(name) > 1:
                raise LabelError(f"there are two classes called {name}")
        unknown = {one.label for one in self.labels}.difference(names)
        if unknown:
            raise LabelError(
                f"labels are of a class that does not exist: {', '.join(sorted(unknown))}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes.

        Returns
        -------
        tuple of str
            In the order of `classes`.
        """
        return tuple(one.name for one in self.classes)

    @property
    def slides(self) -> tuple[str, ...]:
        """Fingerprints of the slides that have labels.

        Returns
        -------
        tuple of str
            In the order of their first label.
        """
        return tuple(dict.fromkeys(one.slide for one in self.labels))

    def counts(self) -> dict[str, int]:
        """Count the labels of each class.

        Returns
        -------
        dict of str to int
            By name, in the order of `classes`.
        """
        found = dict.fromkeys(self.names, 0)
        for one in self.labels:
            found[one.label] += 1
        return found

    def of_slide(self, fingerprint: str) -> LabelSet:
        """Return the labels of one slide, with all classes.

        Parameters
        ----------
        fingerprint : str
            The slide.

        Returns
        -------
        LabelSet
        """
        kept = tuple(one for one in self.labels if one.slide == fingerprint)
        return replace(self, labels=kept)

    def with_labels(self, new: Iterable[PatchLabel]) -> LabelSet:
        """Return a set with more labels; a place that is labelled again has the new one.

        Parameters
        ----------
        new : iterable of PatchLabel
            Of classes of this set.

        Returns
        -------
        LabelSet

        Raises
        ------
        LabelError
            If a label is of no class of this set.
        """
        found = {one.place: one for one in self.labels}
        for one in new:
            # Taken out first, so that the latest label is the last.
            found.pop(one.place, None)
            found[one.place] = one
        return replace(self, labels=tuple(found.values()))

    def without(self, places: Collection[Place]) -> LabelSet:
        """Return a set without the labels of some places.

        Parameters
        ----------
        places : collection of tuple
            As :attr:`PatchLabel.place` gives them.

        Returns
        -------
        LabelSet
        """
        dropped = set(places)
        kept = tuple(one for one in self.labels if one.place not in dropped)
        return replace(self, labels=kept)

    def with_class(self, new: LabelClass) -> LabelSet:
        """Return a set with one more class, or with that class changed.

        Parameters
        ----------
        new : LabelClass
            It replaces the class of its name, and takes its key from any other.

        Returns
        -------
        LabelSet
        """
        classes = [
            replace(one, key=None)
            if one.key is not None and one.key == new.key and one.name != new.name
            else one
            for one in self.classes
        ]
        if new.name in self.names:
            classes[self.names.index(new.name)] = new
        else:
            classes.append(new)
        return replace(self, classes=tuple(classes))

    def with_names(self, names: Iterable[str]) -> LabelSet:
        """Return a set that has classes of these names, new ones in new colours.

        Parameters
        ----------
        names : iterable of str
            Names of classes.

        Returns
        -------
        LabelSet
        """
        grown = self
        for name in names:
            if name not in grown.names:
                grown = grown.with_class(next_class(grown.classes, name))
        return grown

    def rename_class(self, old: str, new: str) -> LabelSet:
        """Return a set in which a class has another name.

        Parameters
        ----------
        old, new : str
            If there is a class `new` already, `old` is merged into it.

        Returns
        -------
        LabelSet

        Raises
        ------
        LabelError
            If there is no class `old`.
        """
        if old not in self.names:
            raise LabelError(f"there is no class called {old}")
        if new in self.names:
            classes = [one for one in self.classes if one.name != old or old == new]
        else:
            classes = [
                replace(one, name=new) if one.name == old else one
                for one in self.classes
            ]
        labels = tuple(
            replace(one, label=new) if one.label == old else one for one in self.labels
        )
        return replace(self, classes=tuple(classes), labels=labels)

    def without_class(self, name: str) -> LabelSet:
        """Return a set without a class and its labels.

        Parameters
        ----------
        name : str
            The class; nothing changes where there is none.

        Returns
        -------
        LabelSet
        """
        return replace(
            self,
            classes=tuple(one for one in self.classes if one.name != name),
            labels=tuple(one for one in self.labels if one.label != name),
        )

    def with_slide_name(self, fingerprint: str, name: str) -> LabelSet:
        """Return a set that knows the name of a slide.

        Parameters
        ----------
        fingerprint, name : str
            The slide.

        Returns
        -------
        LabelSet
        """
        return replace(self, slide_names={**self.slide_names, fingerprint: name})

    def slide_name(self, fingerprint: str) -> str:
        """Return what a slide is called in messages and tables.

        Parameters
        ----------
        fingerprint : str
            The slide.

        Returns
        -------
        str
            Its name, or its fingerprint where the name is unknown.
        """
        return self.slide_names.get(fingerprint) or fingerprint


def next_class(classes: Sequence[LabelClass], name: str) -> LabelClass:
    """Make a class with the next free colour and key.

    Parameters
    ----------
    classes : sequence of LabelClass
        Those that exist.
    name : str
        Name of the new one.

    Returns
    -------
    LabelClass
        Without a key where all nine are taken.
    """
    used = [one.color for one in classes]
    free = [color for color in COLORS if color not in used]
    color = free[0] if free else COLORS[len(classes) % len(COLORS)]
    keys = {one.key for one in classes}
    return LabelClass(name, color, next((k for k in KEYS if k not in keys), None))


def labels_of_rows(
    grid: PatchGrid,
    rows: Iterable[int],
    label: str,
    author: str = "",
    source: LabelSource = "click",
    made_at: str = "",
) -> tuple[PatchLabel, ...]:
    """Label patches of a grid.

    Parameters
    ----------
    grid : PatchGrid
        Patches of one slide. A label covers one step of the lattice, so that those of
        overlapping patches do not label their neighbours.
    rows : iterable of int
        Patches of the grid.
    label : str
        Name of the class.
    author, source, made_at : str, optional
        See :class:`PatchLabel`; by default made now.

    Returns
    -------
    tuple of PatchLabel
        One for each patch.
    """
    made_at = made_at or datetime.now(UTC).isoformat(timespec="seconds")
    slide = str(grid.slide.get("fingerprint") or "")
    width, height = (max(round(side), 1) for side in grid.patch_size_level0)
    corners = grid.xy[np.asarray(list(rows), np.int64)].tolist()
    return tuple(
        PatchLabel(slide, x, y, width, height, label, author, source, made_at)
        for x, y in corners
    )
