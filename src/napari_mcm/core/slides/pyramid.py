"""Building the levels of a slide from the levels that a file stores."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import TileError
from napari_mcm.core.slides.backend import SlideFile
from napari_mcm.core.slides.levels import Level
from napari_mcm.core.slides.resample import area_average
from napari_mcm.core.slides.tiles import (
    CachedTiles,
    HalvedTiles,
    Pixels,
    TileCache,
    TileSource,
    assemble,
    assemble_partly,
)

_log = logging.getLogger(__name__)
# A viewer reads the coarsest level as a whole: it is a small picture.
_SMALLEST_LEVEL = 1024
_PART = 512
"""Side in pixels of the parts in which a damaged tile is recomputed."""
_WIDEST_GAP = 5.0
"""A larger ratio between stored levels is filled with computed levels."""


def pyramid(file: SlideFile, cache: TileCache) -> tuple[Level, ...]:
    """Order the stored levels, and compute those that are missing.

    Coarser levels are made by halving, down to a small picture, and where the next stored
    level is much coarser: no read then shrinks a huge area at once. Of a truncated file,
    those show what is there, and are grey elsewhere.

    Parameters
    ----------
    file : SlideFile
        What the backend read.
    cache : TileCache
        Where decoded tiles of all levels are kept.

    Returns
    -------
    tuple of Level
        From the finest to the coarsest.
    """
    levels: list[Level] = []
    partly = bool(file.truncation)
    for tiles, downsample in zip(file.levels, _downsamples(file), strict=True):
        if levels:
            levels += _between(levels[-1], downsample, cache, len(levels), partly)
            tiles = BlankFilledTiles(tiles, levels[-1], downsample, partly)
        levels.append(Level(CachedTiles(tiles, cache, len(levels)), downsample))
    while max(levels[-1].size) > _SMALLEST_LEVEL:
        levels.append(_halved(levels[-1], cache, len(levels), partly))
    return tuple(levels)


def _downsamples(file: SlideFile) -> list[tuple[float, float]]:
    if file.downsamples is not None:
        return list(file.downsamples)
    width, height = file.levels[0].size
    # Per axis: stored sizes are rounded, so the two ratios differ slightly.
    return [(width / level.size[0], height / level.size[1]) for level in file.levels]


def _between(
    finer: Level,
    downsample: tuple[float, float],
    cache: TileCache,
    name: int,
    partly: bool,
) -> Iterator[Level]:
    while min(downsample) / max(finer.downsample) > _WIDEST_GAP:
        finer = _halved(finer, cache, name, partly)
        name += 1
        yield finer


def _halved(finer: Level, cache: TileCache, name: int, partly: bool) -> Level:
    # Cached, or each tile would be computed again from all finer levels.
    source = CachedTiles(HalvedTiles(finer.source, partly), cache, name)
    twice = (2 * finer.downsample[0], 2 * finer.downsample[1])
    return Level(source, twice, stored=False)


class BlankFilledTiles:
    """A stored level whose damaged tiles are computed from the next finer level.

    One damaged tile of a coarse level would hide a large part of the slide from the tissue
    mask, although all of its pixels exist at a finer level.

    Parameters
    ----------
    source : TileSource
        The level as stored.
    finer : Level
        The next finer level.
    downsample : tuple of float
        Level-0 pixels per pixel of `source`, along x and y.
    partly : bool, optional
        Whether a tile of which a part is missing is computed, grey in that part.

    Attributes
    ----------
    size : tuple of int
        Width and height of the level in its own pixels.
    tile_size : tuple of int
        Width and height of a tile in pixels.
    """

    def __init__(
        self,
        source: TileSource,
        finer: Level,
        downsample: tuple[float, float],
        partly: bool = False,
    ) -> None:
        self.size, self.tile_size = source.size, source.tile_size
        self._source, self._finer = source, finer.source
        self._read = assemble_partly if partly else assemble
        self._factor = np.divide(downsample, finer.downsample)

    def decode(self, row: int, column: int) -> Pixels:
        """Decode one tile, or compute it where it is damaged.

        Parameters
        ----------
        row, column : int
            Index of the tile.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)
            The tile, cropped to the level.

        Raises
        ------
        TileError
            If the finer level is damaged there as well.
        """
        try:
            return self._source.decode(row, column)
        except TileError as error:
            tile = self._made(row, column)
            _log.warning("%s; computed from the next finer level instead", error)
            return tile

    def _made(self, row: int, column: int) -> Pixels:
        low = np.array([column, row]) * self.tile_size
        high = np.minimum(low + self.tile_size, self.size)
        width, height = (high - low).tolist()
        made = np.empty((height, width, 3), np.uint8)
        # In parts, because a damaged file may declare a whole level to be one tile. No
        # part is smaller than a finer tile, which may be too large for the cache.
        finer = np.ceil(self._finer.tile_size / self._factor)
        step = np.maximum(finer, _PART).astype(int)
        for y in range(0, height, step[1]):
            for x in range(0, width, step[0]):
                corner = low + (x, y)
                part = self._averaged(corner, np.minimum(corner + step, high))
                made[y : y + part.shape[0], x : x + part.shape[1]] = part
        return made

    def _averaged(self, low: NDArray[Any], high: NDArray[Any]) -> Pixels:
        left, top = low * self._factor
        right, bottom = high * self._factor
        x, y = int(left), int(top)
        width, height = int(np.ceil(right)) - x, int(np.ceil(bottom)) - y
        pixels = self._read(self._finer, x, y, width, height)
        box = (left - x, top - y, right - x, bottom - y)
        return area_average(pixels, box, (int(high[0] - low[0]), int(high[1] - low[1])))
