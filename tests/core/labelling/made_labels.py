"""Slides whose patches have known classes and features, and labels of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.labelling import LabelSet, labels_of_rows

STEP, MPP = 100, 0.5
NAMES = ("tumour", "stroma", "fat")


def make_grid(
    slide: str = "s1", rows: int = 12, columns: int = 15, step: float = STEP
) -> PatchGrid:
    """Give a full lattice on a slide of its own size."""
    lattice = np.stack(np.divmod(np.arange(rows * columns), columns), axis=1)
    described: dict[str, Any] = {
        "patch_size": round(step),
        "mpp": MPP,
        "patch_size_level0": (step, step),
        "origin": (0.0, 0.0),
        "shape": (rows, columns),
        "slide": {
            "name": f"slide {slide}",
            "fingerprint": slide,
            "size": [round(columns * step), round(rows * step)],
            "mpp": [MPP, MPP],
        },
    }
    xy = np.rint(lattice[:, ::-1] * step)
    return PatchGrid.from_description(described, xy, lattice)


def true_classes(grid: PatchGrid) -> NDArray[np.int64]:
    """Give stripes of five columns: tumour, stroma, fat."""
    return np.asarray(grid.lattice[:, 1] // 5 % 3, np.int64)


def make_features(
    slide: str = "s1", noise: float = 0.3, dim: int = 16, seed: int = 0, **grid: Any
) -> FeatureSet:
    """Give features that scatter around one centre per class."""
    patches = make_grid(slide, **grid)
    centres = np.random.default_rng(7).normal(size=(3, dim))
    rng = np.random.default_rng((seed, sum(slide.encode())))
    values = centres[true_classes(patches)]
    values = values + noise * rng.normal(size=values.shape)
    return FeatureSet(
        values.astype(np.float32),
        patches,
        np.zeros(len(patches), np.uint8),
        {
            "fingerprint": "e" * 16,
            "spec": "made up",
            "dim": dim,
            "precision": "float32",
        },
    )


def label_rows(
    features: FeatureSet, rows: NDArray[np.int64], before: LabelSet | None = None
) -> LabelSet:
    """Label patches of a slide with their true classes."""
    truth = true_classes(features.grid)
    found = (before or LabelSet()).with_names(NAMES)
    for number, name in enumerate(NAMES):
        own = rows[truth[rows] == number]
        found = found.with_labels(labels_of_rows(features.grid, own, name, "ada"))
    return found
