"""GeoJSON for QuPath: one tile a patch, in level-0 pixels; written only."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.features.interchange.record import Rows
from napari_mcm.core.runtime.files import atomic_path

MOST_NUMBERS = 2_000_000
"""Features beyond which they are left out: QuPath keeps a name for each in memory."""


def write(rows: Rows, path: Path) -> list[Path]:
    """Write one file: outlines, and features and quality as measurements.

    Of large slides only the quality: QuPath would not open a million measurements.
    """
    with_features = rows.features.size <= MOST_NUMBERS
    corners = _rings(rows)
    with atomic_path(path) as part, part.open("w", encoding="utf-8") as out:
        out.write('{"type": "FeatureCollection", "features": [\n')
        # One line a patch: the file can still be looked at and compared.
        for i in range(len(rows.xy)):
            tile = _tile(rows, i, corners[i], with_features)
            out.write((",\n" if i else "") + json.dumps(tile, ensure_ascii=False))
        out.write("\n]}\n")
    return [path]


def _tile(
    rows: Rows, i: int, ring: NDArray[np.int64], with_features: bool
) -> dict[str, Any]:
    row = rows.features[i] if with_features else ()
    measured = {n: round(float(v[i]), 6) for n, v in rows.quality.items()}
    # The shortest text that gives the same float32 again.
    measured |= {f"feature {k}": float(str(v)) for k, v in enumerate(row)}
    x, y = rows.xy[i]
    place = f"{rows.slide['fingerprint']}/{rows.slide['name']}/{x},{y}/{rows.encoder}"
    return {
        "type": "Feature",
        # The same patch always gets the same one, so that it can be found again.
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, place)),
        "geometry": {"type": "Polygon", "coordinates": [ring.tolist()]},
        # TIAToolbox puts the type beside the properties, where QuPath does not look.
        "properties": {
            "objectType": "tile",
            "name": f"patch {i}",
            "measurements": measured,
        },
    }


def _rings(rows: Rows) -> NDArray[np.int64]:
    """Give each patch's closed outline (N, 5, 2)."""
    low = rows.xy
    high = np.rint(low + np.asarray(rows.size)).astype(np.int64)
    x = np.stack([low[:, 0], high[:, 0], high[:, 0], low[:, 0], low[:, 0]], axis=1)
    y = np.stack([low[:, 1], low[:, 1], high[:, 1], high[:, 1], low[:, 1]], axis=1)
    return np.stack([x, y], axis=2)
