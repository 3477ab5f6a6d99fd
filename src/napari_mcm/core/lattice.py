"""Where the cells of a patch grid lie, and which area each patch stands for.

A cell is one step of the lattice: patches that overlap are larger than their cells.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.runtime.geojson import rectangle_rings


def patch_areas_mm2(
    grid: PatchGrid, counted: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Return the area of tissue that each patch stands for, none of it twice.

    Parameters
    ----------
    grid : PatchGrid
        N patches.
    counted : ndarray of bool, shape (N,), optional
        Patches that count; by default all.

    Returns
    -------
    ndarray of float64, shape (N,)
        Area in mm² of its cell of the lattice, as far as it lies on the slide; 0 where it
        does not count. Overlapping patches are larger than their cells, and patches that
        share a cell share its area.
    """
    counts = np.ones(len(grid), bool) if counted is None else counted
    areas = np.zeros(len(grid))
    if not counts.any():
        return areas
    step, mpp = np.asarray(grid.patch_size_level0), np.asarray(grid.slide["mpp"])
    sides = np.broadcast_to(step, grid.xy.shape)
    if (size := grid.slide.get("size")) is not None:
        low, high = grid.xy, grid.xy + step
        beyond = np.maximum(-low, 0) + np.maximum(high - size, 0)
        # Corners are whole pixels, so that less than one beyond is rounding.
        sides = np.clip(sides - np.where(beyond < 1, 0, beyond), 0, None)
    areas = np.where(counts, np.prod(sides * mpp, axis=1) / 1e6, 0.0)
    cells = grid.lattice[counts].astype(np.int64) @ (grid.shape[1], 1)
    # Of most grids the cells are sorted and differ, and need no sorting.
    if not (np.diff(cells) > 0).all():
        _, cell, sharing = np.unique(cells, return_inverse=True, return_counts=True)
        areas[counts] /= sharing[cell.reshape(-1)]
    return areas


def cell_rings(grid: PatchGrid) -> NDArray[np.int64]:
    """Return the outline of each patch's cell; neighbours share their edges.

    Parameters
    ----------
    grid : PatchGrid
        N patches.

    Returns
    -------
    ndarray of int64, shape (N, 5, 2)
        Closed rings (x, y) in level-0 pixels.
    """
    step, origin = np.asarray(grid.patch_size_level0), np.asarray(grid.origin)
    low, place = grid.xy, grid.lattice[:, ::-1]
    # Patches of other tools may be some pixels off the lattice.
    offset = low - np.rint(origin + place * step)
    high = np.rint(origin + (place + 1) * step + offset).astype(np.int64)
    return rectangle_rings(low, high)


def cell_place_um(
    grid: PatchGrid,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return where a raster with one pixel per cell lies on the slide.

    Parameters
    ----------
    grid : PatchGrid
        Patches.

    Returns
    -------
    size : tuple of float
        Width and height of a cell in microns.
    corner : tuple of float
        Upper left corner (x, y) of the lattice in microns.
    """
    step, mpp, origin = grid.patch_size_level0, grid.slide["mpp"], grid.origin
    return (step[0] * mpp[0], step[1] * mpp[1]), (
        origin[0] * mpp[0],
        origin[1] * mpp[1],
    )
