"""A pyramid level of a slide as a lazy array from which napari reads the current view.

Dask arrays would work, too, but Dask plans each view over a graph of all chunks of the
level, which takes longer than decoding the visible tiles. Here several threads decode
tiles, first the visible ones and then those around the view, ahead of the next pan. All
tiles go through the slide's cache.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import TileError
from napari_mcm.core.slides import Slide
from napari_mcm.core.slides.tiles import Pixels

_log = logging.getLogger(__name__)

CHUNK = 256
"""Side in pixels of the chunks that views are extended to: short pans read nothing."""
MARGIN = 512
"""Width in pixels of the border around the view whose tiles are decoded ahead."""
MOST_AHEAD = 256
"""Largest number of tiles to decode ahead."""
MOST_AT_OPENING = 64
"""Largest number of tiles of a level that is decoded when its slide is opened."""
PAUSE_S = 0.04
"""Time for drawing a view, in seconds, before tiles around it are decoded.

Both take turns in Python, so that decoding at once would hold up the drawing.
"""

Tile = tuple[int, int]
"""Row and column of a tile."""


class LevelArray:
    """One level of an open slide, with the part of the array interface that napari uses.

    Indexing with slices and integers returns NumPy arrays of uint8. A damaged tile is
    grey, with a warning in the log.

    Parameters
    ----------
    slide : Slide
        An open slide.
    level : int
        Index of the level.

    Attributes
    ----------
    shape : tuple of int
        Height, width and 3 channels.
    chunks : tuple of int
        Shape of a chunk, which napari extends views to.
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, slide: Slide, level: int) -> None:
        self._slide, self._level = slide, level
        width, height = slide.levels[level].size
        self.shape = (height, width, 3)
        self.chunks = (CHUNK, CHUNK, 3)
        self._reported: set[object] = set()
        self._prefetches: list[Future[None]] = []
        self._moved = Event()

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def __getitem__(self, key: Any) -> Pixels:
        parts, drop = index_parts(key, self.shape)
        spans = [range(n)[part] for part, n in zip(parts, self.shape, strict=True)]
        (top, bottom), (left, right) = _ends(spans[0]), _ends(spans[1])
        self._moved.set()
        for prefetch in self._prefetches:
            prefetch.cancel()
        tiles = self._tiles(left, top, right, bottom)
        if len(tiles) > 1:
            list(_threads().map(self._decode, tiles))
        pixels = self._slide.read_level(
            self._level, left, top, right - left, bottom - top, on_damage=self._warn
        )
        self._prefetch(left, top, right, bottom, set(tiles))
        steps = slice(None, None, spans[0].step), slice(None, None, spans[1].step)
        return pixels[(*steps, parts[2])][drop]

    def decode_ahead(self) -> None:
        """Start to decode the whole level, if it is small: it will be seen first."""
        tiles = self._tiles(0, 0, self.shape[1], self.shape[0])
        if len(tiles) <= MOST_AT_OPENING:
            for tile in tiles:
                _threads().submit(self._decode, tile)

    def _prefetch(
        self, left: int, top: int, right: int, bottom: int, seen: set[Tile]
    ) -> None:
        """Decode the tiles around a view, which the next pan may need, a little later."""
        around = self._tiles(
            left - MARGIN, top - MARGIN, right + MARGIN, bottom + MARGIN
        )
        fresh = [tile for tile in around if tile not in seen][:MOST_AHEAD]
        moved = self._moved = Event()

        def submit() -> None:
            if not moved.wait(PAUSE_S):
                self._prefetches = [
                    _threads().submit(self._decode, tile) for tile in fresh
                ]

        _pauses().submit(submit)

    def _tiles(self, left: int, top: int, right: int, bottom: int) -> list[Tile]:
        """List the tiles under a rectangle, which may reach beyond the level."""
        height, width = self.shape[:2]
        across, down = self._slide.levels[self._level].source.tile_size
        rows = range(max(top, 0) // down, -(-min(bottom, height) // down))
        columns = range(max(left, 0) // across, -(-min(right, width) // across))
        return [(row, column) for row in rows for column in columns]

    def _decode(self, tile: Tile) -> None:
        # Damage is reported by the read that follows.
        with suppress(TileError):
            self._slide.levels[self._level].source.decode(*tile)

    def _warn(self, error: TileError) -> None:
        # Once per tile: each pan over it would log it again.
        if error.where not in self._reported:
            self._reported.add(error.where)
            _log.warning("%s", error)

    def __reduce__(self) -> tuple[Any, ...]:
        return LevelArray, (self._slide, self._level)


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    """Return the pool of threads that decode the tiles of all slides."""
    return ThreadPoolExecutor(
        min(os.cpu_count() or 1, 8), thread_name_prefix="napari-mcm-tiles"
    )


@lru_cache(maxsize=1)
def _pauses() -> ThreadPoolExecutor:
    """Return the thread that waits until a view is drawn."""
    return ThreadPoolExecutor(1, thread_name_prefix="napari-mcm-pause")


def index_parts(
    key: Any, shape: tuple[int, ...]
) -> tuple[list[slice], tuple[Any, ...]]:
    """Turn an index into one slice per axis, and an index that drops integer axes.

    Parameters
    ----------
    key : Any
        An index as NumPy's arrays take it: slices, integers and an ellipsis.
    shape : tuple of int
        Shape of the array.
    """
    index = list(key if isinstance(key, tuple) else (key,))
    if Ellipsis in index:
        at = index.index(Ellipsis)
        index[at : at + 1] = [slice(None)] * (len(shape) - len(index) + 1)
    index += [slice(None)] * (len(shape) - len(index))
    drop = tuple(slice(None) if isinstance(part, slice) else 0 for part in index)
    return _slices(index, shape), drop


def _slices(index: list[Any], shape: tuple[int, ...]) -> list[slice]:
    slices = []
    for part, length in zip(index, shape, strict=True):
        if isinstance(part, slice):
            slices.append(part)
            continue
        # range resolves negative integers and raises IndexError beyond the end.
        position = range(length)[part]
        slices.append(slice(position, position + 1))
    return slices


def _ends(span: range) -> tuple[int, int]:
    """Return the smallest number of a range, and its largest one plus 1."""
    if not span:
        return 0, 0
    return min(span[0], span[-1]), max(span[0], span[-1]) + 1
