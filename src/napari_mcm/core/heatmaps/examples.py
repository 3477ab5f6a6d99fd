"""The `Examples` of a query: points and regions on one slide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.heatmaps.similarity_index import Directions, Pool, SimilarityIndex

Point = tuple[float, float]

Polygon = tuple[Point, ...]


@dataclass(frozen=True)
class Examples:
    """Example positions on one slide, in level-0 pixels.

    Attributes
    ----------
    like, unlike : tuple of tuple of float
        Points (x, y) in similar and in dissimilar patches.
    regions : tuple of tuple of tuple of float
        Outlines; patches whose centre lies inside are similar examples, too.
    pool : {"mean", "max"}
        Whether the mean of all similar examples counts, or the nearest one.
    """

    like: tuple[Point, ...] = ()
    unlike: tuple[Point, ...] = ()
    regions: tuple[Polygon, ...] = ()
    pool: Pool = "mean"

    def __len__(self) -> int:
        return len(self.like) + len(self.unlike) + len(self.regions)

    def more(self, point: Point, like: bool = True) -> Examples:
        """Return the examples with one more point.

        Parameters
        ----------
        point : tuple of float
            Position (x, y) in level-0 pixels.
        like : bool, optional
            Whether it is a similar example.

        Returns
        -------
        examples : Examples
            A copy.
        """
        if like:
            return replace(self, like=(*self.like, point))
        return replace(self, unlike=(*self.unlike, point))

    def patches(self, grid: PatchGrid) -> tuple[list[int], list[int]] | None:
        """Return the patches of a grid that contain the examples.

        Parameters
        ----------
        grid : PatchGrid
            Patches of the slide.

        Returns
        -------
        tuple of list of int or None
            Similar and dissimilar patches; None where a point is in no patch, or there is
            no similar patch.
        """
        like = [grid.index_at(*point) for point in self.like]
        unlike = [grid.index_at(*point) for point in self.unlike]
        within = patches_within(grid, self.regions)
        similar = [patch for patch in like if patch is not None]
        dissimilar = [patch for patch in unlike if patch is not None]
        if len(similar) + len(dissimilar) < len(like) + len(unlike):  # all or none
            return None
        similar = list(dict.fromkeys([*similar, *within.tolist()]))  # each patch once
        return (similar, list(dict.fromkeys(dissimilar))) if similar else None

    def directions(
        self, index: SimilarityIndex
    ) -> tuple[Directions, list[int], list[int]] | None:
        """Return the query's directions for an encoder's features of the slide.

        Parameters
        ----------
        index : SimilarityIndex
            Features of the slide.

        Returns
        -------
        tuple or None
            Directions (K, D), and the similar and dissimilar patches. Patches of a region
            that have no features are left out. None where a point has no features.

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


def patches_within(grid: PatchGrid, regions: Sequence[Polygon]) -> NDArray[np.int64]:
    """Return the patches whose centres lie inside one of several outlines.

    Parameters
    ----------
    grid : PatchGrid
        N patches.
    regions : sequence of tuple of tuple of float
        Outlines in level-0 pixels. Of one that crosses itself, the inside is what lies
        within an odd number of turns.

    Returns
    -------
    ndarray of int64, shape (M,)
        Indices of patches, ascending.
    """
    import shapely

    inside = np.zeros(len(grid), bool)
    x, y = grid.centres.T
    for corners in regions:
        if len(corners) >= 3:
            # As drawn, not made valid: GEOS counts crossings of the line, so that an
            # odd number of turns is inside; make_valid would join the turns.
            outline = shapely.Polygon(corners)
            shapely.prepare(outline)
            inside |= shapely.contains_xy(outline, x, y)
    return np.flatnonzero(inside)
