"""Slides of the TIFF family, read through tifffile and imagecodecs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from napari_mcm.core.errors import SlideError, TileError
from napari_mcm.core.slides.resolution import stated_mpp
from napari_mcm.core.slides.slide import Level, Slide
from napari_mcm.core.slides.tiles import (
    CachedTiles,
    HalvedTiles,
    Pixels,
    TileCache,
    TileSource,
)

_SMALLEST_LEVEL = 1024
_ASSOCIATED = {"thumbnail", "label", "macro", "overview"}


def open_tiff(path: Path, mpp: float | None) -> Slide:
    """Open a slide of the TIFF family; see :func:`napari_mcm.core.slides.open_slide`."""
    # Damaged files make tifffile and struct fail in many ways; all mean the same here.
    try:
        tiff = tifffile.TiffFile(path)
    except Exception as error:  # noqa: BLE001
        raise SlideError(
            f"is not a readable TIFF ({error})",
            path,
            "It may be truncated, or of a format that this version does not read",
        ) from error
    try:
        return _slide_from(path, tiff, mpp)
    except SlideError:
        tiff.close()
        raise
    except Exception as error:  # noqa: BLE001
        tiff.close()
        raise SlideError(
            f"its directory is damaged ({type(error).__name__}: {error})",
            path,
            "Copy the file again from its source",
        ) from error


def _slide_from(path: Path, tiff: tifffile.TiffFile, mpp: float | None) -> Slide:
    pages = [level.keyframe for level in tiff.series[0].levels]
    cache, lock = TileCache(), threading.Lock()

    def close() -> None:
        cache.clear()
        tiff.close()

    names = [series.name.lower() for series in tiff.series[1:]]
    return Slide(
        path=path,
        backend="tifffile",
        levels=_levels([TiffTiles(path, tiff, page, lock) for page in pages], cache),
        stated_mpp=(mpp, mpp) if mpp else stated_mpp(tiff, pages[0]),
        properties=_properties(tiff, pages[0]),
        associated=tuple(name for name in names if name in _ASSOCIATED),
        mpp_override=mpp,
        on_close=close,
    )


def _levels(stored: Sequence[TileSource], cache: TileCache) -> tuple[Level, ...]:
    """Line up the stored levels, and make coarser ones down to a small picture."""
    width, height = stored[0].size
    levels = []
    for index, tiles in enumerate(stored):
        downsample = (width / tiles.size[0], height / tiles.size[1])
        levels.append(Level(CachedTiles(tiles, cache, index), downsample))
    while max(levels[-1].size) > _SMALLEST_LEVEL:
        finer = levels[-1]
        source = CachedTiles(HalvedTiles(finer.source), cache, len(levels))
        twice = (2 * finer.downsample[0], 2 * finer.downsample[1])
        levels.append(Level(source, twice, stored=False))
    return tuple(levels)


class TiffTiles:
    """The tiles or strips of one page.

    Parameters
    ----------
    path : Path
        The file, for messages.
    tiff : TiffFile
        Open.
    page : TiffPage
        8-bit grey, RGB or RGBA pixels, channels interleaved.
    lock : Lock
        Guards the file's one handle; decoding happens outside it.

    Raises
    ------
    SlideError
        If the page holds other pixels.
    """

    def __init__(
        self,
        path: Path,
        tiff: tifffile.TiffFile,
        page: tifffile.TiffPage,
        lock: threading.Lock,
    ) -> None:
        planar = page.planarconfig != 1 and page.samplesperpixel > 1
        samples = page.samplesperpixel
        if page.dtype != np.uint8 or samples not in (1, 3, 4) or planar:
            raise SlideError(
                f"holds {samples} channel(s) of {page.dtype}"
                f"{', stored apart' if planar else ''}, not 8-bit RGB",
                path,
                "Convert it to an RGB pyramid",
            )
        self._path, self._tiff, self._page = path, tiff, page
        self.size = (page.imagewidth, page.imagelength)
        self.tile_size = (
            (page.tilewidth, page.tilelength)
            if page.is_tiled
            else (page.imagewidth, min(page.rowsperstrip, page.imagelength))
        )
        self._columns = -(-self.size[0] // self.tile_size[0])
        self._lock = lock

    def decode(self, row: int, column: int) -> Pixels:
        """Decode one tile; see :class:`TileSource`."""
        index = row * self._columns + column
        where = f"{self._path} (tile {column}, {row} of a level {self.size[0]} px wide)"
        try:
            with self._lock:
                handle = self._tiff.filehandle
                handle.seek(self._page.dataoffsets[index])
                data = handle.read(self._page.databytecounts[index])
            tables = self._page.jpegtables
            tile, _, shape = self._page.decode(
                data, index, jpegtables=tables, jpegheader=self._page.jpegheader
            )
        # Codecs raise errors of their own classes, which share no base.
        except Exception as error:  # noqa: BLE001
            raise TileError(f"cannot be decoded ({error})", where) from error
        if tile is None:
            raise TileError("is missing from the file", where)
        x, y = column * self.tile_size[0], row * self.tile_size[1]
        height = min(shape[1], self.size[1] - y)
        width = min(shape[2], self.size[0] - x)
        return _as_rgb(tile[0, :height, :width])


def _as_rgb(pixels: Pixels) -> Pixels:
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, :3])


def _properties(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> dict[str, str]:
    found = {"compression": str(tifffile.COMPRESSION(page.compression).name).lower()}
    if tiff.is_svs:
        found["vendor"] = "aperio"
        for part in page.description.split("|"):
            key, _, value = part.partition("=")
            if key.strip() == "AppMag":
                found["objective"] = value.strip()
    elif tiff.is_ome:
        found["vendor"] = "ome"
    if 34675 in page.tags:
        found["icc_profile"] = "yes"
    return found
