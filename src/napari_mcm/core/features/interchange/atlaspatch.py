"""AtlasPatch: several encoders in one file, coordinates of five columns; read only.

The format is that of ``atlas_patch/services/storage.py`` and
``atlas_patch/utils/feature_h5.py`` of AtlasAnalyticsLab/AtlasPatch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.interchange.containers import (
    has,
    matrix,
    number,
    open_h5,
    pair,
)
from napari_mcm.core.features.interchange.record import ForeignFeatures

if TYPE_CHECKING:
    import h5py


def is_one(file: h5py.File) -> bool:
    """Return whether a file is AtlasPatch's.

    Parameters
    ----------
    file : h5py.File
        Open for reading.

    Returns
    -------
    bool
        True where ``features`` is a group and there are coordinates.
    """
    import h5py

    group = file.get("features", getlink=False)
    return isinstance(group, h5py.Group) and has(file, "coords")


def read(
    path: Path, encoder: str | None = None, coords: Path | None = None
) -> ForeignFeatures:
    """Read one encoder's features from ``patches/<slide>.h5``.

    Parameters
    ----------
    path : Path
        The file.
    encoder : str, optional
        Name of the encoder; required where there are several.
    coords : Path, optional
        Not used.

    Returns
    -------
    ForeignFeatures
        The features of this encoder.

    Raises
    ------
    FeatureError
        If there are several encoders and none was chosen, or not this one.
    """
    with open_h5(path) as file:
        encoder = _choose(sorted(file["features"]), encoder)
        features = matrix(file, f"features/{encoder}", "f")
        # Columns: x, y, width, height, level.
        xy = matrix(file, "coords", "iu", columns=5)[:, :2]
        stated: dict[str, Any] = {**dict(file["coords"].attrs), **dict(file.attrs)}
    patch_px = number(stated, "patch_size")
    slide_size = pair(stated, "level0_width", "level0_height")
    return ForeignFeatures(
        kind="atlaspatch",
        features=features.astype(np.float32, copy=False),
        xy=xy.astype(np.float64),
        name=path.stem,
        encoder=encoder,
        size=number(stated, "patch_size_level0"),
        patch_px=round(patch_px) if patch_px else None,
        magnification=number(stated, "level0_magnification"),
        slide_size=slide_size and (int(slide_size[0]), int(slide_size[1])),
        precision=str(features.dtype),
    )


def _choose(names: list[str], wanted: str | None) -> str:
    listed = ", ".join(names[:20])
    if wanted is not None and wanted not in names:
        raise FeatureError(f"has no features of {wanted}", hint=f"It has: {listed}")
    if wanted is not None:
        return wanted
    # Taking the first of several would give plausible features of the wrong encoder.
    if len(names) != 1:
        raise FeatureError(
            f"holds features of {len(names)} encoders",
            hint=f"Choose one with --encoder: {listed}" if names else "",
        )
    return names[0]
