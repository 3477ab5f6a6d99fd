"""Tiles: the pieces in which a level is stored, decoded once and cached."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import TileError

Pixels = NDArray[np.uint8]
"""RGB pixels, shape (height, width, 3)."""

CACHE_BYTES = 256 * 2**20
DAMAGED = 128
"""Grey level of pixels that cannot be decoded, where a picture is needed anyway."""


class TileSource(Protocol):
    """Where one level's pixels come from.

    Attributes
    ----------
    size : tuple of int
        Width and height of the level in its own pixels.
    tile_size : tuple of int
        Width and height of a tile; those at the right and lower edge may be smaller.
    """

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the level in pixels.

        Returns
        -------
        tuple of int
        """

    @property
    def tile_size(self) -> tuple[int, int]:
        """Width and height of a tile in pixels.

        Returns
        -------
        tuple of int
        """

    def decode(self, row: int, column: int) -> Pixels:
        """Decode one tile, cropped to the level.

        Parameters
        ----------
        row, column : int
            Index of the tile, from the upper left.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)
            RGB pixels of the tile.

        Raises
        ------
        TileError
            If the tile is missing or damaged.
        """


class TileCache:
    """A thread-safe cache of the tiles used last, limited in bytes.

    Parameters
    ----------
    capacity : int, optional
        Bytes of decoded pixels to keep.

    Attributes
    ----------
    capacity : int
        As given.
    """

    def __init__(self, capacity: int = CACHE_BYTES) -> None:
        self.capacity = capacity
        self._tiles: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable, decode: Callable[[], Pixels]) -> Pixels:
        """Return the tile under `key`, decoding it if it is not cached.

        Two threads may decode the same tile at the same time: that is rare, and cheaper than
        making every thread wait for one decoder.

        Parameters
        ----------
        key : Hashable
            Identifies the tile among those of all levels.
        decode : callable
            Decodes it; what it raises is passed on.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)
            The tile; do not change it.
        """
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
                return tile
        tile = decode()
        with self._lock:
            # Another thread may have decoded it meanwhile: its bytes must not count twice.
            if key not in self._tiles:
                self._tiles[key] = tile
                self._bytes += tile.nbytes
            # A single tile stays, even one larger than the cache: its reader needs it next.
            while self._bytes > self.capacity and len(self._tiles) > 1:
                self._bytes -= self._tiles.popitem(last=False)[1].nbytes
        return tile

    def clear(self) -> None:
        """Remove all tiles."""
        with self._lock:
            self._tiles.clear()
            self._bytes = 0


class CachedTiles:
    """A level whose decoded tiles are kept in a shared cache.

    Parameters
    ----------
    source : TileSource
        Decodes the tiles.
    cache : TileCache
        Shared by all levels of a slide.
    name : hashable
        Identifies this level in the cache.

    Attributes
    ----------
    size : tuple of int
        Width and height of the level in its own pixels.
    tile_size : tuple of int
        Width and height of a tile in pixels.
    """

    def __init__(self, source: TileSource, cache: TileCache, name: Hashable) -> None:
        self.size, self.tile_size = source.size, source.tile_size
        self._source, self._cache, self._name = source, cache, name

    def decode(self, row: int, column: int) -> Pixels:
        """Return one tile, from the cache where it is there.

        Parameters
        ----------
        row, column : int
            Index of the tile.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)
            The tile; do not change it.

        Raises
        ------
        TileError
            If the tile is missing or damaged.
        """
        return self._cache.get(
            (self._name, row, column), lambda: self._source.decode(row, column)
        )


class HalvedTiles:
    """A level computed from the next finer one, at half its resolution.

    Each pixel is the mean of 2×2 pixels of the finer level. Where finer tiles are cached,
    building a whole pyramid decodes every stored tile once.

    Parameters
    ----------
    finer : TileSource
        The finer level. An odd last row or column is dropped, which shifts nothing.
    partly : bool, optional
        Whether a tile of which a part is missing is computed, grey in that part.

    Attributes
    ----------
    size : tuple of int
        Width and height of the level in its own pixels.
    tile_size : tuple of int
        Width and height of a tile in pixels.
    """

    tile_size = (512, 512)

    def __init__(self, finer: TileSource, partly: bool = False) -> None:
        self.size = (max(finer.size[0] // 2, 1), max(finer.size[1] // 2, 1))
        self._finer, self._partly = finer, partly

    def decode(self, row: int, column: int) -> Pixels:
        """Compute one tile.

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
            If a finer tile under it is missing or damaged; all of them, if it may be
            computed partly.
        """
        x, y = column * self.tile_size[0], row * self.tile_size[1]
        width = min(self.tile_size[0], self.size[0] - x)
        height = min(self.tile_size[1], self.size[1] - y)
        read = assemble_partly if self._partly else assemble
        fine = read(self._finer, 2 * x, 2 * y, 2 * width, 2 * height)
        # Rows, then columns: a sum over reshaped axes takes thirteen times as long.
        rows: NDArray[np.uint16] = np.add(fine[::2], fine[1::2], dtype=np.uint16)
        total = rows[:, ::2] + rows[:, 1::2]
        # Half of 4, so that the shift rounds instead of cutting off.
        total += 2
        mean: Pixels = (total >> 2).astype(np.uint8)
        return mean


def assemble(
    source: TileSource,
    x: int,
    y: int,
    width: int,
    height: int,
    on_damage: Callable[[TileError], None] | None = None,
    out: Pixels | None = None,
) -> Pixels:
    """Assemble a rectangle from the tiles under it.

    Parameters
    ----------
    source : TileSource
        Where the tiles come from.
    x, y : int
        Upper left corner in the source's pixels. The rectangle may reach beyond the
        image.
    width, height : int
        Size of the rectangle in the source's pixels.
    on_damage : callable, optional
        Called with the error of each damaged tile, which then stays grey
        (:data:`DAMAGED`).
    out : ndarray of uint8, shape (height, width, 3), optional
        Where to write the result.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        RGB pixels, white outside the image.

    Raises
    ------
    TileError
        If a tile cannot be decoded and `on_damage` is not given.
    """
    tile_width, tile_height = source.tile_size
    right, bottom = min(x + width, source.size[0]), min(y + height, source.size[1])
    inside = x >= 0 and y >= 0 and right == x + width and bottom == y + height
    if out is None:
        out = np.empty((height, width, 3), np.uint8)
    if not inside:
        # Beyond the slide is white, like glass.
        out.fill(255)
    if right <= x or bottom <= y:
        return out
    for row in range(max(y, 0) // tile_height, -(-bottom // tile_height)):
        for column in range(max(x, 0) // tile_width, -(-right // tile_width)):
            left, top = column * tile_width, row * tile_height
            a, b = max(left, x), min(left + tile_width, right)
            c, d = max(top, y), min(top + tile_height, bottom)
            try:
                tile = source.decode(row, column)
            except TileError as error:
                if on_damage is None:
                    raise
                on_damage(error)
                out[c - y : d - y, a - x : b - x] = DAMAGED
                continue
            out[c - y : d - y, a - x : b - x] = tile[
                c - top : d - top, a - left : b - left
            ]
    return out


def assemble_partly(
    source: TileSource, x: int, y: int, width: int, height: int
) -> Pixels:
    """Assemble a rectangle of which a part may be missing.

    Parameters
    ----------
    source : TileSource
        The tiles.
    x, y : int
        Upper left corner in pixels of the level.
    width, height : int
        Size in pixels of the level.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        RGB pixels; what is missing is grey (:data:`DAMAGED`).

    Raises
    ------
    TileError
        If nothing of it can be decoded.
    """
    errors: list[TileError] = []
    pixels = assemble(source, x, y, width, height, errors.append)
    if errors and (pixels == DAMAGED).all():
        raise errors[0]
    return pixels
