"""Polygons from masks and masks from polygons, exact to a mask's pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.tissue.mask import TissueMask

if TYPE_CHECKING:
    from shapely import Polygon
    from shapely.geometry.base import BaseGeometry


def outline(tissue: TissueMask) -> list[Polygon]:
    """Draw polygons around a mask's pixels.

    Returns
    -------
    list of shapely.Polygon
        Valid, with holes, in level-0 pixels; their area is the mask's.
    """
    import shapely

    edges = np.diff(np.pad(tissue.mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    # Both lists go through the rows from left to right: runs begin and end in turn.
    rows, starts = np.nonzero(edges > 0)
    stops = np.nonzero(edges < 0)[1]
    runs = shapely.box(starts, rows, stops, rows + 1)
    # In whole numbers the union is exact, and what is straight can be told to be so.
    merged = shapely.simplify(shapely.union_all(runs), 0)
    to_level0 = np.asarray(tissue.downsample)
    scaled = shapely.transform(merged, lambda xy: xy * to_level0)
    return [part for part in shapely.get_parts(scaled) if not part.is_empty]


def burn(
    drawn: BaseGeometry, extent: tuple[float, float], size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Draw polygons as a mask: pixels whose centre lies inside.

    Parameters
    ----------
    drawn : shapely geometry
        Valid; parts that are no polygons are left out.
    extent : tuple of float
        Width and height that the mask covers, from 0, in the polygons' units.
    size : tuple of int
        Width and height of the mask in pixels.

    Returns
    -------
    ndarray of bool, shape (height, width)
    """
    scale = np.asarray(size) / np.asarray(extent)
    crossings = np.zeros((size[1], size[0] + 1), np.uint8)
    for ring in _rings(drawn):
        _cross(crossings, ring * scale)
    # A pixel is inside when lines were crossed an odd number of times on the way to it.
    return np.bitwise_xor.accumulate(crossings, axis=1)[:, :-1].astype(bool)


def _rings(drawn: BaseGeometry) -> list[NDArray[np.float64]]:
    import shapely

    parts = shapely.get_parts(shapely.get_parts(drawn))
    polygons = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    return [shapely.get_coordinates(ring) for ring in shapely.get_rings(polygons)]


def _cross(crossings: NDArray[np.uint8], ring: NDArray[np.float64]) -> None:
    """Mark, in each row of pixels, where a ring crosses the row's centre line."""
    height, width = crossings.shape[0], crossings.shape[1] - 1
    one, two = ring[:-1], ring[1:]
    first = np.ceil(np.minimum(one[:, 1], two[:, 1]) - 0.5).clip(0, height)
    last = np.ceil(np.maximum(one[:, 1], two[:, 1]) - 0.5).clip(0, height)
    count = (last - first).astype(np.intp)
    edge = np.repeat(np.arange(len(one)), count)
    below = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    row = first[edge].astype(np.intp) + below
    step = two - one
    along = (row + 0.5 - one[edge, 1]) / step[edge, 1]
    x = one[edge, 0] + along * step[edge, 0]
    column = np.ceil(x - 0.5).clip(0, width).astype(np.intp)
    np.bitwise_xor.at(crossings, (row, column), 1)
