"""The labels of patches of one viewer: what all docks that label go through."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_mcm.core.labelling.label_set import (
    LabelClass,
    LabelSet,
    LabelSource,
    labels_of_rows,
)
from napari_mcm.viewer.app.settings import preferences

if TYPE_CHECKING:
    from napari_mcm.core.grid import PatchGrid
    from napari_mcm.core.heatmaps.examples import Polygon
    from napari_mcm.core.labelling.classifier import PatchClassifier
    from napari_mcm.viewer.app.undo import UndoOrder

LABELS = "labels"
"""Name of the labels among what can be undone."""

MOST_STEPS = 100
"""Number of steps that can be undone."""

Rows = Sequence[int] | NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class PatchChoice:
    """Some patches of one slide.

    Attributes
    ----------
    grid : PatchGrid
        The slide's patches.
    rows : sequence of int
        Rows of the grid.
    """

    grid: PatchGrid
    rows: Rows


class QueryPatches(Protocol):
    """What a query offers to be labelled: the Similarity dock's part of a session."""

    def above(self) -> PatchChoice | None:
        """Return the patches above the threshold; None without a map."""

    def examples(self, like: bool) -> PatchChoice | None:
        """Return the patches that are similar or dissimilar examples; None without any."""


class SlideLabels:
    """Classes, and which patches of which slides have them.

    Labels belong to places of slides, not to patch grids: they stay when features are
    computed anew. Each change can be undone.

    Parameters
    ----------
    order : UndoOrder
        Learns when labels change.

    Attributes
    ----------
    set : LabelSet
        Classes and labels; replaced as a whole, never changed.
    query : QueryPatches or None
        What the query offers to be labelled.
    changed : Signal
        Emitted when `set` changed, for whatever reason.
    classifier : PatchClassifier or None
        The classifier that the dock Classes trains on the labels.
    classifier_changed : Signal
        Emitted when `classifier` changed.
    class_needed : Signal
        Emitted with a number key that no class has.
    """

    changed = Signal()
    classifier_changed = Signal()
    class_needed = Signal(int)

    def __init__(self, order: UndoOrder) -> None:
        self._order = order
        self.set = LabelSet()
        self.query: QueryPatches | None = None
        self.classifier: PatchClassifier | None = None
        self._before: list[LabelSet] = []
        self._after: list[LabelSet] = []
        order.register(LABELS, self)

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """The classes, in the order of the dock."""
        return self.set.classes

    def class_named(self, name: str) -> LabelClass | None:
        """Return a class by its name; None if there is none."""
        return next((one for one in self.classes if one.name == name), None)

    def class_of_key(self, key: int) -> LabelClass | None:
        """Return the class of a number key; None, and say so, if no class has it.

        Parameters
        ----------
        key : int
            1 to 9.
        """
        found = next((one for one in self.classes if one.key == key), None)
        if found is None:
            self.class_needed.emit(key)
        return found

    def new_class(self, name: str = "") -> LabelClass:
        """Add a class with the next free colour and key.

        Parameters
        ----------
        name : str
            Its name; by default ``class 1`` or the like.

        Returns
        -------
        LabelClass
            The class; the one of that name where it exists.
        """
        given = bool(name)
        number = len(self.classes) + 1
        while not name or (not given and name in self.set.names):
            name, number = f"class {number}", number + 1
        self.use(self.set.with_names([name]))
        return self.classes[self.set.names.index(name)]

    def add(
        self, grid: PatchGrid, rows: Rows, label: str, source: LabelSource = "click"
    ) -> int:
        """Label patches; a patch that has a label gets the new one.

        Parameters
        ----------
        grid : PatchGrid
            Patches of the slide.
        rows : sequence of int
            Rows of the grid.
        label : str
            Name of the class.
        source : str
            How the label is made.

        Returns
        -------
        int
            Number of patches that were labelled or changed their label.
        """
        return self.add_many([PatchChoice(grid, rows)], label, source)

    def add_many(
        self, choices: Sequence[PatchChoice], label: str, source: LabelSource = "click"
    ) -> int:
        """Label patches of several slides as one step.

        Parameters
        ----------
        choices : sequence of PatchChoice
            The patches of each slide.
        label, source
            As :meth:`add` takes them.

        Returns
        -------
        int
            As :meth:`add` returns it.
        """
        known = {one.place: one.label for one in self.set.labels}
        labels, changed = self.set, 0
        for choice in choices:
            grid = choice.grid
            made = labels_of_rows(grid, choice.rows, label, author(), source)
            new = [one for one in made if known.get(one.place) != label]
            if new:
                mark, name = new[0].slide, str(grid.slide.get("name") or "")
                labels = labels.with_labels(new).with_slide_name(mark, name)
                changed += len(new)
        self.use(labels)
        return changed

    def add_regions(
        self,
        grid: PatchGrid,
        regions: Sequence[Polygon],
        label: str,
        source: LabelSource = "lasso",
    ) -> int:
        """Label the patches whose centres lie within regions.

        Parameters
        ----------
        grid : PatchGrid
            Patches of the slide.
        regions : sequence of Polygon
            Outlines, (x, y) in level-0 pixels.
        label, source
            As :meth:`add` takes them.

        Returns
        -------
        int
            As :meth:`add` returns it.
        """
        from napari_mcm.core.heatmaps.examples import patches_within

        return self.add(grid, patches_within(grid, regions), label, source)

    def remove(self, grid: PatchGrid, rows: Rows) -> None:
        """Take the labels from patches.

        Parameters
        ----------
        grid : PatchGrid
            Patches of the slide.
        rows : sequence of int
            Rows of the grid.
        """
        places = {one.place for one in labels_of_rows(grid, rows, "any")}
        self.use(self.set.without(places))

    def use(self, labels: LabelSet) -> None:
        """Replace classes and labels, as a step that can be undone."""
        if labels == self.set:
            return
        self._before.append(self.set)
        del self._before[:-MOST_STEPS]
        self._after.clear()
        self._order.note(LABELS)
        self._set(labels)

    def use_classifier(self, classifier: PatchClassifier | None) -> None:
        """Share the classifier that the labels train with other docks."""
        if classifier is not self.classifier:
            self.classifier = classifier
            self.classifier_changed.emit()

    def restore(self, labels: LabelSet) -> None:
        """Replace classes and labels by stored ones, which is no step of the user."""
        self._before.clear()
        self._after.clear()
        if labels != self.set:
            self._set(labels)

    def bring(self, more: LabelSet) -> None:
        """Add labels of a slide that was opened, also to what undo and redo lead to.

        Parameters
        ----------
        more : LabelSet
            Stored labels. Classes that exist keep their key and colour.
        """
        self._before = [added(one, more) for one in self._before]
        self._after = [added(one, more) for one in self._after]
        self._set(added(self.set, more))

    @property
    def can_undo(self) -> bool:
        """Whether there is an earlier step."""
        return bool(self._before)

    @property
    def can_redo(self) -> bool:
        """Whether a step was undone."""
        return bool(self._after)

    def undo(self) -> None:
        """Go back by a step."""
        if self._before:
            self._after.append(self.set)
            self._set(self._before.pop())

    def redo(self) -> None:
        """Make the step again that was undone last."""
        if self._after:
            self._before.append(self.set)
            self._set(self._after.pop())

    def _set(self, labels: LabelSet) -> None:
        self.set = labels
        self.changed.emit()


def author() -> str:
    """Return the name that labels are made under: from the settings, or the user's."""
    if name := preferences().author:
        return name
    with suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return ""


def added(labels: LabelSet, more: LabelSet) -> LabelSet:
    """Return labels with those of other slides; classes that exist keep key and colour.

    Parameters
    ----------
    labels : LabelSet
        The labels.
    more : LabelSet
        Labels that are added.
    """
    if not more.labels:
        return labels
    used = {one.label for one in more.labels}
    for one in more.classes:
        if one.name in used and one.name not in labels.names:
            taken = {known.key for known in labels.classes}
            key = None if one.key in taken else one.key
            labels = labels.with_class(replace(one, key=key))
    names = {**more.slide_names, **labels.slide_names}
    return replace(labels, slide_names=names).with_labels(more.labels)
