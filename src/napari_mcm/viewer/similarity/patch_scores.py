"""The scores of all patches as a table that napari and other plugins can read.

A labels layer, hidden at first, numbers the patches; its ``features`` have one row per
patch. napari's features table shows them, and so does the status bar for the patch under
the cursor while the layer is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from napari_mcm.viewer.layers.metadata import on_slide, place
from napari_mcm.viewer.layers.timers import single_shot

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from napari.layers import Labels, Layer

    from napari_mcm.core.grid import PatchGrid
    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.viewer.similarity.context import SimilarityContext

WAIT_MS = 500
"""Delay until the table follows a query, in milliseconds: the map comes first."""
OPACITY = 0.4
_KEY = "patch scores"


class PatchScores:
    """Keeps the tables of the slides whose patches the user wants as a table.

    Parameters
    ----------
    context : SimilarityContext
        Query and maps of the viewer.
    """

    def __init__(self, context: SimilarityContext) -> None:
        self._context, self._session = context, context.session
        self._made: WeakKeyDictionary[Layer, Labels] = WeakKeyDictionary()
        self._shown: object = None
        self._timer = single_shot(WAIT_MS, self._update)
        context.query_changed.connect(self._query_changed)

    def layer_of(self, slide: Layer) -> Labels | None:
        """Return the layer with a slide's table; None if there is none."""
        return self._session.layers.alive(self._made.get(slide))

    def make(self) -> None:
        """Make the table of the current slide, or select its layer."""
        slide = self._session.slide
        if slide is None or not any(self._context.queries.maps().values()):
            self._session.report_error("There is no map yet: click on the slide")
            return
        if (layer := self.layer_of(slide)) is not None:
            self._session.layers.activate(layer)
            return
        self._update(make=True)

    def _query_changed(self) -> None:
        slide = self._session.slide
        if slide is not None and self.layer_of(slide) is not None:
            self._timer.start()

    def _update(self, make: bool = False) -> None:
        """Compute the table in a thread; pandas is slow to import, too."""
        slide, session = self._session.slide, self._session
        if slide is None or not (make or self.layer_of(slide) is not None):
            return
        maps = self._labelled()
        key = tuple(maps.values())
        if not key or (not make and key == self._shown):
            return
        self._shown = key
        mpp = session.metadata.mpp if session.metadata is not None else None
        session.disk.submit(
            _KEY,
            lambda: tabulate(maps, mpp),
            lambda made: self._show(slide, *made),
            session.report_error,
        )

    def _labelled(self) -> dict[str, Heatmap]:
        """Return the maps of the query by the names of their encoders."""
        found: dict[str, Heatmap] = {}
        for slot, heatmap in self._context.queries.maps().items():
            loaded = self._session.features(slot)
            if heatmap is not None and loaded is not None:
                taken = loaded.label in found
                label = f"{loaded.label} ({slot})" if taken else loaded.label
                found[label] = heatmap
        return found

    def _show(self, slide: Layer, grid: PatchGrid, table: pd.DataFrame) -> None:
        from napari.layers import Labels

        layers = self._session.layers
        if slide not in layers.slides():
            return
        layer = self.layer_of(slide)
        if layer is None:
            layer = Labels(
                numbered(grid),
                name=f"patch scores: {slide.name}",
                opacity=OPACITY,
                visible=False,
                **on_slide(slide, _KEY, grid.origin, grid.patch_size_level0),
            )
            layer.features = table
            self._made[slide] = layers.add(layer, over=slide)
            layers.activate(layer)
            return
        numbers = numbered(grid)
        place(layer, slide, grid.origin, grid.patch_size_level0)
        if not np.array_equal(layer.data, numbers):
            layer.data = numbers
        layer.features = table


def numbered(grid: PatchGrid) -> Any:
    """Return a labels image of a grid: patch i has the number i + 1, and 0 is none.

    Parameters
    ----------
    grid : PatchGrid
        The grid.

    Returns
    -------
    ndarray of int32, shape (rows, columns)
        Numbers.
    """
    numbers = np.zeros(grid.shape, np.int32)
    numbers[grid.lattice[:, 0], grid.lattice[:, 1]] = np.arange(1, len(grid) + 1)
    return numbers


def tabulate(
    maps: Mapping[str, Heatmap], mpp: tuple[float, float] | None
) -> tuple[PatchGrid, pd.DataFrame]:
    """Return a table with one row per patch of the first map.

    Parameters
    ----------
    maps : mapping of str to Heatmap
        Name of an encoder to its map, at least one.
    mpp : tuple of float or None
        Microns per level-0 pixel along x and y; None if unknown.

    Returns
    -------
    grid : PatchGrid
        Grid of the rows.
    table : DataFrame
        ``index`` (the number in the layer), ``patch`` (the row of the feature file),
        ``x_um`` and ``y_um`` of the centre, or ``x_px`` and ``y_px`` without a
        resolution, and ``similarity: NAME`` of each encoder with the same patches.
    """
    import pandas as pd

    grid = next(iter(maps.values())).grid
    unit, size = ("um", mpp) if mpp is not None else ("px", (1.0, 1.0))
    columns: dict[str, Any] = {
        "index": np.arange(1, len(grid) + 1),
        "patch": np.arange(len(grid)),
        f"x_{unit}": grid.centres[:, 0] * size[0],
        f"y_{unit}": grid.centres[:, 1] * size[1],
    }
    for name, heatmap in maps.items():
        if heatmap.grid is grid or np.array_equal(heatmap.grid.xy, grid.xy):
            columns[f"similarity: {name}"] = heatmap.values
    return grid, pd.DataFrame(columns)
