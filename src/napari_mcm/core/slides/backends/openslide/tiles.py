"""Regions that OpenSlide reads, as tiles, and a handle that survives OpenSlide's errors."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mcm.core.errors import SlideError, TileError
from napari_mcm.core.slides.backends.optional import one_line
from napari_mcm.core.slides.tiles import Pixels

if TYPE_CHECKING:
    from openslide import OpenSlide
    from PIL.Image import Image

_TILE = 512
_SMALLEST_TILE, _LARGEST_TILE = 128, 1024


class Handle:
    """An open OpenSlide handle that is reopened after an error.

    OpenSlide allows many threads at a time, but after its first error a handle fails on
    every further call from every thread.

    Parameters
    ----------
    path : Path
        The file.
    openslide : module
        The library.

    Attributes
    ----------
    path : Path
        As given.

    Raises
    ------
    SlideError
        If OpenSlide cannot open it.
    """

    def __init__(self, path: Path, openslide: Any) -> None:
        self.path = path
        self._openslide = openslide
        self._lock = threading.Lock()
        self._slide: OpenSlide | None = None
        self._closed = False
        self.get()

    def get(self) -> OpenSlide:
        """Return a handle without an error, reopening the file if necessary.

        Returns
        -------
        OpenSlide
            Shared by all threads.

        Raises
        ------
        SlideError
            If it is closed, or cannot be reopened.
        """
        with self._lock:
            if self._closed:
                raise SlideError("is closed", self.path)
            if self._slide is None:
                self._slide = self._opened()
            return self._slide

    def region(
        self, corner: tuple[int, int], level: int, size: tuple[int, int]
    ) -> Pixels:
        """Read a region of one level.

        Parameters
        ----------
        corner : tuple of int
            Upper left corner (x, y) in level-0 pixels.
        level : int
            Index of the level.
        size : tuple of int
            Width and height in pixels of the level.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)
            RGB on the slide's background colour.

        Raises
        ------
        TileError
            If the region is damaged.
        SlideError
            If the file is closed or missing.
        """
        slide = self.get()
        try:
            return self._rgb(slide.read_region(corner, level, size), slide)
        except self._openslide.OpenSlideError:
            self._drop(slide)
        # The damage may lie in another thread's region: a handle of our own shows whether
        # it is in this one.
        alone = self._opened()
        try:
            pixels = self._rgb(alone.read_region(corner, level, size), alone)
        except self._openslide.OpenSlideError as error:
            x, y = corner
            raise TileError(
                f"cannot be decoded ({one_line(error)})",
                f"{self.path} (level {level}, at level-0 pixel {x}, {y})",
            ) from error
        self._keep(alone)
        return pixels

    def image(self, name: str) -> Pixels:
        """Read a label, macro or thumbnail image.

        Parameters
        ----------
        name : str
            As OpenSlide names it.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)
            RGB pixels.

        Raises
        ------
        SlideError
            If it is missing or damaged.
        """
        alone = self._opened()
        try:
            return self._rgb(alone.associated_images[name], alone)
        except (KeyError, self._openslide.OpenSlideError) as error:
            raise SlideError(
                f"its {name} image cannot be decoded ({one_line(error)})", self.path
            ) from error

    def icc_profile(self) -> bytes | None:
        """Read the ICC colour profile.

        Returns
        -------
        bytes or None
            None where there is none. Pillow and LittleCMS raise errors of their own
            for damaged profiles.
        """
        profile = self.get().color_profile
        return None if profile is None else bytes(profile.tobytes())

    def close(self) -> None:
        """Close the handle, as soon as no thread uses it."""
        with self._lock:
            self._slide, self._closed = None, True

    def _drop(self, slide: OpenSlide) -> None:
        """Forget a handle that failed; threads that still use it keep it alive."""
        with self._lock:
            if self._slide is slide:
                self._slide = None

    def _keep(self, slide: OpenSlide) -> None:
        """Share a handle with all threads, unless there is one already."""
        with self._lock:
            if self._slide is None and not self._closed:
                self._slide = slide

    def _opened(self) -> OpenSlide:
        try:
            slide: OpenSlide = self._openslide.OpenSlide(self.path)
        except self._openslide.OpenSlideUnsupportedFormatError:
            raise SlideError("has no format that OpenSlide knows", self.path) from None
        except (self._openslide.OpenSlideError, OSError) as error:
            raise SlideError(
                f"cannot be opened by OpenSlide ({one_line(error)})",
                self.path,
                "It may be truncated, or files beside it may be missing",
            ) from error
        return slide

    def _rgb(self, image: Image, slide: OpenSlide) -> Pixels:
        """Blend a picture with the slide's background colour, where nothing was scanned."""
        if image.getchannel("A").getextrema()[0] == 255:
            return np.asarray(image.convert("RGB"))
        pixels = np.asarray(image)
        ground = _background(slide.properties)
        weight = pixels[..., 3:].astype(np.uint16)
        mixed = (pixels[..., :3] * weight + ground * (255 - weight) + 127) // 255
        return mixed.astype(np.uint8)


class RegionTiles:
    """One level of an OpenSlide slide, divided into tiles.

    Where a scanner states the rectangle that it scanned (MRXS: most of a level is
    empty), that rectangle is the level.

    Parameters
    ----------
    handle : Handle
        The slide.
    level : int
        Index of the level.

    Attributes
    ----------
    size : tuple of int
        Width and height of the level in its own pixels.
    tile_size : tuple of int
        Width and height of a tile in pixels.
    """

    def __init__(self, handle: Handle, level: int) -> None:
        slide = handle.get()
        self._handle, self._level = handle, level
        self._downsample = float(slide.level_downsamples[level])
        self._origin = (0, 0)
        self.size: tuple[int, int] = slide.level_dimensions[level]
        if bounds := bounds_of(slide.properties):
            x, y, width, height = bounds
            self._origin = (x, y)
            # Rounded down: there are no pixels beyond the bounds.
            self.size = (
                max(int(width / self._downsample), 1),
                max(int(height / self._downsample), 1),
            )
        self.tile_size = _tile_size(slide.properties, level)

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
            If it is damaged, or the file is closed or missing.
        """
        x, y = column * self.tile_size[0], row * self.tile_size[1]
        corner = (
            self._origin[0] + round(x * self._downsample),
            self._origin[1] + round(y * self._downsample),
        )
        width = min(self.tile_size[0], self.size[0] - x)
        height = min(self.tile_size[1], self.size[1] - y)
        try:
            return self._handle.region(corner, self._level, (width, height))
        except TileError:
            raise
        # The file is missing, or was closed.
        except SlideError as error:
            raise TileError(error.what, error.where, error.hint) from error


def bounds_of(stated: Mapping[str, str]) -> tuple[int, int, int, int] | None:
    """Return the rectangle that was scanned, in level-0 pixels.

    Parameters
    ----------
    stated : mapping of str to str
        OpenSlide's properties.

    Returns
    -------
    tuple of int or None
        x, y, width and height; None where it is not stated.
    """
    names = ("x", "y", "width", "height")
    try:
        x, y, width, height = (int(stated[f"openslide.bounds-{n}"]) for n in names)
    except (KeyError, ValueError):
        return None
    return (x, y, width, height) if width > 0 and height > 0 else None


def _tile_size(stated: Mapping[str, str], level: int) -> tuple[int, int]:
    """Return the file's own tile size where it is moderate."""
    key = f"openslide.level[{level}].tile-"
    try:
        width, height = int(stated[f"{key}width"]), int(stated[f"{key}height"])
    except (KeyError, ValueError):
        return _TILE, _TILE
    handy = all(_SMALLEST_TILE <= n <= _LARGEST_TILE for n in (width, height))
    return (width, height) if handy else (_TILE, _TILE)


def _background(stated: Mapping[str, str]) -> Pixels:
    try:
        colour = bytes.fromhex(stated["openslide.background-color"])
    except (KeyError, ValueError):
        colour = b""
    return np.frombuffer(colour if len(colour) == 3 else b"\xff" * 3, np.uint8)
