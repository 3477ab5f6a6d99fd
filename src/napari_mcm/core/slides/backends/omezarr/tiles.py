"""Tiles of an OME-Zarr image: each chunk is one tile."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from napari_mcm.core.errors import SlideError, TileError
from napari_mcm.core.slides.backends.omezarr.store import StoreLocation, codecs_of
from napari_mcm.core.slides.backends.optional import one_line
from napari_mcm.core.slides.tiles import Pixels, TileSource

_LARGEST_CHUNK = 256 * 2**20
_LONGEST_SIDE = 2**24
_SAMPLED_TILES = 16
_PAUSES = (0.5, 2.0)
_SHOWN = ("y", "x", "c")
_KNOWN = ("t", "z", *_SHOWN)


class ZarrTiles:
    """One array of an image, as a level of a slide.

    Parameters
    ----------
    location : StoreLocation
        The open file.
    path : str
        Of the array in the file.
    axes : tuple of str
        Names of its dimensions.

    Attributes
    ----------
    shape : dict of str to int
        Length of each axis.
    size : tuple of int
        Width and height in pixels.
    tile_size : tuple of int
        Width and height of a chunk in pixels.

    Raises
    ------
    SlideError
        If it is damaged, or its pixels are not 8-bit grey or RGB.
    """

    def __init__(
        self, location: StoreLocation, path: str, axes: tuple[str, ...]
    ) -> None:
        array = location.array(path)
        self._location, self._path, self._array = location, path, array
        # Version 0.1 assumes five axes; an array with fewer has the last of them.
        self._axes = axes[-array.ndim :] if array.ndim < len(axes) else axes
        if problem := self._problem():
            raise SlideError(
                f"array {path} {problem}",
                location.where,
                "Convert it to an RGB pyramid",
            )
        self.shape = dict(zip(self._axes, array.shape, strict=True))
        chunk = dict(zip(self._axes, array.chunks, strict=True))
        self.size = (self.shape["x"], self.shape["y"])
        self.tile_size = (chunk["x"], chunk["y"])

    @property
    def compression(self) -> str:
        """Names of the codecs of its chunks, separated by commas.

        Returns
        -------
        str
            "none" where they are not compressed.
        """
        return ", ".join(codecs_of(self._array)) or "none"

    def decode(self, row: int, column: int) -> Pixels:
        """Decode one tile; see :class:`TileSource`.

        A missing chunk is background, by the rules of zarr.

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
            If it is damaged, or a server does not answer after retries.
        """
        (width, height), (x, y) = self.tile_size, (column, row)
        chosen = {
            "x": slice(x * width, min((x + 1) * width, self.size[0])),
            "y": slice(y * height, min((y + 1) * height, self.size[1])),
            "c": slice(0, 3),
            "z": self.shape.get("z", 1) // 2,
        }
        part = tuple(chosen.get(axis, 0) for axis in self._axes)
        left = [axis for axis in self._axes if axis in _SHOWN]
        pixels = self._read(part, f"tile {column}, {row} of array {self._path}")
        if "c" not in left:
            pixels, left = pixels[..., None], [*left, "c"]
        pixels = pixels.transpose([left.index(axis) for axis in _SHOWN])
        if pixels.shape[2] == 1:
            return np.repeat(pixels, 3, axis=2)
        if pixels.flags.c_contiguous:
            return pixels
        # Stacking planes is five times as fast as np.ascontiguousarray.
        return np.stack([pixels[..., channel] for channel in range(3)], axis=-1)

    def _read(self, part: tuple[Any, ...], which: str) -> Pixels:
        pauses = list(_PAUSES) if self._location.remote else []
        while True:
            try:
                return np.asarray(self._array[part])
            # Codecs, stores and servers raise errors of their own classes.
            except Exception as error:  # noqa: BLE001
                if not pauses:
                    raise TileError(
                        f"cannot be decoded ({one_line(error)})",
                        f"{self._location.where} ({which})",
                    ) from error
                time.sleep(pauses.pop(0))

    def _problem(self) -> str | None:
        array, axes = self._array, self._axes
        if len(axes) != array.ndim:
            return f"has {array.ndim} dimensions, but {len(axes)} axes"
        shape = dict(zip(axes, array.shape, strict=True))
        if array.dtype != np.uint8:
            return f"holds {array.dtype}, not 8-bit RGB"
        if not all(0 < shape[axis] <= _LONGEST_SIDE for axis in "xy"):
            return f"has a stated size of {shape['x']} x {shape['y']} px"
        if shape.get("c", 1) not in (1, 3, 4):
            return f"holds {shape['c']} channels, not RGB"
        if min(*array.shape, *array.chunks) < 1:
            return "is empty"
        if odd := [a for a in axes if a not in _KNOWN and shape[a] > 1]:
            return f"has an axis {odd[0]!r} of {shape[odd[0]]}"
        if np.prod(array.chunks, dtype=float) > _LARGEST_CHUNK:
            chunk = " x ".join(map(str, array.chunks))
            return f"is stored in chunks of {chunk}, too large to read one at a time"
        return None


def sampled_pixels(level: TileSource) -> bytes:
    """Return the pixels of some tiles, which identify a slide.

    A damaged tile counts as empty, so that a damaged slide has an identity too.

    Parameters
    ----------
    level : TileSource
        Any level of the slide.

    Returns
    -------
    bytes
        Concatenated pixels of up to 16 tiles.
    """
    columns, rows = (
        -(-size // tile) for size, tile in zip(level.size, level.tile_size, strict=True)
    )
    count = rows * columns
    chosen = np.unique(np.linspace(0, count - 1, min(count, _SAMPLED_TILES)).round())
    parts = []
    for index in chosen.astype(int):
        try:
            parts.append(level.decode(*divmod(int(index), columns)).tobytes())
        except TileError:
            parts.append(b"damaged")
    return b"".join(parts)
