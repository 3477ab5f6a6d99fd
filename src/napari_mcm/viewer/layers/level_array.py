"""A level of a slide as an array that napari cuts its view out of.

Dask would do the same, but plans each view over a graph of all the level's chunks,
which takes longer than to decode the tiles in sight. Here tiles are decoded in several
threads, and those around the view ahead of the next pan; all go through the slide's own
cache.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import TileError
from napari_mcm.core.slides import Slide
from napari_mcm.core.slides.tiles import Pixels

_log = logging.getLogger(__name__)

CHUNK = 256
"""Views are widened to multiples of this many pixels: shorter pans read nothing."""
MARGIN = 512
"""So far around the view tiles are decoded ahead."""
MOST_AHEAD = 256
"""Tiles that are decoded ahead at most."""

Tile = tuple[int, int]


class LevelArray:
    """One level of an open slide: the little of an array that napari asks for.

    Slices and whole numbers index it, and give NumPy arrays. A tile that is damaged
    shows grey, with a warning in the log.

    Parameters
    ----------
    slide : Slide
        Open.
    level : int
        Index of the level.
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, slide: Slide, level: int) -> None:
        self._slide, self._level = slide, level
        width, height = slide.levels[level].size
        self.shape = (height, width, 3)
        self.chunks = (CHUNK, CHUNK, 3)
        self._told: set[object] = set()
        self._ahead: list[Future[None]] = []

    @property
    def size(self) -> int:
        """How many values it has."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def __getitem__(self, key: Any) -> Pixels:
        parts, drop = _parts(key, self.shape)
        spans = [range(n)[part] for part, n in zip(parts, self.shape, strict=True)]
        (top, bottom), (left, right) = _ends(spans[0]), _ends(spans[1])
        for future in self._ahead:
            future.cancel()
        tiles = self._tiles(left, top, right, bottom)
        if len(tiles) > 1:
            list(_threads().map(self._decode, tiles))
        pixels = self._slide.read_level(
            self._level, left, top, right - left, bottom - top, on_damage=self._tell
        )
        self._look_ahead(left, top, right, bottom, set(tiles))
        steps = slice(None, None, spans[0].step), slice(None, None, spans[1].step)
        return pixels[(*steps, parts[2])][drop]

    def _look_ahead(
        self, left: int, top: int, right: int, bottom: int, seen: set[Tile]
    ) -> None:
        """Decode what lies around a view, in case it is panned."""
        around = self._tiles(
            left - MARGIN, top - MARGIN, right + MARGIN, bottom + MARGIN
        )
        fresh = [tile for tile in around if tile not in seen][:MOST_AHEAD]
        self._ahead = [_threads().submit(self._decode, tile) for tile in fresh]

    def _tiles(self, left: int, top: int, right: int, bottom: int) -> list[Tile]:
        """List the tiles under a rectangle, which may reach beyond the level."""
        height, width = self.shape[:2]
        across, down = self._slide.levels[self._level].source.tile_size
        rows = range(max(top, 0) // down, -(-min(bottom, height) // down))
        columns = range(max(left, 0) // across, -(-min(right, width) // across))
        return [(row, column) for row in rows for column in columns]

    def _decode(self, tile: Tile) -> None:
        # The read that follows tells of what is damaged.
        with suppress(TileError):
            self._slide.levels[self._level].source.decode(*tile)

    def _tell(self, error: TileError) -> None:
        # A log that hears of each broken tile once a pan would hold little else.
        if error.where not in self._told:
            self._told.add(error.where)
            _log.warning("%s", error)

    def __reduce__(self) -> tuple[Any, ...]:
        return LevelArray, (self._slide, self._level)


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    """Return the threads that decode tiles for all views."""
    return ThreadPoolExecutor(
        min(os.cpu_count() or 1, 8), thread_name_prefix="napari-mcm-tiles"
    )


def _parts(key: Any, shape: tuple[int, ...]) -> tuple[list[slice], tuple[Any, ...]]:
    """Turn an index into a slice an axis, and what then takes single places out."""
    asked = list(key if isinstance(key, tuple) else (key,))
    if Ellipsis in asked:
        at = asked.index(Ellipsis)
        asked[at : at + 1] = [slice(None)] * (len(shape) - len(asked) + 1)
    asked += [slice(None)] * (len(shape) - len(asked))
    drop = tuple(slice(None) if isinstance(part, slice) else 0 for part in asked)
    return _slices(asked, shape), drop


def _slices(asked: list[Any], shape: tuple[int, ...]) -> list[slice]:
    slices = []
    for part, length in zip(asked, shape, strict=True):
        if isinstance(part, slice):
            slices.append(part)
            continue
        place = range(length)[part]
        slices.append(slice(place, place + 1))
    return slices


def _ends(span: range) -> tuple[int, int]:
    """Return the least and one beyond the greatest of a span."""
    if not span:
        return 0, 0
    return min(span[0], span[-1]), max(span[0], span[-1]) + 1
