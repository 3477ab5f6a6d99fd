"""The noun `Heatmap`: one value a patch, and how to show it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.grid import PatchGrid


@dataclass(frozen=True, eq=False)
class Heatmap:
    """Values on a grid's patches.

    Attributes
    ----------
    values : ndarray of float32, shape (N,)
        NaN where a patch has none.
    grid : PatchGrid
        Where the patches lie.
    limits : tuple of float
        Values at the two ends of the colour map.
    title : str
        What it shows: ``"cosine similarity to patch 128"``.
    colormap : str
        A name that matplotlib and napari both know.
    query : int or None
        Index of the patch that it was asked for, where there is one.
    """

    values: NDArray[np.float32]
    grid: PatchGrid
    limits: tuple[float, float]
    title: str
    colormap: str = "coolwarm"
    query: int | None = None

    @property
    def raster(self) -> NDArray[np.float32]:
        """The values as a picture of the lattice, NaN where there is no tissue."""
        return self.grid.raster(self.values)
