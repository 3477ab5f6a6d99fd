"""Colours by a slide's own ICC profile, where that is asked for."""

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
    """A level whose tiles are turned into sRGB.

    Parameters
    ----------
    source : TileSource
        As stored.
    convert : callable
        Turns pixels into sRGB.
    """

    def __init__(self, source: TileSource, convert: Callable[[Pixels], Pixels]) -> None:
        self.size, self.tile_size = source.size, source.tile_size
        self._source, self._convert = source, convert

    def decode(self, row: int, column: int) -> Pixels:
        """Decode one tile and convert it."""
        return self._convert(self._source.decode(row, column))

    @classmethod
    def of(cls, file: SlideFile, where: str) -> SlideFile:
        """Give a slide file whose levels are in sRGB.

        Raises
        ------
        SlideError
            If it holds no usable profile.
        """
        convert = to_srgb(file.icc_profile(), where)
        levels = [cls(level, convert) for level in file.levels]
        return replace(file, levels=levels)


def to_srgb(profile: bytes | None, where: str) -> Callable[[Pixels], Pixels]:
    """Make the function that turns pixels of a profile into sRGB.

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
        raise SlideError(
            f"its ICC profile is of no use ({error})", where, "Leave --icc out"
        ) from error
    # One transform must not be used by two threads at a time.
    lock = threading.Lock()

    def convert(pixels: Pixels) -> Pixels:
        image = Image.fromarray(pixels)
        with lock:
            converted = ImageCms.applyTransform(image, transform)
        return np.asarray(converted)

    return convert
