"""Feature files of a cohort, written with zarr alone, and the same values in numpy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.features.interchange.formats import save_features
from tests.core.features.made_features import made_grid

ENCODER = "e" * 16


def made_slide(
    name: str,
    rows: int = 40,
    columns: int = 30,
    dim: int = 16,
    seed: int | None = None,
    encoder: str = ENCODER,
) -> FeatureSet:
    """Features of tissue with holes: neighbours are alike, and lengths differ widely."""
    rng = np.random.default_rng(sum(map(ord, name)) if seed is None else seed)
    grid = made_grid(rows, columns, fingerprint=f"{name:_<16}")
    kept = np.flatnonzero(rng.random(len(grid)) < 0.85)
    slide = grid.slide | {"name": name}
    grid = replace(grid, xy=grid.xy[kept], lattice=grid.lattice[kept], slide=slide)
    smooth = np.sin(grid.lattice @ rng.normal(size=(2, dim)) / 5)
    values = smooth + rng.normal(size=(len(grid), dim))
    values *= rng.uniform(0.1, 10, (len(grid), 1))
    status = np.zeros(len(grid), np.uint8)
    status[[3, 50]] = 1, 2
    values[status > 0] = np.nan
    described = {"spec": "made", "fingerprint": encoder, "precision": "float32"}
    described |= {"dim": dim}
    return FeatureSet(values.astype(np.float32), grid, status, described)


def write_cohort(folder: Path, names: str, **options) -> dict[str, FeatureSet]:
    """Write a feature file per slide, named by a letter."""
    made = {name: made_slide(name, **options) for name in names}
    for name, features in made.items():
        save_features(features, folder / f"{name}.features.zarr")
    return made


def cosines(features: FeatureSet, direction: NDArray[np.float32]) -> NDArray:
    """The cosine of single patches in float64; NaN without features."""
    values = features.features.astype(np.float64)
    unit = values / np.sqrt((values**2).sum(axis=1, keepdims=True))
    return unit @ direction.astype(np.float64)


def direction_of(dim: int = 16, seed: int = 9) -> NDArray[np.float32]:
    """One random unit vector (1, D)."""
    vector = np.random.default_rng(seed).normal(size=(1, dim))
    return (vector / np.linalg.norm(vector)).astype(np.float32)
