"""Features at a step of half a patch: of patches that lie between those of a grid.

Patches of half the step are the grid itself and three more grids like it, shifted by half
a patch to the right, down, and both. Each is a lattice of patches that do not overlap, so
everything that works on a grid works on it: reading, averaging over a neighbourhood,
queries. A shifted patch counts as tissue where all patches that it overlaps do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import FeatureSet, Status
from napari_mcm.core.features.patches import Patch, stream_patches
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.runtime.jobs import Job, Meter
from napari_mcm.core.slides import Slide

if TYPE_CHECKING:
    from napari_mcm.core.encoders import Encoder

Shift = tuple[int, int]
"""Halves of a patch, right and down."""
SHIFTS: tuple[Shift, ...] = ((1, 0), (0, 1), (1, 1))
"""The grids between the patches of a grid."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in level-0 pixels."""


def shifted_grid(features: FeatureSet, shift: Shift) -> PatchGrid:
    """Return the patches that lie half a patch from those with features.

    Parameters
    ----------
    features : FeatureSet
        N patches of a slide.
    shift : tuple of int
        One of :data:`SHIFTS`.

    Returns
    -------
    PatchGrid
        Row and column of a patch are those of the upper left one that it overlaps. Only
        patches between such that all have features.
    """
    grid, (right, down) = features.grid, shift
    present = np.zeros((grid.shape[0] + 1, grid.shape[1] + 1), bool)
    rows, columns = grid.lattice[features.ok].T
    present[rows, columns] = True
    row, column = np.indices(grid.shape)
    whole = np.ones(grid.shape, bool)
    for x in {0, right}:
        for y in {0, down}:
            whole &= present[row + y, column + x]
    step = np.asarray(grid.patch_size_level0)
    origin = np.asarray(grid.origin) + step * shift / 2
    lattice = np.argwhere(whole).astype(np.int32)
    xy = np.rint(origin + lattice[:, ::-1] * step).astype(np.int64)
    corner = (float(origin[0]), float(origin[1]))
    return replace(grid, xy=xy, lattice=lattice, origin=corner)


def within(grid: PatchGrid, box: Box, margin: int = 0) -> NDArray[np.bool_]:
    """Return which patches have their centre in a box.

    Parameters
    ----------
    grid : PatchGrid
        N patches.
    box : tuple of float
        Left, top, right and bottom in level-0 pixels.
    margin : int, optional
        Width of a border around the box that counts, too, in patches.

    Returns
    -------
    ndarray of bool, shape (N,)
    """
    around = np.asarray(grid.patch_size_level0) * margin
    low, high = np.asarray(box[:2]) - around, np.asarray(box[2:]) + around
    return np.asarray(((grid.centres >= low) & (grid.centres <= high)).all(axis=1))


def part_of(grid: PatchGrid, kept: NDArray[np.bool_]) -> PatchGrid:
    """Return some patches of a grid.

    Parameters
    ----------
    grid : PatchGrid
        N patches.
    kept : ndarray of bool, shape (N,)
        Which ones.

    Returns
    -------
    PatchGrid
        On the same lattice.
    """
    return replace(grid, xy=grid.xy[kept], lattice=grid.lattice[kept])


def extract_half_steps(
    slide: Slide,
    grids: Mapping[Shift, PatchGrid],
    encoder: Encoder,
    like: FeatureSet,
    workers: int = 2,
) -> Job[dict[Shift, FeatureSet]]:
    """Compute features of shifted patches in memory, as a job.

    Parameters
    ----------
    slide : Slide
        Open.
    grids : mapping of tuple to PatchGrid
        A shift to its patches.
    encoder : Encoder
        Must be the one of `like`.
    like : FeatureSet
        Features of the patches between which these lie.
    workers : int, optional
        Threads that read ahead.

    Yields
    ------
    Progress
        In patches.

    Returns
    -------
    dict of tuple to FeatureSet
        As `grids`; encoder and grid say how they were made.

    Raises
    ------
    FeatureError
        If the slide or the encoder is another one than that of `like`.
    """
    about = encoder.describe()
    for key, what in (("fingerprint", "weights"), ("precision", "precision")):
        if about[key] != like.encoder.get(key):
            raise FeatureError(
                f"the encoder has another {what} than the features of this map",
                hint="Compute the features of the slide again with this encoder",
            )
    if like.grid.slide.get("fingerprint") != slide.fingerprint:
        raise FeatureError("the map is of another slide", slide.path)
    meter = Meter(f"Refining {slide.name}", sum(map(len, grids.values())))
    yield meter.progress()
    made = {}
    for shift, grid in grids.items():
        made[shift] = yield from _extract(slide, grid, encoder, workers, meter)
    return made


def merge(parts: Sequence[FeatureSet]) -> FeatureSet:
    """Return the features of several parts of one grid as one set.

    Parameters
    ----------
    parts : sequence of FeatureSet
        Of one lattice; no patch is in two of them.

    Returns
    -------
    FeatureSet
        Sorted by rows of the lattice.
    """
    lattice = np.concatenate([part.grid.lattice for part in parts])
    order = np.lexsort(lattice.T[::-1])
    xy = np.concatenate([part.grid.xy for part in parts])[order]
    grid = replace(parts[0].grid, xy=xy, lattice=lattice[order])
    features = np.concatenate([part.features for part in parts])[order]
    status = np.concatenate([part.status for part in parts])[order]
    return FeatureSet(features, grid, status, parts[0].encoder, parts[0].provenance)


def _extract(
    slide: Slide, grid: PatchGrid, encoder: Encoder, workers: int, meter: Meter
) -> Job[FeatureSet]:
    # The CPU's batches are short, so that a cancel acts soon.
    from napari_mcm.core.features.extraction import AdaptiveBatchSize, encode_patches

    size = AdaptiveBatchSize("auto", encoder)
    features = np.full((len(grid), encoder.dim), np.nan, np.float32)
    status = np.full(len(grid), Status.PENDING, np.uint8)
    patches = stream_patches(slide, grid, 0, workers)
    row = 0
    try:
        while row < len(grid):
            batch: list[Patch] = list(islice(patches, size.current))
            stop = row + len(batch)
            features[row:stop] = encode_patches(encoder, batch, size)
            status[row:stop] = [patch.status for patch in batch]
            row = stop
            yield meter.advance(len(batch))
    finally:
        patches.close()
    made = {"made": "half a patch between the patches of a grid, in memory"}
    return FeatureSet(features, grid, status, encoder.describe(), made)


@dataclass(frozen=True, eq=False)
class Detail:
    """Values at some half steps of a map.

    Attributes
    ----------
    lattice : ndarray of int32, shape (M, 2)
        Row and column of the upper left patch that each one overlaps.
    values : ndarray of float32, shape (M,)
        NaN where there is none.
    """

    lattice: NDArray[np.int32]
    values: NDArray[np.float32]


def paint_detail(
    raster: NDArray[np.float32], details: Mapping[Shift, Detail]
) -> NDArray[np.float32]:
    """Return a raster with four times the rows and columns, finer where values are known.

    A value at half steps is painted on the half patch around its centre.

    Parameters
    ----------
    raster : ndarray of float32, shape (rows, columns)
        Values of the grid's own patches.
    details : mapping of tuple to Detail
        A shift to its values.

    Returns
    -------
    ndarray of float32, shape (4 * rows, 4 * columns)
        NaN where the patch has no value.
    """
    picture = np.repeat(np.repeat(raster, 4, axis=0), 4, axis=1)
    for (right, down), detail in details.items():
        known = np.isfinite(detail.values)
        rows, columns = 4 * detail.lattice[known].T.astype(np.intp)
        for y in (1, 2):
            for x in (1, 2):
                at = rows + y + 2 * down, columns + x + 2 * right
                picture[at] = detail.values[known]
    return np.asarray(picture, np.float32)
