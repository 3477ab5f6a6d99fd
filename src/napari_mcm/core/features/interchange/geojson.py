"""GeoJSON for QuPath: one tile per patch, in level-0 pixels; written only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.features.interchange.record import Rows
from napari_mcm.core.runtime.geojson import (
    make_feature,
    make_polygon,
    rectangle_rings,
    write_features,
)

MOST_NUMBERS = 2_000_000
"""Largest number of feature values written: QuPath stores a name for each of them."""


def write(rows: Rows, path: Path) -> list[Path]:
    """Write patches as tiles, with features and quality as measurements.

    Large slides get only the quality, as QuPath cannot open that many measurements.

    Parameters
    ----------
    rows : Rows
        Patches with features.
    path : Path
        The file.

    Returns
    -------
    list of Path
        The file.
    """
    with_features = rows.features.size <= MOST_NUMBERS
    high = np.rint(rows.xy + np.asarray(rows.size)).astype(np.int64)
    corners = rectangle_rings(rows.xy, high)
    tiles = (_tile(rows, i, corners[i], with_features) for i in range(len(rows.xy)))
    write_features(path, tiles)
    return [path]


def _tile(
    rows: Rows, i: int, ring: NDArray[np.int64], with_features: bool
) -> dict[str, Any]:
    row = rows.features[i] if with_features else ()
    measured = {n: round(float(v[i]), 6) for n, v in rows.quality.items()}
    # The shortest text from which the same float32 is read.
    measured |= {f"feature {k}": float(str(v)) for k, v in enumerate(row)}
    x, y = rows.xy[i]
    key = f"{rows.slide['fingerprint']}/{rows.slide['name']}/{x},{y}/{rows.encoder}"
    # The type goes into the properties: beside them, QuPath does not read it.
    properties: dict[str, Any] = {
        "objectType": "tile",
        "name": f"patch {i}",
        "measurements": measured,
    }
    if rows.neighbourhood.radius:
        properties["metadata"] = {"neighbourhood": rows.neighbourhood.describe()}
    return make_feature(make_polygon([ring.tolist()]), properties, key)
