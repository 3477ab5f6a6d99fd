"""What a `Slide` is made of: levels, how one is read, how it was opened."""

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
        False for a level that is made from a finer one on demand.
    """

    source: TileSource
    downsample: tuple[float, float]
    stored: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in this level's pixels."""
        return self.source.size


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How a resolution is read: from which level, and shrunk by how much."""

    level: int
    factor: tuple[float, float]

    @property
    def exact(self) -> bool:
        """Whether the level's pixels serve as they are."""
        return self.factor == (1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Opening:
    """How a slide was opened.

    Attributes
    ----------
    mpp : float or None
        Microns per level-0 pixel that the user stated in the file's stead.
    backend : str or None
        The one backend that was allowed; None tries all.
    icc : bool
        Whether colours were turned into sRGB by the slide's own profile.
    """

    mpp: float | None = None
    backend: str | None = None
    icc: bool = False


def sampled_hash(file: Path) -> str:
    """Hash a file's length and samples of its content.

    It tells another file of the same name apart, and takes no time for a large one.
    """
    length = file.stat().st_size
    digest = blake2b(str(length).encode(), digest_size=8)
    with file.open("rb") as opened:
        for part in range(16):
            opened.seek(part * max(length - 65536, 0) // 15)
            digest.update(opened.read(65536))
    return digest.hexdigest()


Corners = Sequence[tuple[float, float]]

LONGEST_ROW = 8
"""Parts read as one: more save little, and are held in memory together."""


def rows_of(corners: Corners, pitch: float) -> Iterator[Corners]:
    """Cut a sequence of corners into runs of neighbours.

    Parameters
    ----------
    corners : sequence of tuple of float
        Upper left corners (x, y).
    pitch : float
        Width of a part, in the same pixels: neighbours are no further apart.
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
    """Read parts of one size and height; see :meth:`Slide.read_many`.

    Returns
    -------
    list of ndarray, shape (size[1], size[0], 3), uint8
        They may share memory.
    """
    fx, fy = slide.levels[plan.level].downsample
    lefts, top = [float(x) / fx for x, _ in corners], float(corners[0][1]) / fy
    width, height = size[0] * plan.factor[0], size[1] * plan.factor[1]
    x, y = int(np.floor(min(lefts))), int(np.floor(top))
    # Floats that should be whole may lie a hair above: no further column for those.
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
