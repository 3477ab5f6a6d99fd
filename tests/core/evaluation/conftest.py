"""Slides that are two halves of tissue, and features with a planted difference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from napari_mcm.core.features.feature_set import FeatureSet, Status
from napari_mcm.core.features.patches import MEASURES
from napari_mcm.core.features.store import FeatureStore
from napari_mcm.core.grid import PatchGrid

STEP, ROWS, COLUMNS = 100, 8, 10


def make_grid(name: str = "one", rows: int = ROWS, columns: int = COLUMNS) -> PatchGrid:
    """A full lattice of patches of 100 level-0 pixels, at 1 µm."""
    lattice = np.indices((rows, columns)).reshape(2, -1).T.astype(np.int32)
    identity = {"name": name, "fingerprint": f"of {name}", "mpp": [1.0, 1.0]}
    identity["size"] = [columns * STEP, rows * STEP]
    xy = (lattice[:, ::-1] * STEP).astype(np.int64)
    size = (float(STEP), float(STEP))
    return PatchGrid(xy, lattice, STEP, 1.0, size, (0, 0), (rows, columns), identity)


def box(x0: float, y0: float, x1: float, y1: float) -> dict:
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    return {"type": "Polygon", "coordinates": [ring]}


def region(name: str | None, *corners: float) -> dict:
    properties: dict = {"objectType": "annotation"}
    if name is not None:
        properties["classification"] = {"name": name}
    return {"type": "Feature", "geometry": box(*corners), "properties": properties}


def write_regions(path: Path, *regions: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"type": "FeatureCollection", "features": list(regions)}
    path.write_text(json.dumps(content))
    return path


def write_features(path: Path, features: FeatureSet) -> Path:
    """Write a complete feature file, as an extraction would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    store = FeatureStore.open(path, features.grid, features.encoder, 128)
    for start in range(0, len(features), 128):
        part = slice(start, start + 128)
        rows = features.features[part]
        quality = dict.fromkeys(MEASURES, np.zeros(len(rows), np.float32))
        store.write(start, rows, features.status[part], (), quality)
    store.finish({"software": "test"})
    return path


def make_features(
    grid: PatchGrid, apart: float, seed: int, spec: str = "planted", dim: int = 12
) -> FeatureSet:
    """Gaussian features; the left half of the slide lies `apart` from the right."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(len(grid), dim)).astype(np.float32)
    left = grid.centres[:, 0] < COLUMNS * STEP / 2
    features[left, 0] += apart
    status = np.full(len(grid), Status.OK, np.uint8)
    encoder = {"spec": spec, "fingerprint": spec, "dim": dim, "precision": "float32"}
    return FeatureSet(features, grid, status, encoder)


MakeStudy = Callable[..., Path]


@pytest.fixture
def study(tmp_path: Path) -> MakeStudy:
    """Give a function that writes features by two encoders, and labels."""

    def write(slides: int = 3, weak: float = 0.7, strong: float = 3.0) -> Path:
        for number in range(slides):
            grid = make_grid(f"slide_{number}")
            for name, apart in (("weak", weak), ("strong", strong)):
                features = make_features(grid, apart, 10 * number + len(name), name)
                write_features(
                    tmp_path / name / f"slide_{number}.features.zarr", features
                )
            write_regions(
                tmp_path / "labels" / f"slide_{number}_regions.geojson",
                region("tumour", 0, 0, 500, 800),
                region("stroma", 500, 0, 1000, 700),
                region("undetermined", 500, 700, 1000, 800),
            )
        return tmp_path

    return write
