"""Features that exist already, written as our own feature file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.features.layout import SCHEMA
from napari_mcm.core.features.quality import MEASURES
from napari_mcm.core.features.store import FeatureStore

OWN_FORMAT = "napari-mcm"
_BLOCK = 4096


def is_own_file(path: Path) -> bool:
    """Tell whether a folder says that it is our feature file, complete or not."""
    try:
        said = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        return bool(said["attributes"]["schema"] == SCHEMA)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def save_features(
    features: FeatureSet, path: str | Path, overwrite: bool = False
) -> Path:
    """Write features as ``<slide>.features.zarr``.

    Where the same features are there already, nothing is written.

    Parameters
    ----------
    features : FeatureSet
        Of one slide.
    path : str or Path
        The feature file.
    overwrite : bool
        Replace one that holds other features.

    Raises
    ------
    FeatureError
        If there is one with other features, or it cannot be written.
    """
    path = Path(path)
    store = FeatureStore.open(path, features.grid, features.encoder, _BLOCK, overwrite)
    if store.complete:
        return path
    unknown = np.full(len(features), np.nan, np.float32)
    measured = {name: features.quality.get(name, unknown) for name in MEASURES}
    for start in range(store.done, len(features), store.block):
        rows = slice(start, start + store.block)
        quality = {name: values[rows] for name, values in measured.items()}
        store.write(start, features.features[rows], features.status[rows], (), quality)
    store.finish(features.provenance)
    return path
