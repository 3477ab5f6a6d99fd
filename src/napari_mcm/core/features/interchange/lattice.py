"""The lattice that patches of another tool lie on, found from their corners."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError

Floats = NDArray[np.float64]
ROUNDING = 1.0
"""Level-0 pixels by which rounding may move a corner off its lattice."""

MOST_CROWDED = 0.1
MOST_CELLS = 10**8


@dataclass(frozen=True, eq=False)
class Lattice:
    """Rows and columns of patches.

    Attributes
    ----------
    index : ndarray of int32, shape (N, 2)
        Row and column of each patch.
    step : tuple of float
        Level-0 pixels from one to the next, along x and y.
    origin : tuple of float
        Upper left corner of row 0, column 0, in level-0 pixels.
    misfit : float
        Level-0 pixels by which the worst patch lies off the lattice.
    crowded : int
        Patches that share a place with another one.
    """

    index: NDArray[np.int32]
    step: tuple[float, float]
    origin: tuple[float, float]
    misfit: float
    crowded: int

    def shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """Count rows and columns over a slide of this width and height."""
        fit = [int((size[i] - self.origin[i]) / self.step[i] + 1e-9) for i in (1, 0)]
        least = self.index.max(axis=0) + 1 if len(self.index) else (0, 0)
        return max(fit[0], int(least[0])), max(fit[1], int(least[1]))


def find_lattice(xy: Floats, size: tuple[float, float]) -> Lattice:
    """Find rows and columns.

    Tools that lay patches over each piece of tissue from its own corner (CLAM) have
    one lattice a piece. All are put on that of the most patches, at the nearest place.

    Parameters
    ----------
    xy : ndarray of float64, shape (N, 2)
        Upper left corners in level-0 pixels.
    size : tuple of float
        Width and height of a patch in level-0 pixels.

    Raises
    ------
    FeatureError
        If there is none: one patch in ten would share a place, or it would have more
        rows and columns than any slide.
    """
    if not len(xy):
        return Lattice(np.empty((0, 2), np.int32), size, (0.0, 0.0), 0.0, 0)
    along = [_fit(xy[:, i], _step(xy[:, i], xy[:, 1 - i], size[i])) for i in (0, 1)]
    (columns, x_step, left), (rows, y_step, top) = along
    index = np.stack([rows, columns], axis=1)
    if (index.max(axis=0) + 1).prod(dtype=float) > MOST_CELLS:
        raise FeatureError("its patches are too small for where they lie")
    crowded = len(index) - len(np.unique(index, axis=0))
    if crowded > MOST_CROWDED * len(index):
        raise FeatureError(
            f"its patches lie on no lattice: {crowded} of {len(index)} would share a "
            "place with another",
            hint="Check --patch-size-level0",
        )
    placed = np.asarray((left, top)) + index[:, ::-1] * (x_step, y_step)
    misfit = float(np.abs(placed - xy).max())
    return Lattice(
        index.astype(np.int32), (x_step, y_step), (left, top), misfit, crowded
    )


def _step(along: Floats, across: Floats, size: float) -> float:
    """Give the commonest distance of neighbours in a line.

    That is less than a patch where they overlap, and exactly one where that explains it.
    """
    across = np.rint(across)
    order = np.lexsort((along, across))
    gaps = np.diff(along[order])[np.diff(across[order]) == 0]
    gaps = gaps[gaps > ROUNDING]
    if not len(gaps):
        return size
    lengths, counts = np.unique(np.rint(gaps), return_counts=True)
    commonest = lengths[counts.argmax()]
    step = float(gaps[np.abs(gaps - commonest) <= ROUNDING].mean())
    patches = max(round(step / size), 1)
    return size if abs(step - patches * size) <= patches * ROUNDING else step


def _fit(values: Floats, step: float) -> tuple[NDArray[np.int64], float, float]:
    """Give each value its place along one axis, the step and the origin."""
    there = np.unique(values)
    places = np.concatenate([[0], np.cumsum(np.rint(np.diff(there) / step))])
    for trial in (step, _slope(places, there)):
        origin = float(np.median(there - places * trial))
        off = np.abs(there - origin - places * trial).max()
        if trial > 0 and off <= ROUNDING:
            index = places[np.searchsorted(there, values)].astype(np.int64)
            return _from_edge(index, trial, origin)
    phases, counts = np.unique(np.rint(values % step), return_counts=True)
    origin = float(phases[counts.argmax()])
    index = np.rint((values - origin) / step).astype(np.int64)
    return _from_edge(index, step, origin)


def _slope(places: Floats, there: Floats) -> float:
    """Give the step that fits best: stated ones are rounded, and errors add up."""
    if places[-1] == 0:
        return 0.0
    centred = places - places.mean()
    return float((centred * there).sum() / (centred**2).sum())


def _from_edge(
    index: NDArray[np.int64], step: float, origin: float
) -> tuple[NDArray[np.int64], float, float]:
    """Count from the slide's edge, so that lattices of several files compare."""
    first = int(np.floor((origin + ROUNDING) / step))
    index, origin = index + first, origin - first * step
    # Where lattices were joined, one may begin before the other's edge.
    least = min(int(index.min()), 0)
    return index - least, step, origin + least * step
