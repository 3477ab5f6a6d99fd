"""The value of the shown map under the cursor, in napari's status bar."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray
from qtpy.QtWidgets import QLabel, QMainWindow, QStatusBar

from napari_mcm.viewer.layers.early_slicing import canvas_of
from napari_mcm.viewer.layers.pointer import REST_MS, locate_pointer
from napari_mcm.viewer.project.memory import single_shot
from napari_mcm.viewer.similarity.maps import DIFFERENCE

if TYPE_CHECKING:
    from napari_mcm.core.grid import PatchGrid
    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.viewer.similarity.context import SimilarityContext


class CursorValue:
    """Shows value, encoder and place of the patch under the cursor.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.

    Attributes
    ----------
    text : str
        What is shown; empty where there is no patch, or no map.
    """

    def __init__(self, context: SimilarityContext) -> None:
        self._context = ref(context)
        self._viewer = context.session.viewer
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
        """Show the value under the pointer: map or view may have changed."""
        self._show(locate_pointer(self._viewer))

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
                self._label.setAccessibleName("Value under the cursor")
                bar.addPermanentWidget(self._label)
            if self._label is not None:
                self._label.setText(text)

    def _status_bar(self) -> QStatusBar | None:
        canvas = canvas_of(self._viewer)
        window = None if canvas is None else canvas.native.window()
        return window.statusBar() if isinstance(window, QMainWindow) else None

    def _describe(self, world: Any) -> str:
        context = self._context()
        slide = None if context is None else context.session.slide
        # While the map follows the cursor, the patch under it is the query.
        if (
            context is None
            or slide is None
            or world is None
            or context.clicks.following
        ):
            return ""
        # Side by side, the cursor may be over another slide.
        seen = context.session.slide_at(world)
        if seen is None or seen is not slide:
            return ""
        shown = _shown_map(context)
        classes = context.session.layers.map_of(slide, "classes")
        # Where the map of classes is seen, the class is named instead.
        if shown is None or (classes is not None and classes.visible):
            return ""
        slot, heatmap = shown
        y, x = slide.world_to_data(tuple(world))[-2:]
        grid = heatmap.grid
        patch = self._patch_at(grid, float(x) + 0.5, float(y) + 0.5)
        if patch is None or not np.isfinite(heatmap.values[patch]):
            return ""
        loaded = context.session.features(slot)
        label = DIFFERENCE if slot == DIFFERENCE else loaded.label if loaded else ""
        value = f"{heatmap.values[patch]:.3f}"
        return " · ".join(part for part in (value, label, _place(grid, patch)) if part)

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


def _shown_map(context: SimilarityContext) -> tuple[str, Heatmap] | None:
    """Return slot and heatmap of the map that is seen, the difference included."""
    drawn = context.queries.drawn
    if drawn.difference is not None and DIFFERENCE in drawn.shown()[-1:]:
        return DIFFERENCE, drawn.difference
    return context.queries.shown_map()


def _place(grid: PatchGrid, patch: int) -> str:
    """Return the centre of a patch in millimetres, or microns on a small slide."""
    mpp, size = grid.slide["mpp"], grid.slide["size"]
    x, y = (float(c) * m for c, m in zip(grid.centres[patch], mpp, strict=True))
    if max(n * m for n, m in zip(size, mpp, strict=True)) >= 1000:
        return f"x {x / 1000:.2f}, y {y / 1000:.2f} mm"
    return f"x {x:.0f}, y {y:.0f} µm"
