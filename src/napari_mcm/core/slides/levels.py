"""Parts of a `Slide`: levels, the plan of a read, and the options of opening."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_mcm.core.errors import TileError
from napari_mcm.core.slides.resample import area_averages, scratch
from napari_mcm.core.slides.tiles import Pixels, TileSource, assemble

if TYPE_CHECKING:
    from napari_mcm.core.slides.slide import Slide


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of a slide.

    Attributes
    ----------
    source : TileSource
        Where its pixels come from.
    downsample : tuple of float
        Level-0 pixels per pixel of this level, along x and y; never rounded.
    stored : bool
        False for a level that is computed from a finer one on demand.
    """

    source: TileSource
    downsample: tuple[float, float]
    stored: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in this level's pixels.

        Returns
        -------
        tuple of int
        """
        return self.source.size


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How a resolution is read: from which level, and by how much it is shrunk.

    Attributes
    ----------
    level : int
        Index of the level.
    factor : tuple of float
        Pixels of the level per pixel of the result, along x and y.
    """

    level: int
    factor: tuple[float, float]

    @property
    def exact(self) -> bool:
        """Whether the level's pixels are used without resampling.

        Returns
        -------
        bool
        """
        return self.factor == (1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Opening:
    """The options with which a slide was opened.

    Attributes
    ----------
    mpp : float or None
        Microns per level-0 pixel that the user stated; they override the file's.
    backend : str or None
        The only backend allowed; None tries all.
    icc : bool
        Whether colours are converted to sRGB with the slide's own profile.
    """

    mpp: float | None = None
    backend: str | None = None
    icc: bool = False


def sampled_hash(file: Path) -> str:
    """Hash a file's length and samples of its content.

    It distinguishes files of the same name, and is fast for large ones.

    Parameters
    ----------
    file : Path
        Local file.

    Returns
    -------
    str
        16 hexadecimal digits.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    length = file.stat().st_size
    digest = blake2b(str(length).encode(), digest_size=8)
    with file.open("rb") as opened:
        for part in range(16):
            # Evenly spaced from the first to the last byte: both ends are hashed.
            opened.seek(part * max(length - 65536, 0) // 15)
            digest.update(opened.read(65536))
    return digest.hexdigest()


Corners = Sequence[tuple[float, float]]

LONGEST_ROW = 8
"""Regions read as one: more save little time, and all are in memory together."""


def rows_of(corners: Corners, pitch: float) -> Iterator[Corners]:
    """Split a sequence of corners into runs of neighbours in a row.

    Parameters
    ----------
    corners : sequence of tuple of float
        Upper left corners (x, y).
    pitch : float
        Width of a region, in the same pixels: neighbours are no further apart.

    Yields
    ------
    sequence of tuple of float
        At most :data:`LONGEST_ROW` corners that follow each other.
    """
    start = 0
    for i in range(1, len(corners) + 1):
        if i < len(corners) and i - start < LONGEST_ROW:
            (x, y), (left, top) = corners[i], corners[i - 1]
            # Corners are rounded to whole pixels: neighbours may be one apart.
            if y == top and 0 <= x - left <= pitch + 1:
                continue
        yield corners[start:i]
        start = i


def read_row(
    slide: Slide,
    corners: Corners,
    size: tuple[int, int],
    plan: ReadPlan,
    on_damage: Callable[[TileError], None] | None = None,
) -> list[Pixels]:
    """Read regions of one size and height; see :meth:`Slide.read_many`.

    Parameters
    ----------
    slide : Slide
        Open slide.
    corners : sequence of tuple of float
        Upper left corners (x, y) in level-0 pixels, all with the same y.
    size : tuple of int
        Width and height of each result in pixels.
    plan : ReadPlan
        The level to read, and by how much it is shrunk.
    on_damage : callable, optional
        Called with the error of each damaged tile, which then stays grey.

    Returns
    -------
    list of ndarray of uint8, shape (size[1], size[0], 3)
        They may share memory.

    Raises
    ------
    TileError
        If a tile cannot be decoded and `on_damage` is not given.
    """
    fx, fy = slide.levels[plan.level].downsample
    lefts, top = [float(x) / fx for x, _ in corners], float(corners[0][1]) / fy
    width, height = size[0] * plan.factor[0], size[1] * plan.factor[1]
    x, y = int(np.floor(min(lefts))), int(np.floor(top))
    # Floats that should be whole may be slightly larger: no extra column for those.
    columns = int(np.ceil(max(lefts) + width - x - 1e-6))
    rows = int(np.ceil(top + height - y - 1e-6))
    source = slide.levels[plan.level].source
    if plan.exact and all(value.is_integer() for value in (top, *lefts)):
        strip = assemble(source, x, y, columns, rows, on_damage)
        places = [round(left) - x for left in lefts]
        return [strip[:, place : place + size[0]] for place in places]
    strip = scratch.take("strip", (rows, columns, 3), np.uint8)
    assemble(source, x, y, columns, rows, on_damage, strip)
    spans = [(left - x, left - x + width) for left in lefts]
    return area_averages(strip, (top - y, top - y + height), spans, size)
