"""A slide of 6x4 patches whose features are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_mcm.core.features.feature_set import FeatureSet, Status
from napari_mcm.core.grid import GridConfig, PatchGrid, make_grid
from napari_mcm.core.slides import Slide, open_slide
from napari_mcm.core.tissue import TissueMask

PATCH = 32


@pytest.fixture
def slide(tmp_path: Path) -> Slide:
    """Give a pink slide of 192 x 128 px at 0.5 µm, with its left half darker."""
    pixels = np.full((128, 192, 3), (230, 170, 200), np.uint8)
    pixels[:, :96] = (120, 80, 150)
    path = tmp_path / "pink.ome.tif"
    metadata = {
        "PhysicalSizeX": 0.5,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "µm",
    }
    tifffile.imwrite(
        path, pixels, tile=(64, 64), photometric="rgb", metadata=metadata, ome=True
    )
    return open_slide(path)


@pytest.fixture
def tissue() -> TissueMask:
    """Give tissue everywhere but in the first row of patches."""
    mask = np.ones((16, 24), bool)
    mask[:4] = False
    return TissueMask(mask, (8.0, 8.0))


@pytest.fixture
def grid(slide: Slide, tissue: TissueMask) -> PatchGrid:
    """Give the patches of rows 1 to 3."""
    return make_grid(slide, tissue, GridConfig(mpp=0.5, patch_size=PATCH))


@pytest.fixture
def features(grid: PatchGrid) -> FeatureSet:
    """Give two dimensions that turn with the column; one patch could not be read."""
    angle = grid.lattice[:, 1] * np.pi / 5
    length = 1.0 + np.arange(len(grid))
    values = np.stack([np.cos(angle), np.sin(angle)], axis=1) * length[:, None]
    values = values.astype(np.float32)
    status = np.zeros(len(grid), np.uint8)
    status[7], values[7] = Status.DECODE_ERROR, np.nan
    return FeatureSet(values, grid, status, {"fingerprint": "0" * 16})
