"""What digits do: label the patch under the pointer, a region, or other patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_mcm.core.heatmaps.examples import patches_within
from napari_mcm.viewer.labelling.lasso import LabelLasso
from napari_mcm.viewer.layers.pointer import NOWHERE, locate_pointer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_mcm.core.grid import PatchGrid
    from napari_mcm.core.heatmaps.examples import Polygon
    from napari_mcm.core.labelling import LabelSource
    from napari_mcm.viewer.app.session import Session
    from napari_mcm.viewer.labelling.fitting import ClassifierController


class LabelController:
    """Labels patches of the current slide by what the user points at or draws.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    classifier : ClassifierController
        Knows the features, whose patches are labelled.

    Attributes
    ----------
    lasso : LabelLasso
        Regions that wait for a class.
    note : str
        What happened last, or what to do next, in one line.
    noted : Signal
        Emitted when `note` changed.
    """

    noted = Signal()

    def __init__(self, session: Session, classifier: ClassifierController) -> None:
        self._session, self._classifier = session, classifier
        self.lasso = LabelLasso(session)
        self.note = ""
        self.lasso.changed.connect(self._lasso_changed)
        session.slide_chosen.connect(self._forget)
        # A label is followed by its own note: this is undo, or another dock.
        session.labels.changed.connect(self._forget)
        session.order.moved.connect(self._acted)
        session.error_reported.connect(self._failed)

    def press(self, key: int) -> None:
        """Label with the class of a number key what the user means.

        A region that was drawn comes first; else it is the patch under the pointer.

        Parameters
        ----------
        key : int
            1 to 9; 0 takes labels away.
        """
        if not key:
            self._unlabel()
        elif (found := self._session.labels.class_of_key(key)) is not None:
            self.label(found.name)

    def press_area(self, key: int) -> None:
        """Label the area above the threshold with the class of a number key."""
        if (found := self._session.labels.class_of_key(key)) is not None:
            self.label_above(found.name)

    def label(self, name: str) -> None:
        """Label the region that was drawn, or the patch under the pointer."""
        if regions := self.lasso.regions:
            self.lasso.clear()
            self.label_regions(regions, name, "lasso")
            return
        pointed = self._pointed()
        if pointed is not None:
            grid, row = pointed
            self._label(grid, [row], name, "click")

    def label_regions(
        self, regions: Sequence[Polygon], name: str, source: LabelSource
    ) -> int:
        """Label the patches of the current slide within regions.

        Parameters
        ----------
        regions : sequence of Polygon
            Outlines, (x, y) in level-0 pixels.
        name : str
            Name of the class.
        source : str
            Where the regions come from.
        """
        grid = self._grid()
        if grid is None:
            return 0
        return self._label(grid, patches_within(grid, regions), name, source)

    def label_above(self, name: str) -> None:
        """Label the area above the threshold of similarity."""
        query = self._session.labels.query
        choice = query.above() if query is not None else None
        if choice is None:
            self._session.report_error(
                "There is no area above a threshold: click on the slide in the dock "
                "Similarity"
            )
        else:
            self._label(choice.grid, choice.rows, name, "threshold")

    def label_examples(self, name: str, like: bool) -> None:
        """Label the similar examples of the query, or the dissimilar ones.

        Parameters
        ----------
        name : str
            Name of the class.
        like : bool
            Whether the similar ones are meant.
        """
        query = self._session.labels.query
        choice = query.examples(like) if query is not None else None
        if choice is None:
            kind = "similar" if like else "dissimilar"
            self._session.report_error(
                f"The query has no {kind} examples on this slide: judge patches with "
                f"{'✓' if like else '✗'} in the dock Similarity"
            )
        else:
            self._label(choice.grid, choice.rows, name, "gallery")

    def say(self, note: str) -> None:
        """Show a line in the dock and in the status bar."""
        if note:
            self._clear_problem()
        before, self.note = self.note, note
        viewer = self._session.viewer
        if note or viewer.status == before:
            viewer.status = note
        if note != before:
            self.noted.emit()

    def _forget(self) -> None:
        self.say("")

    def _acted(self) -> None:
        self._clear_problem()
        self._forget()

    def _failed(self) -> None:
        if self._session.problem:
            self._forget()

    def _clear_problem(self) -> None:
        """Say no longer what went wrong before: one line is shown at a time."""
        if self._session.problem:
            self._session.report_error("")

    def _label(
        self,
        grid: PatchGrid,
        rows: Sequence[int] | NDArray[np.integer],
        name: str,
        source: LabelSource,
    ) -> int:
        if not len(rows):
            self.say("No patch with features lies there")
            return 0
        count = self._session.labels.add(grid, rows, name, source)
        patches = f"{count:,} patch{'' if count == 1 else 'es'}"
        self.say(f"{patches} labelled {name}" if count else f"Labelled {name} already")
        return count

    def _unlabel(self) -> None:
        labels, grid = self._session.labels, self._grid()
        if grid is None:
            return
        if regions := self.lasso.regions:
            self.lasso.clear()
            labels.remove(grid, patches_within(grid, regions))
        elif (pointed := self._pointed()) is not None:
            labels.remove(pointed[0], [pointed[1]])

    def _pointed(self) -> tuple[PatchGrid, int] | None:
        """Return the patch under the pointer; None, and say so, where there is none."""
        session = self._session
        world = locate_pointer(session.viewer)
        slide = None if world is None else session.slide_at(world)
        if world is None or slide is None:
            self.say(NOWHERE)
            return None
        # Side by side, the pointer chooses the slide, as a click does.
        session.choose_slide(slide)
        grid = self._grid()
        if grid is None:
            return None
        y, x = slide.world_to_data(world)[-2:]
        row = grid.index_at(float(x) + 0.5, float(y) + 0.5)
        if row is None:
            self.say("There is no patch of tissue under the pointer")
            return None
        return grid, row

    def _grid(self) -> PatchGrid | None:
        loaded = self._classifier.loaded
        if loaded is None:
            self._session.report_error(
                "Compute or load features first, in the dock Similarity"
            )
            return None
        return loaded.index.features.grid

    def _lasso_changed(self) -> None:
        regions, loaded = self.lasso.regions, self._classifier.loaded
        if not regions or loaded is None:
            self.say("Draw around the patches" if self.lasso.drawing else "")
            return
        count = len(patches_within(loaded.index.features.grid, regions))
        self.say(f"{count:,} patches: press the number of their class, Esc to cancel")
