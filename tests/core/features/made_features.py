"""Features that no slide and no encoder were needed for."""

from __future__ import annotations

import numpy as np

from napari_mcm.core.features import FeatureSet, Status
from napari_mcm.core.features.patches import MEASURES
from napari_mcm.core.grid import PatchGrid

SIDE = 64


def made_grid(rows: int = 10, columns: int = 8, fingerprint: str = "5" * 16):
    """Lay patches over a slide that is a little larger than they are."""
    lattice = np.indices((rows, columns)).reshape(2, -1).T.astype(np.int32)
    slide = {
        "name": "a",
        "fingerprint": fingerprint,
        "size": [columns * SIDE + 5, rows * SIDE + 7],
        "mpp": [0.5, 0.5],
    }
    xy = lattice[:, ::-1].astype(np.int64) * SIDE
    side = (float(SIDE), float(SIDE))
    return PatchGrid(xy, lattice, SIDE, 0.5, side, (0.0, 0.0), (rows, columns), slide)


def made_features(dim: int = 5, **grid) -> FeatureSet:
    """Make features of which two patches have none."""
    laid = made_grid(**grid)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(len(laid), dim)).astype(np.float32)
    status = np.zeros(len(laid), np.uint8)
    status[3:4], status[17:18] = Status.BLANK, Status.DECODE_ERROR
    quality = {name: rng.random(len(laid)).astype(np.float32) for name in MEASURES}
    for values in (features, *quality.values()):
        values[status != Status.OK] = np.nan
    encoder = {"spec": "none", "fingerprint": "e" * 16, "precision": "float32"}
    encoder |= {"dim": dim}
    provenance = {"software": "test"}
    return FeatureSet(features, laid, status, encoder, provenance, quality)
