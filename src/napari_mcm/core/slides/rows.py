"""Reading parts of a slide that lie side by side, as one strip."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_mcm.core.errors import TileError
from napari_mcm.core.slides.resample import area_averages
from napari_mcm.core.slides.scratch import scratch
from napari_mcm.core.slides.tiles import Pixels, assemble

if TYPE_CHECKING:
    from napari_mcm.core.slides.parts import ReadPlan
    from napari_mcm.core.slides.slide import Slide

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
