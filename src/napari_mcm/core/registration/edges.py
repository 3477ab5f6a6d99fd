"""The error of a registration on the outlines of the tissue.

Each point of the first section's outline is mapped to the second, and its distance to the
outline there is taken; then the same from the second to the first. Outlines at the border
of a slide are where the scan ends, not the tissue: they do not count.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_mcm.core.registration.result import EdgeError, map_points, unmap_points
from napari_mcm.core.registration.rough import Affine
from napari_mcm.core.registration.section import Section

_MARGIN_PX = 2
"""Distance from the slide's border, in pixels, within which no outline counts."""


def measure_edges(
    sections: tuple[Section, Section],
    affine: Affine,
    flow: NDArray[np.float32],
    flow_mpp: tuple[float, float],
) -> EdgeError:
    """Measure how far the outlines of two registered sections lie apart.

    Parameters
    ----------
    sections : tuple of Section
        Both sections.
    affine : ndarray of float64, shape (2, 3)
        Of the map from the first to the second, as
        :func:`~napari_mcm.core.registration.result.map_points` takes it.
    flow : ndarray of float32, shape (height, width, 2)
        Of the same map.
    flow_mpp : tuple of float
        Microns per pixel of `flow`.

    Returns
    -------
    EdgeError
        In microns.
    """
    first, second = (_Outline(section) for section in sections)
    there = map_points(affine, flow, flow_mpp, first.points)
    back = unmap_points(affine, flow, flow_mpp, second.points)
    distances = np.concatenate([second.distances(there), first.distances(back)])
    if not len(distances):
        return EdgeError()
    median, high = np.percentile(distances, (50, 90))
    return EdgeError(float(median), float(high))


class _Outline:
    """The pixels at the edge of a section's tissue."""

    def __init__(self, section: Section) -> None:
        self._mpp = section.mpp
        tissue = section.tissue > 0.5
        edge = tissue & ~ndimage.binary_erosion(tissue, border_value=1)
        inner = np.zeros_like(edge)
        inner[_MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX] = True
        edge &= inner
        rows, columns = np.nonzero(edge)
        pixels = np.column_stack([columns, rows]) + 0.5
        self.points = np.asarray(pixels * np.asarray(section.mpp), np.float64)
        self._distance: NDArray[np.float64] | None = None
        if edge.any():
            self._distance = ndimage.distance_transform_edt(
                ~edge, sampling=section.mpp[::-1]
            )

    def distances(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the distance in microns of points that lie on this section to its edge."""
        if self._distance is None:
            return np.zeros(0)
        height, width = self._distance.shape
        at = points / self._mpp - 0.5
        inside = np.all((at >= 0) & (at <= (width - 1, height - 1)), axis=1)
        x, y = np.rint(at[inside]).astype(int).T
        return np.asarray(self._distance[y, x])
