"""The `Heatmap`: one value per patch, with its title, colours and limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import GridError
from napari_mcm.core.features.feature_set import PATCH_ALONE, NeighbourhoodConfig
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.lattice import patch_areas_mm2

DIFFERENCE = 0.5
"""Limit of the colours of a difference of cosines, on both sides of 0."""


@dataclass(frozen=True, eq=False)
class Heatmap:
    """One value per patch of a grid.

    Attributes
    ----------
    values : ndarray of float32, shape (N,)
        NaN where a patch has none.
    grid : PatchGrid
        Positions of the patches.
    limits : tuple of float
        Values at the two ends of the colour map.
    title : str
        What it shows: ``"cosine similarity to patch 128"``.
    colormap : str
        A name that matplotlib and napari both know.
    query : int or None
        Index of the query patch, where there is one.
    neighbourhood : NeighbourhoodConfig
        Over which patches the features were averaged that the values are of; the title
        says so, too.
    detail : ndarray of float32, shape (k * rows, k * columns), or None
        A finer picture of the same map, to be shown in place of `raster`; areas and files
        are of `values`.
    """

    values: NDArray[np.float32]
    grid: PatchGrid
    limits: tuple[float, float]
    title: str
    colormap: str = "coolwarm"
    query: int | None = None
    neighbourhood: NeighbourhoodConfig = PATCH_ALONE
    detail: NDArray[np.float32] | None = None

    @property
    def raster(self) -> NDArray[np.float32]:
        """Return the values as an image of the lattice.

        Returns
        -------
        ndarray of float32, shape (rows, columns)
            NaN where there is no tissue.
        """
        return self.grid.raster(self.values)

    def above(self, threshold: float) -> Heatmap:
        """Return the same map, restricted to patches at or above a threshold.

        Parameters
        ----------
        threshold : float
            Smallest value that is kept.

        Returns
        -------
        Heatmap
            NaN at all other patches.
        """
        with np.errstate(invalid="ignore"):
            kept = np.where(self.values >= threshold, self.values, np.nan)
        title = f"{self.title}, at least {threshold:.3g}"
        return replace(self, values=kept.astype(np.float32), title=title, detail=None)

    def count_above(self, threshold: float) -> int:
        """Count the patches at or above a threshold.

        Parameters
        ----------
        threshold : float
            Smallest value that counts.

        Returns
        -------
        int
            Patches.
        """
        # NaN compares as False: patches without a value do not count.
        with np.errstate(invalid="ignore"):
            return int(np.count_nonzero(self.values >= threshold))

    def area_mm2(self, threshold: float) -> float:
        """Return the area of the patches at or above a threshold, none of it twice.

        Parameters
        ----------
        threshold : float
            Smallest value that counts.

        Returns
        -------
        float
            Area in mm².
        """
        with np.errstate(invalid="ignore"):
            above = self.values >= threshold
        return float(patch_areas_mm2(self.grid, above).sum())

    def best(self, count: int, besides: Sequence[int] = ()) -> NDArray[np.int64]:
        """Return the patches with the largest values, largest first.

        Parameters
        ----------
        count : int
            Number of patches, at most.
        besides : sequence of int, optional
            Patches to leave out, such as the query.

        Returns
        -------
        ndarray of int64, shape (count,)
            Indices of patches; fewer where fewer have values.
        """
        values = np.nan_to_num(self.values, nan=-np.inf)
        # The query is always its own best match.
        values[list(besides)] = -np.inf
        # Partition first: sorting all of a slide's patches would be slower.
        rows = np.argpartition(-values, min(count, len(values) - 1))[:count]
        rows = rows[np.argsort(-values[rows], kind="stable")]
        return np.asarray(rows[np.isfinite(values[rows])], np.int64)


def difference(before: Heatmap, after: Heatmap) -> Heatmap:
    """Return the difference of two maps of the same patches.

    Parameters
    ----------
    before, after : Heatmap
        Maps of the same patches, by two encoders.

    Returns
    -------
    Heatmap
        `after` less `before`, with limits of plus and minus :data:`DIFFERENCE`.

    Raises
    ------
    GridError
        If the maps have different patches, or different neighbourhoods.
    """
    # Grids from two files are equal but not identical: compare what they describe.
    if before.grid is not after.grid and not (
        before.grid.slide == after.grid.slide
        and np.array_equal(before.grid.xy, after.grid.xy)
        and before.grid.patch_size_level0 == after.grid.patch_size_level0
    ):
        raise GridError(
            "the two encoders have features of different patches",
            hint="Compute both with the same patch size and resolution",
        )
    around = after.neighbourhood
    if before.neighbourhood != around:
        raise GridError(
            f"the two maps have different context ({before.neighbourhood.describe()} "
            f"and {around.describe()})",
            hint="Give both the same --context",
        )
    values = np.asarray(after.values - before.values, np.float32)
    limits = (-DIFFERENCE, DIFFERENCE)
    title = name_context("difference of cosine similarities", around)
    return Heatmap(values, after.grid, limits, title, "PuOr", after.query, around)


def name_context(title: str, neighbourhood: NeighbourhoodConfig) -> str:
    """Add to a title over which patches features were averaged.

    Parameters
    ----------
    title : str
        Title of a map.
    neighbourhood : NeighbourhoodConfig
        Of its features.

    Returns
    -------
    str
        ``"..., context 3 × 3"``; the title itself for the patch alone.
    """
    if not neighbourhood.radius:
        return title
    return f"{title}, context {neighbourhood.describe()}"
