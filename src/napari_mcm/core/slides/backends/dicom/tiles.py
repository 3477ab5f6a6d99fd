"""Frames of a DICOM slide as tiles."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from napari_mcm.core.errors import SlideError, TileError
from napari_mcm.core.slides.backends.optional import import_optional, one_line
from napari_mcm.core.slides.backends.tiff.frame_size import check_size
from napari_mcm.core.slides.tiles import Pixels

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG2000_START = b"\xff\x4f\xff\x51"
_JPEG, _JPEG2000 = 7, 33003


class FrameTiles:
    """One level of a DICOM slide; each frame is a tile.

    Parameters
    ----------
    path : Path
        The file or folder, for messages.
    level : wsidicom level
        Open.

    Attributes
    ----------
    size : tuple of int
        Width and height of the level in pixels.
    tile_size : tuple of int
        Width and height of a frame in pixels.

    Raises
    ------
    SlideError
        If it is truncated, or its pixels are not 8-bit grey or RGB.
    """

    def __init__(self, path: Path, level: Any) -> None:
        instance = level.default_instance
        self._image = instance.image_data
        self._plane = (instance.default_z, instance.default_path)
        self._point = import_optional("wsidicom.geometry", "dicom", path).Point
        # wsidicom fills its table of frames at the first read, without a lock; a level
        # that is split over several files has several tables.
        self._reading = threading.Lock()
        self._decoding = _guard_of(self._image.decoder, path)
        self._path = path
        self.size = (level.size.width, level.size.height)
        self.tile_size = (level.tile_size.width, level.tile_size.height)
        if problem := self._problem():
            raise SlideError(problem, path, "Copy or convert its files again")

    def decode(self, row: int, column: int) -> Pixels:
        """Decode one tile; see :class:`TileSource`.

        A tile that a sparse slide omits is background.

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
            If the frame is missing, truncated or damaged.
        """
        try:
            pixels = self._decode(row, column)
        # Readers and codecs raise errors of their own classes.
        except Exception as error:  # noqa: BLE001
            where = f"{self._path} (tile {column}, {row}, level {self.size[0]} px wide)"
            raise TileError(f"cannot be decoded ({one_line(error)})", where) from error
        x, y = column * self.tile_size[0], row * self.tile_size[1]
        pixels = pixels[: self.size[1] - y, : self.size[0] - x]
        if pixels.ndim == 2:
            return np.repeat(pixels[..., None], 3, axis=2)
        return np.ascontiguousarray(pixels[..., :3])

    def _decode(self, row: int, column: int) -> Pixels:
        point = self._point(column, row)
        if self._image.is_sparse(point, *self._plane):
            width, height = self.tile_size
            return np.full((height, width, 3), 255, np.uint8)
        frame = self._frame(point)
        _check(frame, (*self.tile_size, 3))
        with self._decoding:
            pixels = np.asarray(self._image.decoder.decode(frame))
        if pixels.shape[:2] != (self.tile_size[1], self.tile_size[0]):
            raise ValueError(f"it is {pixels.shape[1]} x {pixels.shape[0]} px")
        return pixels

    def _frame(self, point: Any) -> bytes:
        with self._reading:
            frame: bytes = self._image.get_encoded_tile(point, *self._plane)
        return frame

    def _problem(self) -> str | None:
        image = self._image
        if image.bits != 8 or image.samples_per_pixel not in (1, 3):
            return (
                f"holds {image.samples_per_pixel} channel(s) of {image.bits} bits, "
                "not 8-bit RGB"
            )
        try:
            self._frame(self._point(0, 0))
        except Exception as error:  # noqa: BLE001
            return f"is truncated or damaged ({one_line(error)})"
        return None


def _guard_of(decoder: Any, path: Path) -> AbstractContextManager[Any]:
    """Return a lock for a decoder that only one thread may use at a time.

    pydicom's, for frames without compression, puts each frame into one shared data set:
    another thread would get the pixels of the wrong tile. The JPEG decoders keep nothing.
    """
    codecs = import_optional("wsidicom.codec.decoder", "dicom", path)
    free = (codecs.PillowDecoder, codecs.ImageCodecsDecoder)
    return nullcontext() if isinstance(decoder, free) else threading.Lock()


def _check(frame: bytes, largest: tuple[int, int, int]) -> None:
    """Check that a frame is complete and has the size of a tile.

    JPEG decoders fill a missing end with grey, without an error.

    Raises
    ------
    ValueError
        If it is truncated, or a picture of another size.
    """
    if frame.startswith(_JPEG_START):
        if not frame.rstrip(b"\0").endswith(_JPEG_END):
            raise ValueError("its end is missing")
        check_size(frame, _JPEG, largest)
    elif frame.startswith(_JPEG2000_START):
        check_size(frame, _JPEG2000, largest)
