"""A level of a slide as a lazy dask array, for viewers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from napari_mcm.core.errors import TileError
from napari_mcm.core.slides.tiles import Pixels

if TYPE_CHECKING:
    from napari_mcm.core.slides.slide import Slide

_log = logging.getLogger(__name__)


class _LevelArray:
    """What dask needs of a level: shape, dtype and slicing."""

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, slide: Slide, level: int) -> None:
        self._slide, self._level = slide, level
        self._reported: set[object] = set()
        width, height = slide.levels[level].size
        self.shape = (height, width, 3)

    def __getitem__(self, key: Any) -> Pixels:
        rows, columns, channels = (
            part.indices(length) for part, length in zip(key, self.shape, strict=True)
        )
        x, y = columns[0], rows[0]
        width, height = max(columns[1] - x, 0), max(rows[1] - y, 0)
        # Each damaged tile is logged once, not at every redraw.
        pixels = self._slide.read_level(
            self._level, x, y, width, height, on_damage=self._report
        )
        return pixels[:: rows[2], :: columns[2], slice(*channels)]

    def _report(self, error: TileError) -> None:
        if error.where not in self._reported:
            self._reported.add(error.where)
            _log.warning("%s", error)


def level_as_dask(slide: Slide, level: int, chunk: int) -> da.Array:
    """Wrap a level of a slide as a dask array; see :meth:`Slide.as_dask`.

    Parameters
    ----------
    slide : Slide
        Open slide.
    level : int
        Index of the level; 0 is the finest.
    chunk : int
        Side of a chunk in the level's pixels.

    Returns
    -------
    dask.array.Array of uint8, shape (height, width, 3)
        Damaged tiles are grey.
    """
    lazy: da.Array = da.from_array(
        _LevelArray(slide, level),
        chunks=(chunk, chunk, 3),
        name=f"slide-{slide.fingerprint}-{level}-{chunk}-{id(slide)}",
        meta=np.empty((0, 0, 0), np.uint8),
        asarray=False,
        fancy=False,
        lock=False,
    )
    return lazy
