"""From places on slides to points of an atlas, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

import numpy as np
from numpy.typing import NDArray

from napari_mcm.viewer.layers.outlines import OutlineLayers
from napari_mcm.viewer.project.memory import memory_of

if TYPE_CHECKING:
    from napari_mcm.core.atlas import Atlas
    from napari_mcm.core.grid import PatchGrid
    from napari_mcm.viewer.app.session import Session


class PointLookup:
    """Finds the point of an atlas at a place of a slide.

    Parameters
    ----------
    atlas : Atlas
        The atlas.
    """

    def __init__(self, atlas: Atlas) -> None:
        self._atlas = atlas
        self._tables: dict[int, NDArray[np.int32]] = {}
        self._numbers = {one.fingerprint: i for i, one in enumerate(atlas.slides)}

    def number_of(self, fingerprint: str) -> int | None:
        """Return the position of a slide in the atlas; None if it is not there."""
        return self._numbers.get(fingerprint) if fingerprint else None

    def grid_of(self, number: int) -> PatchGrid:
        """Return the patch grid of a slide, by its position."""
        return self._atlas.slides[number].grid

    def point_at(self, number: int, x: float, y: float) -> int:
        """Return the point of the patch that contains a place; -1 if there is none.

        Parameters
        ----------
        number : int
            Position of the slide in the atlas.
        x, y : float
            The place in level-0 pixels.
        """
        grid = self._atlas.slides[number].grid
        column = int(np.floor((x - grid.origin[0]) / grid.patch_size_level0[0]))
        row = int(np.floor((y - grid.origin[1]) / grid.patch_size_level0[1]))
        rows, columns = grid.shape
        if not (0 <= row < rows and 0 <= column < columns):
            return -1
        return int(self._table(number)[row, column])

    def cells(self, number: int, points: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Return which cells of a slide's lattice hold some points.

        Parameters
        ----------
        number : int
            Position of the slide.
        points : ndarray of int
            Points of any slides.

        Returns
        -------
        ndarray of bool, shape (rows, columns)
        """
        atlas, grid = self._atlas, self._atlas.slides[number].grid
        own = points[atlas.slide[points] == number]
        mask = np.zeros(grid.shape, bool)
        mask[tuple(grid.lattice[atlas.row[own]].T)] = True
        return mask

    def _table(self, number: int) -> NDArray[np.int32]:
        """Return the point of each cell: searching the grid each time takes longer."""
        if number not in self._tables:
            atlas, grid = self._atlas, self._atlas.slides[number].grid
            points = atlas.patches_of(number)
            table = np.full(grid.shape, -1, np.int32)
            table[tuple(grid.lattice[atlas.row[points]].T)] = points
            self._tables[number] = table
        return self._tables[number]


class SelectionOutlines:
    """Outlines selected points on all open slides of an atlas.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._outlines = OutlineLayers(session.layers, "atlas selection")

    def show(self, lookup: PointLookup | None, points: NDArray[np.integer]) -> None:
        """Outline points, in place of those before.

        Parameters
        ----------
        lookup : PointLookup or None
            Of the atlas; None if there is none.
        points : ndarray of int
            The points.
        """
        memory = memory_of(self._session)
        for layer in self._session.layers.slides():
            number = (
                None
                if lookup is None
                else lookup.number_of(memory.fingerprint_of(layer))
            )
            mask = None
            if lookup is not None and number is not None and len(points):
                mask = lookup.cells(number, points)
            if lookup is None or number is None or mask is None or not mask.any():
                self._outlines.hide(layer)
                continue
            grid = lookup.grid_of(number)
            self._outlines.draw(layer, mask, grid.origin, grid.patch_size_level0)


class CanvasPointer:
    """Follows the pointer on the canvas, as long as somebody wants to know.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    moved : callable
        Method that is called with the layer of the slide under the pointer and x and y
        in level-0 pixels; with None, 0 and 0 where there is none.
    """

    def __init__(self, session: Session, moved: Any) -> None:
        self._session, self._moved = session, WeakMethod(moved)
        # One object, by which the viewer's list finds it again.
        self._callback = self._on_move

    def attach(self) -> None:
        """Start following the pointer."""
        callbacks = self._session.viewer.mouse_move_callbacks
        if self._callback not in callbacks:
            callbacks.append(self._callback)

    def detach(self) -> None:
        """Stop following the pointer."""
        callbacks = self._session.viewer.mouse_move_callbacks
        if self._callback in callbacks:
            callbacks.remove(self._callback)

    def _on_move(self, _viewer: Any, event: Any) -> None:
        moved = self._moved()
        if moved is None:
            return
        layer = self._session.slide_at(event.position)
        if layer is None:
            moved(None, 0.0, 0.0)
            return
        y, x = layer.world_to_data(tuple(event.position))[-2:]
        # napari's origin is the centre of the first pixel, the slide's is its corner.
        moved(layer, float(x) + 0.5, float(y) + 0.5)
