"""Polygons around tissue, as QuPath draws, reads and writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import GridError
from napari_mcm.core.runtime.geojson import make_feature, write_features
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue.mask import TissueMask

if TYPE_CHECKING:
    from shapely import Polygon
    from shapely.geometry.base import BaseGeometry


LARGEST_FILE = 256 * 2**20
"""Largest size in bytes of a file drawn by hand; larger files are not read."""


LONGEST_MASK = 8192
"""Largest number of pixels along the longer side of a mask."""


# Classes that QuPath's users give to what is not tissue; Artefact in both spellings.
_CUT_OUT = re.compile(r"(ignore|background|arte?[fi]+act|pen|hole)s?\b", re.IGNORECASE)

_NOT_DRAWN = ("detection", "cell", "tile")

_DAMAGED_HINT = "Export the annotations again, in QuPath: File > Export objects"

_COLOUR = [0, 153, 102]

# A drawing may reach over the edge, but one of another slide is mostly outside.
_LEAST_INSIDE = 0.5


def read_geojson(path: Path, slide: Slide, mpp: float) -> NDArray[np.bool_]:
    """Rasterise the annotations of a GeoJSON file as a mask of a slide.

    Parameters
    ----------
    path : Path
        GeoJSON with polygons in level-0 pixels.
    slide : Slide
        The slide that the annotations belong to.
    mpp : float
        Resolution of the mask in µm per pixel.

    Returns
    -------
    ndarray of bool, shape (height, width)
        True on tissue; covers the whole slide.

    Raises
    ------
    GridError
        If it is missing, damaged, without polygons, or of another slide.
    """
    import shapely

    tissue: list[BaseGeometry] = []
    cut: list[BaseGeometry] = []
    content = load_geojson(path)
    for number, feature in enumerate(features_in(content), 1):
        if is_drawn(feature):
            where = cut if _is_cut_out(feature) else tissue
            where += polygons_in(feature.get("geometry"), f"{path}: object {number}")
    # An empty collection is a valid mask without tissue.
    if not tissue and _of_nothing(content):
        return np.zeros(_mask_size(slide, mpp)[::-1], bool)
    if not tissue:
        raise GridError("holds no polygons of tissue", path, _DAMAGED_HINT)
    drawn = shapely.union_all(tissue)
    _check_place(drawn, slide, path)
    # Cut-outs apply to all tissue, in whatever order the objects were drawn.
    return burn(drawn - shapely.union_all(cut), slide.size, _mask_size(slide, mpp))


def read_regions(path: Path) -> list[tuple[str, BaseGeometry]]:
    """Read annotated regions and the class of each.

    Parameters
    ----------
    path : Path
        GeoJSON with polygons in level-0 pixels.

    Returns
    -------
    list of tuple of str and shapely geometry
        Class and polygon, in the order of the file; the class is empty where none
        is given. Nested classes are joined as QuPath shows them: ``"Tumor:
        Necrosis"``.

    Raises
    ------
    GridError
        If it is missing or damaged, or holds no polygons.
    """
    found = [
        (class_of(feature), polygon)
        for number, feature in enumerate(features_in(load_geojson(path)), 1)
        if is_drawn(feature)
        for polygon in polygons_in(feature.get("geometry"), f"{path}: object {number}")
    ]
    if not found:
        raise GridError("holds no polygons", path, _DAMAGED_HINT)
    return found


def write_geojson(path: Path, mask: TissueMask, name: str) -> None:
    """Write a mask's outlines as annotations of the class Tissue, atomically.

    Parameters
    ----------
    path : Path
        The file.
    mask : TissueMask
        The tissue.
    name : str
        Name of the slide; annotations are numbered after it.

    Raises
    ------
    McmError
        If it cannot be written.
    """
    import shapely

    features = [
        make_feature(
            shapely.geometry.mapping(polygon),
            {
                "objectType": "annotation",
                "name": f"{name} {number}",
                "classification": {"name": "Tissue", "color": _COLOUR},
            },
        )
        for number, polygon in enumerate(outline(mask), 1)
    ]
    write_features(path, features, one_per_line=False)


def load_geojson(
    path: Path,
    what: str = "mask",
    if_large: str = "Export annotations only, without detections",
) -> Any:
    """Parse a GeoJSON file without checking its content.

    Parameters
    ----------
    path : Path
        At most :data:`LARGEST_FILE` bytes.
    what : str, optional
        What the file should be, for messages.
    if_large : str, optional
        Hint for a file that is too large.

    Returns
    -------
    object
        The parsed JSON.

    Raises
    ------
    GridError
        If it is missing, too large or not JSON.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            large = f"is larger than {LARGEST_FILE // 2**20} MiB"
            raise GridError(large, path, if_large)
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise GridError(f"no such {what}", path, "Check the path") from None
    except (OSError, ValueError, RecursionError) as error:
        raise GridError(f"is not GeoJSON ({error})", path, _DAMAGED_HINT) from error


def _of_nothing(content: Any) -> bool:
    return isinstance(content, Mapping) and content.get("features") == []


def features_in(content: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the features in a collection, a list, or a single feature or geometry.

    Parameters
    ----------
    content : object
        Parsed JSON.

    Yields
    ------
    mapping
        Features; a bare geometry is wrapped as one.
    """
    if isinstance(content, Mapping) and content.get("type") == "FeatureCollection":
        content = content.get("features")
    for item in content if isinstance(content, list) else [content]:
        if not isinstance(item, Mapping):
            continue
        yield item if item.get("type") == "Feature" else {"geometry": item}


def is_drawn(feature: Mapping[str, Any]) -> bool:
    """Return whether a feature was drawn by hand, not detected by a program.

    Older versions of QuPath state it in the feature's id.

    Parameters
    ----------
    feature : mapping
        A GeoJSON feature.

    Returns
    -------
    bool
    """
    kind = _of(feature, "properties").get("objectType") or feature.get("id")
    return not any(word in str(kind).lower() for word in _NOT_DRAWN)


def _is_cut_out(feature: Mapping[str, Any]) -> bool:
    described = _of(_of(feature, "properties"), "classification")
    names = described.get("names") or [described.get("name")]
    return any(_CUT_OUT.match(str(name)) for name in names)


def class_of(feature: Mapping[str, Any]) -> str:
    """Return the class of a feature, nested ones joined as QuPath shows them.

    Parameters
    ----------
    feature : mapping
        A GeoJSON feature.

    Returns
    -------
    str
        ``"Tumor: Necrosis"``; empty where there is none.
    """
    described = _of(_of(feature, "properties"), "classification")
    names = described.get("names")
    if isinstance(names, list) and names:
        return ": ".join(map(str, names))
    return str(described.get("name") or "").strip()


def _of(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = content.get(key)
    return inner if isinstance(inner, Mapping) else {}


def polygons_in(geometry: Any, where: str) -> list[BaseGeometry]:
    """Convert a geometry to valid polygons; points and lines give none.

    Parameters
    ----------
    geometry : object
        A GeoJSON geometry.
    where : str
        File and object, for messages.

    Returns
    -------
    list of shapely geometry
        Valid polygons.

    Raises
    ------
    GridError
        If coordinates are missing, not finite, or too few.
    """
    import shapely

    kind = geometry.get("type") if isinstance(geometry, Mapping) else None
    if kind not in ("Polygon", "MultiPolygon"):
        return []
    try:
        parts = geometry["coordinates"] if kind == "MultiPolygon" else None
        found = [
            shapely.Polygon(*_rings(part))
            for part in parts or [geometry["coordinates"]]
        ]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise GridError(
            f"is a damaged {kind} ({error})", where, _DAMAGED_HINT
        ) from error
    # Lines drawn by hand may cross themselves.
    return [shapely.make_valid(polygon) for polygon in found]


def _rings(part: Any) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    shell, *holes = (np.asarray(ring, np.float64)[:, :2] for ring in part)
    if not all(np.isfinite(ring).all() for ring in (shell, *holes)):
        raise ValueError("coordinates that are not finite")
    return shell, holes


def _check_place(drawn: BaseGeometry, slide: Slide, path: Path) -> None:
    """Check that a drawing lies on the slide.

    Raises
    ------
    GridError
        If it was drawn on another slide, or at another resolution.
    """
    import shapely

    inside = shapely.intersection(drawn, shapely.box(0, 0, *slide.size)).area
    if inside < _LEAST_INSIDE * drawn.area:
        left, top, right, bottom = drawn.bounds
        raise GridError(
            f"lies mostly outside of {slide.name}: x {left:.0f} to {right:.0f}, y "
            f"{top:.0f} to {bottom:.0f} on {slide.size[0]} x {slide.size[1]} px",
            path,
            "Check that it belongs to this slide; coordinates must be pixels of the "
            "finest level",
        )


def _mask_size(slide: Slide, mpp: float) -> tuple[int, int]:
    extent = [n * m for n, m in zip(slide.size, slide.mpp, strict=True)]
    # Bounded by the side, or a slide with a wrong pixel size would fill the memory.
    mpp = max(mpp, max(extent) / LONGEST_MASK, *slide.mpp)
    return max(round(extent[0] / mpp), 1), max(round(extent[1] / mpp), 1)


def outline(tissue: TissueMask) -> list[Polygon]:
    """Return polygons around a mask's pixels.

    Parameters
    ----------
    tissue : TissueMask
        The mask.

    Returns
    -------
    list of shapely.Polygon
        Valid, with holes, in level-0 pixels; their area is the mask's.
    """
    import shapely

    edges = np.diff(np.pad(tissue.mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    # Both lists follow the rows from left to right, so that starts and stops pair up.
    rows, starts = np.nonzero(edges > 0)
    stops = np.nonzero(edges < 0)[1]
    runs = shapely.box(starts, rows, stops, rows + 1)
    # Integer coordinates make the union exact, and collinear points recognisable.
    merged = shapely.simplify(shapely.union_all(runs), 0)
    to_level0 = np.asarray(tissue.downsample)
    scaled = shapely.transform(merged, lambda xy: xy * to_level0)
    return [part for part in shapely.get_parts(scaled) if not part.is_empty]


def burn(
    drawn: BaseGeometry, extent: tuple[float, float], size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Rasterise polygons: a pixel is set when its centre lies inside.

    Even-odd rule: a centre is inside when the line from the left crosses an odd number
    of edges.

    Parameters
    ----------
    drawn : shapely geometry
        Valid; parts that are not polygons are ignored.
    extent : tuple of float
        Width and height that the mask covers, from 0, in the polygons' units.
    size : tuple of int
        Width and height of the mask in pixels.

    Returns
    -------
    ndarray of bool, shape (height, width)
    """
    scale = np.asarray(size) / np.asarray(extent)
    crossings = np.zeros((size[1], size[0] + 1), np.uint8)
    for ring in _polygon_rings(drawn):
        _cross(crossings, ring * scale)
    # The parity of the crossings to the left of each pixel.
    return np.bitwise_xor.accumulate(crossings, axis=1)[:, :-1].astype(bool)


def _polygon_rings(drawn: BaseGeometry) -> list[NDArray[np.float64]]:
    import shapely

    parts = shapely.get_parts(shapely.get_parts(drawn))
    polygons = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    return [shapely.get_coordinates(ring) for ring in shapely.get_rings(polygons)]


def _cross(crossings: NDArray[np.uint8], ring: NDArray[np.float64]) -> None:
    """Mark, in each row of pixels, where a ring crosses the row's centre line."""
    height, width = crossings.shape[0], crossings.shape[1] - 1
    one, two = ring[:-1], ring[1:]
    # An edge crosses the centre lines y + 0.5 with first <= y < last. Half open, so
    # that a corner on a line counts once.
    first = np.ceil(np.minimum(one[:, 1], two[:, 1]) - 0.5).clip(0, height)
    last = np.ceil(np.maximum(one[:, 1], two[:, 1]) - 0.5).clip(0, height)
    count = (last - first).astype(np.intp)
    # One entry per crossing of an edge and a row.
    edge = np.repeat(np.arange(len(one)), count)
    below = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    row = first[edge].astype(np.intp) + below
    step = two - one
    along = (row + 0.5 - one[edge, 1]) / step[edge, 1]
    x = one[edge, 0] + along * step[edge, 0]
    column = np.ceil(x - 0.5).clip(0, width).astype(np.intp)
    # Two crossings in one pixel cancel out.
    np.bitwise_xor.at(crossings, (row, column), 1)
