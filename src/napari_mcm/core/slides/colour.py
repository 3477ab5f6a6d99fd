"""Colour management with a slide's own ICC profile, where the user requests it."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image, ImageCms

from napari_mcm.core.errors import SlideError
from napari_mcm.core.slides.backend import SlideFile
from napari_mcm.core.slides.tiles import Pixels, TileSource


class ManagedTiles:
    """A level whose tiles are converted to sRGB.

    Parameters
    ----------
    source : TileSource
        The level as stored.
    convert : callable
        Converts pixels to sRGB.

    Attributes
    ----------
    size : tuple of int
        Width and height of the level in its own pixels.
    tile_size : tuple of int
        Width and height of a tile in pixels.
    """

    def __init__(self, source: TileSource, convert: Callable[[Pixels], Pixels]) -> None:
        self.size, self.tile_size = source.size, source.tile_size
        self._source, self._convert = source, convert

    def decode(self, row: int, column: int) -> Pixels:
        """Decode one tile and convert it to sRGB.

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
        return self._convert(self._source.decode(row, column))

    @classmethod
    def of(cls, file: SlideFile, where: str) -> SlideFile:
        """Return a copy of a slide file whose levels are in sRGB.

        Parameters
        ----------
        file : SlideFile
            What the backend read.
        where : str
            The slide's path, for messages.

        Returns
        -------
        SlideFile
            The same file with converted levels.

        Raises
        ------
        SlideError
            If it holds no usable profile.
        """
        try:
            profile = file.icc_profile()
        # Each backend's library raises errors of its own for damaged profiles.
        except Exception as error:  # noqa: BLE001
            failure = _unusable(error, where)
            raise failure from error
        convert = to_srgb(profile, where)
        levels = [cls(level, convert) for level in file.levels]
        return replace(file, levels=levels)


def to_srgb(profile: bytes | None, where: str) -> Callable[[Pixels], Pixels]:
    """Build the function that converts pixels from an ICC profile to sRGB.

    Parameters
    ----------
    profile : bytes or None
        ICC profile of RGB pixels.
    where : str
        The slide's path, for messages.

    Returns
    -------
    callable
        Maps pixels to pixels of the same shape; thread-safe.

    Raises
    ------
    SlideError
        If there is no profile, or it is damaged or not of RGB.
    """
    if profile is None:
        raise SlideError("holds no ICC profile to apply", where, "Leave --icc out")
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            "RGB",
            "RGB",
        )
    except (ImageCms.PyCMSError, OSError) as error:
        failure = _unusable(error, where)
        raise failure from error
    # One transform must not be used by two threads at a time.
    lock = threading.Lock()

    def convert(pixels: Pixels) -> Pixels:
        image = Image.fromarray(pixels)
        with lock:
            converted = ImageCms.applyTransform(image, transform)
        return np.asarray(converted)

    return convert


def profile_problem(read: Callable[[], bytes | None]) -> str:
    """Say what is wrong with an ICC profile; a slide is useful without it.

    Parameters
    ----------
    read : callable
        Reads the profile; returns None where there is none.

    Returns
    -------
    str
        Empty for a profile that can be used, or none.
    """
    try:
        profile = read()
        if profile is not None:
            to_srgb(profile, "")
    except SlideError as error:
        return error.what
    # Each backend's library raises errors of its own for damaged profiles.
    except Exception as error:  # noqa: BLE001
        return _unusable(error, "").what
    return ""


def _unusable(error: Exception, where: str) -> SlideError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return SlideError(
        f"its ICC profile cannot be used ({reason})", where, "Leave --icc out"
    )
