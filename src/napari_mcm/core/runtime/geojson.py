"""Writing GeoJSON as QuPath reads it; all GeoJSON files are written here.

Every file is a FeatureCollection in UTF-8, with coordinates in level-0 pixels (x, y).
:mod:`napari_mcm.core.tissue.geojson` reads and checks such files.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mcm.core.runtime.files import atomic_path


def write_features(
    path: Path, features: Iterable[Mapping[str, Any]], *, one_per_line: bool = True
) -> None:
    """Write features as one collection, atomically.

    Parameters
    ----------
    path : Path
        The file.
    features : iterable of mapping
        Features, see :func:`make_feature`. They are written one by one, so that
        those of all patches of a slide need not be in memory together.
    one_per_line : bool, optional
        Whether each feature starts a line, so that people and diffs can read a file
        of 100,000 patches. Otherwise the whole collection is one line.

    Raises
    ------
    McmError
        If it cannot be written.
    """
    newline, between = ("\n", ",\n") if one_per_line else ("", ", ")
    with atomic_path(path) as part, part.open("w", encoding="utf-8") as out:
        out.write(f'{{"type": "FeatureCollection", "features": [{newline}')
        for number, feature in enumerate(features):
            out.write(between if number else "")
            out.write(json.dumps(feature, ensure_ascii=False))
        out.write(f"{newline}]}}\n")


def make_feature(
    geometry: Mapping[str, Any], properties: Mapping[str, Any], key: str = ""
) -> dict[str, Any]:
    """Build a GeoJSON feature.

    Parameters
    ----------
    geometry : mapping
        A GeoJSON geometry.
    properties : mapping
        Shown by QuPath: ``objectType``, ``name``, ``classification``,
        ``measurements``.
    key : str, optional
        Unique name of the object, from which its ``id`` is derived. QuPath requires
        a UUID; the same key always gives the same one. Without a key there is no
        id.

    Returns
    -------
    dict
        A GeoJSON feature.
    """
    ident = {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, key))} if key else {}
    return {
        "type": "Feature",
        **ident,
        "geometry": dict(geometry),
        "properties": dict(properties),
    }


def make_polygon(rings: list[Any]) -> dict[str, Any]:
    """Build a GeoJSON polygon.

    Parameters
    ----------
    rings : list of list of [x, y]
        The closed outer ring, then those of the holes.

    Returns
    -------
    dict
        A GeoJSON geometry.
    """
    return {"type": "Polygon", "coordinates": rings}


def rectangle_rings(low: ArrayLike, high: ArrayLike) -> NDArray[Any]:
    """Return the closed outlines of rectangles, clockwise from the upper left corner.

    Parameters
    ----------
    low, high : array_like, shape (n, 2)
        Upper left and lower right corners (x, y).

    Returns
    -------
    ndarray, shape (n, 5, 2)
        Corners (x, y) in the type of the input; the last equals the first.
    """
    (left, top), (right, bottom) = np.asarray(low).T, np.asarray(high).T
    x = np.stack([left, right, right, left, left], axis=1)
    y = np.stack([top, top, bottom, bottom, top], axis=1)
    return np.stack([x, y], axis=2)
