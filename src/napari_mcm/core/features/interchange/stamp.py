"""STAMP: coordinates in microns, features in half precision, attributes of the file.

The format is that of ``src/stamp/preprocessing``, and of ``get_coords`` in
``src/stamp/modeling/data.py``, of KatherLab/STAMP, version 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.interchange.containers import (
    has,
    matrix,
    new_h5,
    number,
    open_h5,
    put,
    text,
)
from napari_mcm.core.features.interchange.record import (
    ForeignFeatures,
    Rows,
    stated_neighbourhood,
)

if TYPE_CHECKING:
    import h5py

_VERSION = "2.1.0"
"""The first version with these attributes; STAMP refuses files newer than itself."""


def is_one(file: h5py.File) -> bool:
    """Return whether a file is STAMP's.

    Parameters
    ----------
    file : h5py.File
        Open for reading.

    Returns
    -------
    bool
        True where it has ``feats`` and ``coords``.
    """
    return has(file, "feats") and has(file, "coords")


def read(
    path: Path, encoder: str | None = None, coords: Path | None = None
) -> ForeignFeatures:
    """Read ``<extractor>/<slide>.h5`` of STAMP 2.

    Parameters
    ----------
    path : Path
        The file.
    encoder : str, optional
        Name of the encoder; by default as in the file.
    coords : Path, optional
        Not used.

    Returns
    -------
    ForeignFeatures
        With positions in microns.

    Raises
    ------
    FeatureError
        If it is of STAMP 1, which does not state the unit of its coordinates.
    """
    with open_h5(path) as file:
        features = matrix(file, "feats", "f")
        xy = matrix(file, "coords", "iuf", columns=2)
        stated: dict[str, Any] = dict(file.attrs)
    old = number(stated, "tile_size") if text(stated, "unit") == "um" else None
    size = number(stated, "tile_size_um") or old
    if size is None:
        raise FeatureError(
            "does not state its tiles' size in µm, as STAMP does since version 2",
            path,
            "Extract the features again with STAMP 2",
        )
    patch_px = number(stated, "tile_size_px")
    return ForeignFeatures(
        kind="stamp",
        features=features.astype(np.float32, copy=False),
        xy=xy.astype(np.float64),
        name=path.stem,
        encoder=encoder or text(stated, "extractor", "unknown"),
        unit="um",
        size=size,
        patch_px=round(patch_px) if patch_px else None,
        precision=str(features.dtype),
        neighbourhood=stated_neighbourhood(stated),
    )


def write(rows: Rows, path: Path) -> list[Path]:
    """Write a file of STAMP 2.

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

    Raises
    ------
    FeatureError
        If a feature exceeds half precision.
    """
    # Values beyond float16 become infinite, which is checked below.
    with np.errstate(over="ignore"):
        half = rows.features.astype(np.float16)
    if not np.isfinite(half).all():
        raise FeatureError(
            "features are too large for half precision, which STAMP stores",
            path,
            "Write another format",
        )
    mpp = np.asarray(rows.slide["mpp"])
    with new_h5(path) as file:
        # Level-0 pixels to µm, in which STAMP counts.
        put(file, "coords", (rows.xy * mpp).astype(np.float32))
        put(file, "feats", half)
        file.attrs.update(
            {
                "stamp_version": _VERSION,
                "extractor": rows.encoder,
                "unit": "um",
                "tile_size_um": float(rows.size[0] * mpp[0]),
                "tile_size_px": rows.patch_px,
                "code_hash": "napari-mcm",
                "feat_type": "tile",
                **rows.context,
            }
        )
    return [path]
