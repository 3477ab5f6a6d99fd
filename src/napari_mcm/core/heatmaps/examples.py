"""What a query was made of: places on a slide to be like, and to be unlike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.heatmaps.similarity import Directions, Pool, SimilarityIndex

Point = tuple[float, float]
Ring = tuple[Point, ...]


@dataclass(frozen=True)
class Examples:
    """Places on one slide, in level-0 pixels.

    Attributes
    ----------
    like, unlike : tuple of tuple of float
        Points (x, y) in patches to be like, and to be unlike.
    regions : tuple of tuple of tuple of float
        Outlines; patches whose centre lies in one are to be like, too.
    pool : {"mean", "max"}
        Of all patches to be like, their mean counts, or whichever is nearest.
    """

    like: tuple[Point, ...] = ()
    unlike: tuple[Point, ...] = ()
    regions: tuple[Ring, ...] = ()
    pool: Pool = "mean"

    def __len__(self) -> int:
        return len(self.like) + len(self.unlike) + len(self.regions)

    def more(self, point: Point, like: bool = True) -> Examples:
        """Give the same with one more point."""
        if like:
            return replace(self, like=(*self.like, point))
        return replace(self, unlike=(*self.unlike, point))

    def patches(self, grid: PatchGrid) -> tuple[list[int], list[int]] | None:
        """Find the patches of a grid that are meant.

        Returns
        -------
        tuple of list of int or None
            Those to be like and unlike; None where a point meets no patch, or no patch
            is to be like.
        """
        like = [grid.index_at(*point) for point in self.like]
        unlike = [grid.index_at(*point) for point in self.unlike]
        within = patches_within(grid, self.regions)
        found = [patch for patch in like if patch is not None]
        away = [patch for patch in unlike if patch is not None]
        if len(found) + len(away) < len(like) + len(unlike):
            return None
        found = list(dict.fromkeys([*found, *within.tolist()]))
        return (found, list(dict.fromkeys(away))) if found else None

    def directions(
        self, index: SimilarityIndex
    ) -> tuple[Directions, list[int], list[int]] | None:
        """Say what is asked of an encoder; None where it has no features there.

        Returns
        -------
        tuple or None
            Directions (K, D), and the patches that are to be like and unlike. Patches
            of a region that could not be read are left out.

        Raises
        ------
        FeatureError
            If the examples cancel each other out.
        """
        patches = self.patches(index.features.grid)
        if patches is None:
            return None
        like, unlike = patches
        points = [index.features.grid.index_at(*point) for point in self.like]
        if not all(index.valid[patch] for patch in (*points, *unlike)):
            return None
        like = [patch for patch in like if index.valid[patch]]
        if not like:
            return None
        return index.directions(like, unlike, self.pool), like, unlike


def patches_within(grid: PatchGrid, regions: Sequence[Ring]) -> NDArray[np.int64]:
    """Find the patches whose centres lie in any of some outlines.

    Parameters
    ----------
    grid : PatchGrid
        N patches.
    regions : sequence of sequence of tuple of float
        Outlines in level-0 pixels; of one that crosses itself, what lies within an odd
        number of turns.

    Returns
    -------
    ndarray of int64
        Their indices, ascending.
    """
    inside = np.zeros(len(grid), bool)
    centres = grid.centres
    for ring in regions:
        inside |= _inside(centres, np.asarray(ring, np.float64).reshape(-1, 2))
    return np.flatnonzero(inside)


def _inside(
    points: NDArray[np.float64], ring: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Count how often a ray to the right crosses the outline."""
    odd = np.zeros(len(points), bool)
    if len(ring) < 3:
        return odd
    near = ((points >= ring.min(axis=0)) & (points <= ring.max(axis=0))).all(axis=1)
    x, y = points[near].T
    crossed = np.zeros(len(x), bool)
    for (ax, ay), (bx, by) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if ay != by:
            at = ax + (y - ay) * (bx - ax) / (by - ay)
            crossed ^= ((ay > y) != (by > y)) & (x < at)
    odd[near] = crossed
    return odd
