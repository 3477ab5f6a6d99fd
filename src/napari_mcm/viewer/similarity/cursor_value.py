"""The value of the shown map under the cursor, in napari's status bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np

from napari_mcm.viewer.canvas.cursor_text import CursorText
from napari_mcm.viewer.similarity.maps import DIFFERENCE

if TYPE_CHECKING:
    from napari_mcm.core.grid import PatchGrid
    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.viewer.similarity.context import SimilarityContext


class CursorValue(CursorText):
    """Shows value, encoder and place of the patch under the cursor.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.
    """

    def __init__(self, context: SimilarityContext) -> None:
        super().__init__(context.session.viewer, "Value under the cursor")
        self._context = ref(context)

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
