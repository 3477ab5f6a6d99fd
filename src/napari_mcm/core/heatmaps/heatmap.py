"""The noun `Heatmap`: one value a patch, and how to show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import GridError
from napari_mcm.core.grid import PatchGrid

DIFFERENCE = 0.5
"""Colours of a difference of cosines run from less by so much to more by as much."""


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

    def above(self, threshold: float) -> Heatmap:
        """Give the same map of those patches alone that have at least a value."""
        with np.errstate(invalid="ignore"):
            kept = np.where(self.values >= threshold, self.values, np.nan)
        title = f"{self.title}, at least {threshold:.3g}"
        return replace(self, values=kept.astype(np.float32), title=title)

    def count_above(self, threshold: float) -> int:
        """Count the patches that have at least a value."""
        with np.errstate(invalid="ignore"):
            return int(np.count_nonzero(self.values >= threshold))

    def area_mm2(self, threshold: float) -> float:
        """Give the area of the patches that have at least a value, in mm²."""
        step, mpp = self.grid.patch_size_level0, self.grid.slide["mpp"]
        patch_um2 = step[0] * mpp[0] * step[1] * mpp[1]
        return float(self.count_above(threshold) * patch_um2 / 1e6)

    def best(self, count: int, besides: Sequence[int] = ()) -> NDArray[np.int64]:
        """Give the patches of greatest value, greatest first.

        Parameters
        ----------
        count : int
            How many at most.
        besides : sequence of int
            Patches that are left out: those that were asked for.
        """
        values = np.nan_to_num(self.values, nan=-np.inf)
        values[list(besides)] = -np.inf
        found = np.argpartition(-values, min(count, len(values) - 1))[:count]
        found = found[np.argsort(-values[found], kind="stable")]
        return np.asarray(found[np.isfinite(values[found])], np.int64)


def difference(before: Heatmap, after: Heatmap) -> Heatmap:
    """Show what one map has more than another.

    Parameters
    ----------
    before, after : Heatmap
        Of the same patches.

    Returns
    -------
    Heatmap
        `after` less `before`, in colours from :data:`DIFFERENCE` below to above.

    Raises
    ------
    GridError
        If they are of other patches.
    """
    if before.grid is not after.grid and not (
        before.grid.slide == after.grid.slide
        and np.array_equal(before.grid.xy, after.grid.xy)
        and before.grid.patch_size_level0 == after.grid.patch_size_level0
    ):
        raise GridError(
            "the two encoders have features of other patches",
            hint="Compute both with the same patch size and resolution",
        )
    values = np.asarray(after.values - before.values, np.float32)
    limits, title = (-DIFFERENCE, DIFFERENCE), "difference of cosine similarities"
    return Heatmap(values, after.grid, limits, title, "PuOr", after.query)
