"""Cells annotated on a slide by outlines, boxes or points, and the files that hold them."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from napari_mcm.core.cells.datasets import Box, square
from napari_mcm.core.errors import ConfigError, TileError
from napari_mcm.core.mae.pictures import Pixels
from napari_mcm.core.runtime.geojson import (
    make_feature,
    make_polygon,
    rectangle_rings,
    write_features,
)
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue.geojson import (
    LARGEST_FILE,
    features_in,
    is_drawn,
    load_geojson,
    polygons_in,
)

Bounds = tuple[float, float, float, float]
Crop = Callable[[Box], Pixels]
Feature = Mapping[str, Any]

SMALLEST, LARGEST = 4, 4096
"""Smallest and largest side of a cell's box, in level-0 pixels."""

GEOJSON, TABLES = (".geojson", ".json"), (".csv", ".tsv")
_POINT, _BOX = ("x", "y"), ("left", "top", "right", "bottom")
_IF_LARGE = "Export fewer cells, or give a CSV with their boxes"
_HINT = "It needs the columns x,y (points) or left,top,right,bottom (boxes)"


@dataclass(frozen=True)
class CellAnnotation:
    """One annotated cell.

    Attributes
    ----------
    bounds : tuple of float
        Left, top, right, bottom in level-0 pixels.
    is_point : bool
        Whether it is a point, without a size: left equals right, and top equals bottom.
    feature : mapping
        Its GeoJSON feature, from the file or made for it.
    """

    bounds: Bounds
    is_point: bool
    feature: Feature

    def box(self, size: tuple[int, int], side: int, margin: float) -> Box:
        """Return the square to classify.

        Parameters
        ----------
        size : tuple of int
            Width and height of the slide, in level-0 pixels.
        side : int
            Side of the box around a point, in level-0 pixels.
        margin : float
            Margin around other annotations, as a fraction of their longer side.

        Returns
        -------
        tuple of int
            Left, top, right, bottom in level-0 pixels.
        """
        if not self.is_point:
            return square_around(self.bounds, size, margin)
        x, y = self.bounds[:2]
        half = side / 2
        return square_around((x - half, y - half, x + half, y + half), size, 0.0)


@dataclass(frozen=True)
class CellAnnotations:
    """Annotations of a file.

    Attributes
    ----------
    cells : tuple of CellAnnotation
        In the file's order.
    others : tuple of mapping
        Features that are not cells: annotations around cells, lines.
    """

    cells: tuple[CellAnnotation, ...]
    others: tuple[Feature, ...] = ()


def square_around(bounds: Bounds, size: tuple[int, int], margin: float) -> Box:
    """Return a cell's bounds as a square of whole pixels with a margin, inside the slide.

    Bounds whose centre is outside of the slide stay there, where they cannot be read.

    Parameters
    ----------
    bounds : tuple of float
        Left, top, right, bottom in level-0 pixels.
    size : tuple of int
        Width and height of the slide, in level-0 pixels.
    margin : float
        Margin as a fraction of the longer side.

    Returns
    -------
    tuple of int
        Left, top, right, bottom in level-0 pixels.
    """
    left, top, right, bottom = (round(float(v)) for v in bounds)
    x, y = (left + right) / 2, (top + bottom) / 2
    if not (0 <= x <= size[0] and 0 <= y <= size[1]):
        return left, top, right, bottom
    return square((left, top, right, bottom), size, margin)


def crop_of(slide: Slide) -> Crop:
    """Return a function that reads a box of a slide.

    Parameters
    ----------
    slide : Slide
        The slide, open.

    Returns
    -------
    callable
        Maps a box to pixels; raises TileError as :func:`checked` does.
    """
    return checked(
        slide.size,
        lambda box: slide.read_level(0, *box[:2], box[2] - box[0], box[3] - box[1]),
    )


def checked(size: tuple[int, int], read: Crop) -> Crop:
    """Return a function that checks a box before it reads it.

    Parameters
    ----------
    size : tuple of int
        Width and height of the image, in pixels.
    read : callable
        Maps a box to pixels.

    Returns
    -------
    callable
        Maps a box to pixels; raises TileError for a box that is too small or large for a
        cell, or not on the image.
    """

    def crop(box: Box) -> Pixels:
        left, top, right, bottom = box
        side = max(right - left, bottom - top)
        if not (0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]):
            raise TileError(f"lies outside of {size[0]} x {size[1]} px")
        # A region drawn around many cells is not one: reading it could take all memory.
        if not SMALLEST <= side <= LARGEST:
            raise TileError(
                f"a box of {side:,} px per side is not a cell "
                f"({SMALLEST} to {LARGEST:,} px are)"
            )
        return read(box)

    return crop


def read_annotations(path: Path) -> CellAnnotations:
    """Read the annotated cells of a file.

    Parameters
    ----------
    path : Path
        GeoJSON with polygons or points, as QuPath and this program write it. Where it holds
        cells, detections or tiles, the annotations around them are not cells. Or a CSV with
        the columns x and y, or left, top, right and bottom. All in level-0 pixels.

    Returns
    -------
    CellAnnotations
        At least one cell.

    Raises
    ------
    ConfigError
        If the file is missing or damaged, or annotates no cells.
    GridError
        If a geometry is damaged.
    """
    ending = path.suffix.lower()
    if ending not in (*GEOJSON, *TABLES):
        raise ConfigError(
            "is not a file of annotations", path, f"Use {' '.join((*GEOJSON, *TABLES))}"
        )
    marks = (
        _of_geojson(path)
        if ending in GEOJSON
        else CellAnnotations(tuple(_of_table(path)))
    )
    if not marks.cells:
        raise ConfigError(
            "annotates no cells: it holds no polygons and no points",
            path,
            "Outline cells, or mark them by points",
        )
    return marks


def write_boxes(path: Path, boxes: Sequence[Box]) -> None:
    """Write boxes as GeoJSON that :func:`read_annotations` reads back unchanged.

    Parameters
    ----------
    path : Path
        File to write.
    boxes : sequence of tuple of int
        Left, top, right, bottom in level-0 pixels.
    """
    write_features(path, [_feature(box, is_point=False) for box in boxes])


def _of_geojson(path: Path) -> CellAnnotations:
    features = list(features_in(load_geojson(path, "file of marks", _IF_LARGE)))
    # Detected objects are the cells, not the regions in which they were detected.
    has_detections = any(not is_drawn(feature) for feature in features)
    cells: list[CellAnnotation] = []
    others = []
    for number, feature in enumerate(features, 1):
        is_cell = not (has_detections and is_drawn(feature))
        marks = _marks_of(feature, f"{path}: object {number}") if is_cell else []
        cells += marks
        others += [] if marks else [feature]
    return CellAnnotations(tuple(cells), tuple(others))


def _marks_of(feature: Feature, where: str) -> list[CellAnnotation]:
    """Return the cells of a feature: several where it holds several points."""
    import shapely

    geometry = feature.get("geometry")
    kind = geometry.get("type") if isinstance(geometry, Mapping) else None
    if not isinstance(geometry, Mapping):
        return []
    if kind in ("Point", "MultiPoint"):
        places = _places(geometry, where)
        if kind == "Point":
            return [CellAnnotation((*places[0], *places[0]), True, feature)]
        # Each point gets its own class, so they must not share an id.
        shared = {key: value for key, value in feature.items() if key != "id"}
        return [
            CellAnnotation(
                (*place, *place), True, shared | {"geometry": _point(geometry, place)}
            )
            for place in places
        ]
    polygons = polygons_in(geometry, where)
    if not polygons:
        return []
    left, top, right, bottom = map(float, shapely.total_bounds(polygons))
    return [CellAnnotation((left, top, right, bottom), False, feature)]


def _places(geometry: Feature, where: str) -> list[tuple[float, float]]:
    try:
        given = geometry["coordinates"]
        each = [given] if geometry["type"] == "Point" else given
        places = [(float(place[0]), float(place[1])) for place in each]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(f"is a damaged {geometry['type']} ({error})", where) from None
    if not all(map(math.isfinite, chain.from_iterable(places))):
        raise ConfigError("has coordinates that are not finite", where)
    return places


def _point(geometry: Feature, place: tuple[float, float]) -> Feature:
    return {**geometry, "type": "Point", "coordinates": list(place)}


def _of_table(path: Path) -> list[CellAnnotation]:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError("is too large for a table of cells", path)
        # Tables that spreadsheets have saved begin with a byte-order mark.
        with path.open(newline="", encoding="utf-8-sig") as opened:
            mark = "\t" if path.suffix.lower() == ".tsv" else ","
            header, *rows = list(csv.reader(opened, delimiter=mark)) or [[]]
    except FileNotFoundError:
        raise ConfigError("no such file of marks", path, "Check the path") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot be read as a table ({error})", path) from None
    names = [name.strip().lower() for name in header]
    # Boxes come first: a table of boxes may list the centres, too.
    columns = next((c for c in (_BOX, _POINT) if set(c) <= set(names)), None)
    if columns is None:
        has = ", ".join(header)[:200] or "nothing"
        raise ConfigError(f"has neither points nor boxes, but {has}", path, _HINT)
    numbers = [names.index(name) for name in columns]
    return [_row(path, line, row, numbers) for line, row in enumerate(rows, 2) if row]


def _row(path: Path, line: int, row: list[str], numbers: list[int]) -> CellAnnotation:
    try:
        values = [float(row[number]) for number in numbers]
    except (IndexError, ValueError):
        raise ConfigError(f"line {line} lacks a number", path, _HINT) from None
    if not all(map(math.isfinite, values)):
        raise ConfigError(f"line {line} holds a number that is not finite", path)
    is_point = len(values) == len(_POINT)
    left, top, right, bottom = values * 2 if is_point else values
    if not is_point and not (left < right and top < bottom):
        raise ConfigError(
            f"line {line}: a box is empty", path, "Right of left, below top"
        )
    bounds = (left, top, right, bottom)
    return CellAnnotation(bounds, is_point, _feature(bounds, is_point))


def _feature(bounds: Bounds, is_point: bool) -> Feature:
    left, top, right, bottom = bounds
    if is_point:
        return make_feature(_point({}, (left, top)), {"objectType": "annotation"})
    ring = rectangle_rings([(left, top)], [(right, bottom)])[0]
    return make_feature(make_polygon([ring.tolist()]), {"objectType": "detection"})
