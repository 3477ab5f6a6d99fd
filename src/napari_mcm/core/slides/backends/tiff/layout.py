"""Which pages of a TIFF are levels of the slide, and which are other images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile

from napari_mcm.core.errors import SlideError

Planes = Sequence[Any]
"""Pages of one level: one RGB page, or one page for each of three channels."""

_OTHER_IMAGES = ("label", "macro", "thumbnail", "overview", "map")
_SAME_ASPECT = 0.05


@dataclass(frozen=True)
class Layout:
    """The levels and other images of a TIFF.

    Attributes
    ----------
    levels : list of sequence of TiffPage
        Pages of each level, the finest first.
    images : mapping of str to sequence of TiffPage
        Pages of each label, macro or thumbnail image.
    main : TiffPageSeries
        The series that holds the levels.
    warnings : list of str
        What is not used.
    """

    levels: list[Planes]
    images: Mapping[str, Planes]
    main: tifffile.TiffPageSeries
    warnings: list[str]


def layout(tiff: tifffile.TiffFile, name: str) -> Layout:
    """Find the levels and other images of a TIFF.

    Parameters
    ----------
    tiff : TiffFile
        Open.
    name : str
        The file, for messages.

    Returns
    -------
    Layout
        At least one level.

    Raises
    ------
    SlideError
        If it holds no picture that can be a slide.
    """
    series = [s for s in tiff.series if s.pages and _pixels(s)]
    if not series:
        raise SlideError("holds no image", name)
    others = {kind: s for s in series if (kind := _kind(s)) is not None}
    slides = [s for s in series if _kind(s) is None]
    if not slides:
        raise SlideError("holds a label or overview but no slide", name)
    main = max(slides, key=_pixels)
    warnings: list[str] = []
    rivals = sum(_pixels(s) > _pixels(main) / 4 for s in slides) - 1
    if rivals and not _joined(main, slides):
        warnings.append(f"holds {rivals + 1} images; the largest is read")
    found = [_planes(level, name, warnings) for level in main.levels]
    levels = _descending(found + _joined(main, slides), warnings)
    images = {kind: [other.pages[0]] for kind, other in others.items()}
    return Layout(levels, images, main, list(dict.fromkeys(warnings)))


def _pixels(series: tifffile.TiffPageSeries) -> int:
    page = series.keyframe
    return int(page.imagewidth) * int(page.imagelength)


def _kind(series: tifffile.TiffPageSeries) -> str | None:
    """Return ``"label"``, ``"macro"`` or the like; None for a series that may be a slide."""
    name = (series.name or "").lower()
    if series.keyframe.tags.valueof(65421) in (-1.0, -2.0):
        return "macro" if series.keyframe.tags.valueof(65421) == -1.0 else "map"
    return next((kind for kind in _OTHER_IMAGES if kind in name.split()), None)


def _joined(
    main: tifffile.TiffPageSeries, series: Sequence[tifffile.TiffPageSeries]
) -> list[Planes]:
    """Find coarser levels that are pages of their own, marked as reduced."""
    if len(main.levels) > 1:
        return []
    page = main.keyframe
    return [
        [other.pages[0]]
        for other in series
        if other is not main
        and other.keyframe.is_reduced
        and other.keyframe.samplesperpixel == page.samplesperpixel
        and _pixels(other) < _pixels(main)
    ]


def _planes(level: tifffile.TiffPageSeries, name: str, warnings: list[str]) -> Planes:
    """Choose among a level's pages: middle focal plane, first time, all channels.

    Raises
    ------
    SlideError
        If it has channels other than red, green, blue, or pages are missing.
    """
    page = level.keyframe
    inside = "".join(axis for axis in page.axes)
    outer = [
        (axis, length)
        for axis, length in zip(level.axes, level.shape, strict=True)
        if axis not in inside and length > 1
    ]
    shape = [length for _, length in outer]
    if int(np.prod(shape)) != len(level.pages):
        # tifffile squeezed or merged axes, so that pages are ambiguous: use the first one.
        shape, outer = [], []
    chosen: list[Any] = []
    for axis, length in outer:
        if axis == "C" and page.samplesperpixel == 1:
            if length != 3:
                raise SlideError(f"holds {length} channels, not red, green, blue", name)
            chosen.append(np.arange(3))
        elif axis == "Z":
            warnings.append(f"holds {length} focal planes; the middle one is read")
            chosen.append(length // 2)
        else:
            warnings.append(f"holds {length} images of one size; the first is read")
            chosen.append(0)
    index = np.ravel_multi_index(np.broadcast_arrays(*chosen), shape) if chosen else 0
    pages = [level.pages[int(i)] for i in np.atleast_1d(index)]
    if any(plane is None for plane in pages):
        raise SlideError("lacks pages that its directory lists", name)
    return pages


def _descending(found: list[Planes], warnings: list[str]) -> list[Planes]:
    """Sort levels from fine to coarse, and drop those that show something else."""
    found = sorted(found, key=lambda planes: -planes[0].keyframe.imagewidth)
    levels = found[:1]
    full = found[0][0].keyframe
    for planes in found[1:]:
        page, last = planes[0].keyframe, levels[-1][0].keyframe
        x, y = full.imagewidth / page.imagewidth, full.imagelength / page.imagelength
        # Rounding to whole pixels matters where a side has few.
        slack = _SAME_ASPECT + 2 / min(page.imagewidth, page.imagelength)
        smaller = page.imagewidth < last.imagewidth
        if smaller and abs(x / y - 1) <= slack:
            levels.append(planes)
        else:
            size = f"{page.imagewidth} x {page.imagelength}"
            warnings.append(
                f"holds a level of {size} px that does not fit; it is not used"
            )
    return levels
