"""Tiles and strips of TIFF pages, decoded by imagecodecs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tifffile

from napari_mcm.core.errors import SlideError, TileError
from napari_mcm.core.slides.backends.tiff.frame_size import READABLE, check_size
from napari_mcm.core.slides.tiles import Pixels, TileSource

Page = Any
"""A page or frame of tifffile, whose type annotations are incomplete."""


LARGEST_SIDE = 2**22

LARGEST_TILE = 2**29
"""Largest size in bytes of one decoded tile or strip."""

_ROW_BLOCK = 2**21

_RGB, _YCBCR, _PALETTE, _WHITE_IS_ZERO, _BLACK_IS_ZERO = 2, 6, 3, 0, 1


class PageReader:
    """Thread-safe reads from a file that several levels share.

    Parameters
    ----------
    tiff : TiffFile
        Open.
    name : str
        The file, for messages.

    Attributes
    ----------
    name : str
        As given.
    """

    def __init__(self, tiff: tifffile.TiffFile, name: str) -> None:
        self.name = name
        self._handle, self._lock = tiff.filehandle, threading.Lock()

    def read(self, offset: int, length: int) -> bytes:
        """Read a range of bytes; threads take turns, because they share one handle.

        Parameters
        ----------
        offset, length : int
            The range in bytes.

        Returns
        -------
        bytes
            Exactly `length` bytes.

        Raises
        ------
        ValueError
            If the file ends before the range does.
        """
        with self._lock:
            self._handle.seek(offset)
            data = self._handle.read(length)
        if len(data) != length:
            raise ValueError("the file ends before it")
        return bytes(data)


def page_tiles(
    reader: PageReader,
    planes: Sequence[Page],
    blank: bool = False,
) -> TileSource:
    """Return the tile source of one level.

    Parameters
    ----------
    reader : PageReader
        Of the file.
    planes : sequence of TiffPage
        One page of grey, RGB or RGBA, or three of one channel each.
    blank : bool, optional
        Whether a missing tile is white, as some vendors define it.

    Returns
    -------
    TileSource
        Decodes 8-bit RGB tiles.

    Raises
    ------
    SlideError
        If the pages hold anything but 8-bit colour, or have impossible sizes.
    """
    page = planes[0].keyframe
    _check(page, len(planes), reader.name)
    sources = [
        PlaneTiles(reader, plane, channel, blank)
        for plane in planes
        for channel in range(page.samplesperpixel if page.planarconfig == 2 else 1)
    ]
    if len(sources) == 1:
        raw = page.compression == 1 and not page.is_tiled and page.predictor == 1
        return RowBlocks(reader, planes[0]) if raw else sources[0]
    return ChannelTiles(sources[:3])


def _check(page: Page, planes: int, name: str) -> None:
    samples = page.samplesperpixel * planes
    if page.dtype != np.uint8 or page.bitspersample != 8 or samples not in (1, 3, 4):
        raise SlideError(
            f"holds {samples} channel(s) of {page.bitspersample} bits, not 8-bit RGB",
            name,
            "Convert it to an RGB pyramid",
        )
    if page.compression not in READABLE:
        raise SlideError(
            f"its pixels are compressed in a way that is not read "
            f"({tifffile.COMPRESSION(page.compression).name})",
            name,
        )
    if page.photometric not in (_RGB, _YCBCR, _PALETTE, _WHITE_IS_ZERO, _BLACK_IS_ZERO):
        raise SlideError(
            f"its colours are of a kind that is not read (photometric "
            f"interpretation {int(page.photometric)})",
            name,
        )
    width, height = page.imagewidth, page.imagelength
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE):
        raise SlideError(f"states an absurd size of {width} x {height} px", name)


def count_missing(levels: Sequence[Sequence[Page]], length: int) -> tuple[int, int]:
    """Count the tiles of all levels that a file of some length cannot hold.

    Parameters
    ----------
    levels : sequence of sequence of TiffPage
        Pages of each level.
    length : int
        Length of the file in bytes.

    Returns
    -------
    missing, tiles : int
        Tiles that end beyond the file, and all tiles that have a length.
    """
    missing = tiles = 0
    for page in (page for planes in levels for page in planes):
        # Python's integers: a damaged file may state offsets of more than 64 bits.
        places = zip(page.dataoffsets, page.databytecounts, strict=False)
        ends = [start + count for start, count in places if count]
        missing += sum(end > length for end in ends)
        tiles += len(ends)
    return missing, tiles


class PlaneTiles:
    """The tiles or strips of one page, or of one of its channels.

    Parameters
    ----------
    reader : PageReader
        Of the file.
    page : TiffPage or TiffFrame
        The page that lists the tiles.
    plane : int, optional
        Index of the channel, where a page stores channels separately.
    blank : bool, optional
        Whether a missing tile is white.

    Raises
    ------
    SlideError
        If tiles are too large, or the page lists too few.
    """

    def __init__(
        self,
        reader: PageReader,
        page: Page,
        plane: int = 0,
        blank: bool = False,
    ) -> None:
        key = page.keyframe
        self._reader, self._key, self._blank = reader, key, blank
        self.size = (key.imagewidth, key.imagelength)
        self.tile_size = (
            (key.tilewidth, key.tilelength)
            if key.is_tiled
            else (key.imagewidth, min(key.rowsperstrip, key.imagelength))
        )
        apart = key.planarconfig == 2
        self._channels = 1 if apart else key.samplesperpixel
        if not 0 < np.prod(self.tile_size) * self._channels <= LARGEST_TILE:
            raise SlideError(
                "is stored in pieces of {} x {} px, too large to read one".format(
                    *self.tile_size
                ),
                reader.name,
                "Convert it to a tiled pyramid",
            )
        self._columns = -(-self.size[0] // self.tile_size[0])
        rows = -(-self.size[1] // self.tile_size[1])
        self._first = plane * self._columns * rows
        self._offsets, self._lengths = page.dataoffsets, page.databytecounts
        needed = self._first + self._columns * rows
        if min(len(self._offsets), len(self._lengths)) < needed:
            raise SlideError(
                f"states a size of {self.size[0]} x {self.size[1]} px, but lists "
                f"{len(self._offsets)} of {needed} tiles",
                reader.name,
                "Copy the file again from its source",
            )
        self._tables, self._header = key.jpegtables, key.jpegheader
        # tifffile builds its decoder at first use, which is not thread-safe: do it here.
        self._decode_segment = key.decode
        self._finish = _colours(key)

    def decode(self, row: int, column: int) -> Pixels:
        """Decode one tile; see :class:`TileSource`.

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
            If the tile is missing or damaged.
        """
        x, y = column * self.tile_size[0], row * self.tile_size[1]
        width = min(self.tile_size[0], self.size[0] - x)
        height = min(self.tile_size[1], self.size[1] - y)
        # Codecs raise errors of their own classes, without a common base.
        try:
            tile = self._decoded(self._first + row * self._columns + column)
            if tile is None:
                return np.full((height, width, 3), 255, np.uint8)
            _check_covers(tile, height, width)
            return np.ascontiguousarray(self._finish(tile[:height, :width]))
        except TileError:
            raise
        except Exception as error:  # noqa: BLE001
            raise TileError(
                f"cannot be decoded ({error})", self._where(row, column)
            ) from error

    def _decoded(self, index: int) -> Pixels | None:
        """Decode a tile as stored; None for a missing tile that is white by definition.

        Raises
        ------
        ValueError
            If it is missing or too large.
        """
        length = self._lengths[index]
        if length == 0:
            if self._blank:
                return None
            raise ValueError("it is missing from the file")
        if length > 2 * LARGEST_TILE:
            raise ValueError(f"its stated length is {length} bytes")
        data = self._reader.read(self._offsets[index], length)
        if self._header is None:
            check_size(data, self._key.compression, self._largest)
        tile, _, _ = self._decode_segment(
            data, index, jpegtables=self._tables, jpegheader=self._header
        )
        pixels: Pixels = tile[0]
        return pixels

    @property
    def _largest(self) -> tuple[int, int, int]:
        # Codecs may round up to whole blocks of 16.
        width, height = (-(-side // 16) * 16 for side in self.tile_size)
        return width, height, max(self._channels, 3)

    def _where(self, row: int, column: int) -> str:
        name, width = self._reader.name, self.size[0]
        return f"{name} (tile {column}, {row} of a level {width} px wide)"


def _check_covers(tile: Pixels, height: int, width: int) -> None:
    if tile.shape[0] < height or tile.shape[1] < width:
        raise ValueError("it is smaller than its area of the level")


class RowBlocks:
    """A :class:`TileSource` of uncompressed strips, read in blocks of rows.

    One strip may be the whole image; a block of rows need not read all of it.

    Parameters
    ----------
    reader : PageReader
        Of the file.
    page : TiffPage or TiffFrame
        Uncompressed strips.
    """

    def __init__(self, reader: PageReader, page: Page) -> None:
        key = page.keyframe
        self._reader, self._samples = reader, key.samplesperpixel
        self._per_strip = key.rowsperstrip
        self._offsets, self._lengths = page.dataoffsets, page.databytecounts
        self.size = (key.imagewidth, key.imagelength)
        self._row_bytes = key.imagewidth * key.samplesperpixel
        rows = min(max(_ROW_BLOCK // self._row_bytes, 1), key.rowsperstrip)
        self.tile_size = (key.imagewidth, min(rows, key.imagelength))
        self._finish = _colours(key)

    def decode(self, row: int, column: int) -> Pixels:
        """Read one block of rows; see :class:`TileSource`.

        Parameters
        ----------
        row, column : int
            Index of the block; `column` is 0.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)
            The block, cropped to the level.

        Raises
        ------
        TileError
            If a strip is missing or too short.
        """
        first = row * self.tile_size[1]
        last = min(first + self.tile_size[1], self.size[1])
        try:
            data = b"".join(self._rows(first, last))
            shape = (last - first, self.size[0], self._samples)
            pixels = np.frombuffer(data, np.uint8).reshape(shape)
            return np.ascontiguousarray(self._finish(pixels))
        except (IndexError, ValueError, OSError) as error:
            where = f"{self._reader.name} (rows {first} to {last - 1})"
            raise TileError(f"cannot be read ({error})", where) from error

    def _rows(self, first: int, last: int) -> Sequence[bytes]:
        found, per_strip = [], self._per_strip
        while first < last:
            strip, inside = divmod(first, per_strip)
            count = min(last - first, per_strip - inside)
            start, length = inside * self._row_bytes, count * self._row_bytes
            if start + length > self._lengths[strip]:
                raise ValueError("the strip is shorter than its rows")
            offset = self._offsets[strip]
            found.append(self._reader.read(offset + start, length))
            first += count
        return found


class ChannelTiles:
    """A :class:`TileSource` whose red, green and blue are stored separately.

    Parameters
    ----------
    channels : sequence of TileSource
        Three grey levels with the same tiles.
    """

    def __init__(self, channels: Sequence[TileSource]) -> None:
        self.size, self.tile_size = channels[0].size, channels[0].tile_size
        self._channels = channels

    def decode(self, row: int, column: int) -> Pixels:
        """Decode one tile of each channel.

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
            If a channel's tile is missing or damaged.
        """
        planes = [channel.decode(row, column)[:, :, 0] for channel in self._channels]
        return np.stack(planes, axis=2)


def _colours(page: Page) -> Callable[[Pixels], Pixels]:
    """Choose how decoded samples are converted to RGB."""
    if page.photometric == _PALETTE and page.colormap is not None:
        colours = (page.colormap.T >> 8).astype(np.uint8)
        return lambda pixels: colours[pixels[:, :, 0]]
    if page.photometric == _WHITE_IS_ZERO:
        return lambda pixels: as_rgb(np.uint8(255) - pixels)
    return as_rgb


def as_rgb(pixels: Pixels) -> Pixels:
    """Convert grey, RGB or RGBA pixels to RGB.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width, channels)
        1, 3 or 4 channels.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        RGBA loses its alpha channel.
    """
    if pixels.shape[2] == 3:
        return pixels
    if pixels.shape[2] == 1:
        return pixels.repeat(3, axis=2)
    return pixels[:, :, :3]
