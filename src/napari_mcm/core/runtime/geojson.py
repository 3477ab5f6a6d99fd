"""Write GeoJSON as QuPath reads it: the only place where files are put together.

Every file is a FeatureCollection in UTF-8, its coordinates level-0 pixels (x, y). What
is read is checked in :mod:`napari_mcm.core.tissue.geojson`.
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
        As :func:`make_feature` gives them. They are taken one by one, so that a slide's
        patches need not be in memory together.
    one_per_line : bool
        Whether each feature starts a line: a file of 100,000 patches can still be
        read by people and compared. Otherwise the whole collection is one line.
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
    """Put a feature together.

    Parameters
    ----------
    geometry : mapping
        A GeoJSON geometry.
    properties : mapping
        What QuPath shows: ``objectType``, ``name``, ``classification``, ``measurements``.
    key : str, optional
        Names the object. QuPath wants a UUID as ``id``; the same key always gives the
        same one, so that the object can be found again. Without a key there is none.

    Returns
    -------
    dict
    """
    ident = {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, key))} if key else {}
    return {
        "type": "Feature",
        **ident,
        "geometry": dict(geometry),
        "properties": dict(properties),
    }


def make_polygon(rings: list[Any]) -> dict[str, Any]:
    """Make a polygon geometry.

    Parameters
    ----------
    rings : list of list of [x, y]
        The closed outer ring, then those of the holes.

    Returns
    -------
    dict
    """
    return {"type": "Polygon", "coordinates": rings}


def rectangle_rings(low: ArrayLike, high: ArrayLike) -> NDArray[Any]:
    """Draw the closed outlines of rectangles, clockwise from the upper left corner.

    Parameters
    ----------
    low, high : array_like, shape (N, 2)
        Upper left and lower right corners (x, y).

    Returns
    -------
    ndarray, shape (N, 5, 2)
        Corners (x, y) in the type of the input; the last is the first.
    """
    (left, top), (right, bottom) = np.asarray(low).T, np.asarray(high).T
    x = np.stack([left, right, right, left, left], axis=1)
    y = np.stack([top, top, bottom, bottom, top], axis=1)
    return np.stack([x, y], axis=2)
