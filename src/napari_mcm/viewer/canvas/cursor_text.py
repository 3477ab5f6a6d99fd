"""What lies under the cursor, in napari's status bar."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtWidgets import QLabel, QMainWindow, QStatusBar

from napari_mcm.viewer.layers.early_slicing import canvas_of
from napari_mcm.viewer.layers.pointer import REST_MS, locate_pointer
from napari_mcm.viewer.layers.timers import single_shot

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mcm.core.grid import PatchGrid


class CursorText(ABC):
    """Describes the patch under the cursor in the status bar.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    name : str
        What screen readers call the text.

    Attributes
    ----------
    text : str
        What is shown; empty where there is no patch, or no map.
    """

    def __init__(self, viewer: ViewerModel, name: str) -> None:
        self._viewer, self._name = viewer, name
        self._lookup: tuple[PatchGrid, NDArray[np.int32]] | None = None
        self._label: QLabel | None = None
        # One object, by which the viewer's list finds it again.
        self._moved = self._on_move
        self._rest = single_shot(REST_MS, self.refresh)
        self.text = ""

    def attach(self) -> None:
        """Start following the cursor."""
        if self._moved not in self._viewer.mouse_move_callbacks:
            self._viewer.mouse_move_callbacks.append(self._moved)
            if (canvas := canvas_of(self._viewer)) is not None:
                # Events of the camera do not tell of another size of the canvas.
                canvas.events.draw.connect(self._drawn, position="last")

    def detach(self) -> None:
        """Stop following the cursor, and leave the status bar."""
        if self._moved in self._viewer.mouse_move_callbacks:
            self._viewer.mouse_move_callbacks.remove(self._moved)
            if (canvas := canvas_of(self._viewer)) is not None:
                canvas.events.draw.disconnect(self._drawn)
        # When the viewer is closed, Qt may have deleted it already.
        with suppress(RuntimeError):
            self._rest.stop()
            if self._label is not None:
                self._label.clear()
                self._label.deleteLater()
        self._label = None

    def refresh(self) -> None:
        """Describe what is under the pointer: map or view may have changed."""
        self._show(locate_pointer(self._viewer))

    @abstractmethod
    def _describe(self, world: Any) -> str:
        """Return what to say of a place on the canvas; None is off the canvas."""

    def _drawn(self, _event: Any) -> None:
        # When the viewer is closed, Qt may have deleted the timer already.
        with suppress(RuntimeError):
            if not self._rest.isActive():
                self._rest.start()

    def _on_move(self, _viewer: Any, event: Any) -> None:
        self._show(event.position)

    def _show(self, world: Any) -> None:
        text = self._describe(world)
        if text == self.text:
            return
        self.text = text
        with suppress(RuntimeError):
            if self._label is None and (bar := self._status_bar()) is not None:
                self._label = QLabel()
                self._label.setAccessibleName(self._name)
                bar.addPermanentWidget(self._label)
            if self._label is not None:
                self._label.setText(text)

    def _status_bar(self) -> QStatusBar | None:
        canvas = canvas_of(self._viewer)
        window = None if canvas is None else canvas.native.window()
        return window.statusBar() if isinstance(window, QMainWindow) else None

    def _patch_at(self, grid: PatchGrid, x: float, y: float) -> int | None:
        """Find a patch in a table: searching the grid at every movement takes longer."""
        if self._lookup is None or self._lookup[0] is not grid:
            table = np.full(grid.shape, -1, np.int32)
            table[tuple(grid.lattice.T)] = np.arange(len(grid), dtype=np.int32)
            self._lookup = grid, table
        column = int(np.floor((x - grid.origin[0]) / grid.patch_size_level0[0]))
        row = int(np.floor((y - grid.origin[1]) / grid.patch_size_level0[1]))
        rows, columns = grid.shape
        if not (0 <= row < rows and 0 <= column < columns):
            return None
        patch = int(self._lookup[1][row, column])
        return None if patch < 0 else patch
