"""AnnData ``.h5ad``: patches as observations, laid out as in wsidata and squidpy.

The layout is that of wsidata's ``add_features`` and ``add_tiles`` (``obs.tile_id``,
``obs.library_id``, the tile specification), with the centres of patches in
``obsm["spatial"]`` as in scverse. Reading needs h5py only; writing needs the extra
``anndata``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.interchange.containers import (
    has,
    inside,
    matrix,
    number,
    open_h5,
    text,
    vector,
)
from napari_mcm.core.features.interchange.record import (
    ForeignFeatures,
    Rows,
    stated_neighbourhood,
)
from napari_mcm.core.runtime.files import atomic_path

if TYPE_CHECKING:
    import h5py

TILES = "tiles"
"""Name of the region: wsidata's key of the tiles."""

_ABOUT = "uns/napari_mcm"


def is_one(file: h5py.File) -> bool:
    """Return whether a file is an AnnData.

    Parameters
    ----------
    file : h5py.File
        Open for reading.

    Returns
    -------
    bool
        By the attribute ``encoding-type``.
    """
    return text(file.attrs, "encoding-type") == "anndata"


def read(
    path: Path, encoder: str | None = None, coords: Path | None = None
) -> ForeignFeatures:
    """Read the features and positions of an AnnData file.

    Upper left corners are ``obs.x`` and ``obs.y`` where these exist; otherwise
    ``obsm["spatial"]`` gives the centres.

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
        From ``X``.

    Raises
    ------
    FeatureError
        If ``X`` is sparse, or there are no positions.
    """
    with open_h5(path) as file:
        if not has(file, "X"):
            raise FeatureError("its X is not a dense matrix")
        features = matrix(file, "X", "f")
        values = _scalars(file)
        xy, centred = _positions(file)
    patch_px = number(values, "patch_size")
    mpp_x, mpp_y = number(values, "level0_mpp_x"), number(values, "level0_mpp_y")
    width, height = number(values, "level0_width"), number(values, "level0_height")
    return ForeignFeatures(
        kind="anndata",
        features=features.astype(np.float32, copy=False),
        xy=xy,
        name=text(values, "name", path.stem),
        encoder=encoder or text(values, "encoder", "unknown"),
        centred=centred,
        size=number(values, "patch_size_level0"),
        patch_px=round(patch_px) if patch_px else None,
        mpp=(mpp_x, mpp_y) if mpp_x and mpp_y else None,
        slide_size=(int(width), int(height)) if width and height else None,
        precision=str(features.dtype),
        slide_fingerprint=text(values, "slide_fingerprint"),
        neighbourhood=stated_neighbourhood(values),
    )


def write(rows: Rows, path: Path) -> list[Path]:
    """Write an AnnData file.

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
        If the package anndata is not installed.
    """
    try:
        from anndata import AnnData
    except ImportError:
        raise FeatureError(
            "needs the package anndata to be written",
            path,
            'Install it with: pip install "napari-mcm[anndata]"',
        ) from None
    data = AnnData(
        X=np.ascontiguousarray(rows.features, np.float32),
        obs=_observations(rows),
        var=_variables(rows),
        # squidpy draws spots around this point, so it is a patch's centre.
        obsm={"spatial": rows.xy + np.asarray(rows.size) / 2},
        uns=_unstructured(rows),
    )
    with atomic_path(path) as part:
        data.write_h5ad(part)
    return [path]


def _observations(rows: Rows) -> Any:
    import pandas as pd

    count = len(rows.xy)
    columns: dict[str, Any] = {
        "tile_id": np.arange(count),
        "library_id": pd.Categorical([TILES] * count, categories=_names([TILES])),
        "x": rows.xy[:, 0],
        "y": rows.xy[:, 1],
        "array_row": rows.lattice[:, 0],
        "array_col": rows.lattice[:, 1],
        **rows.quality,
    }
    return pd.DataFrame(columns, index=_names(range(count)))


def _variables(rows: Rows) -> Any:
    import pandas as pd

    return pd.DataFrame(index=_names(range(rows.features.shape[1])))


def _names(values: Iterable[Any]) -> Any:
    """Return an index of plain text: older anndata cannot write that of pandas 3."""
    import pandas as pd

    return pd.Index([str(value) for value in values], dtype=object)


def _unstructured(rows: Rows) -> dict[str, Any]:
    stride = rows.patch_px - rows.overlap_px
    mpp = rows.slide["mpp"]
    return {
        "spatialdata_attrs": {
            "region": TILES,
            "region_key": "library_id",
            "instance_key": "tile_id",
        },
        "tile_spec": {
            "height": rows.patch_px,
            "width": rows.patch_px,
            "stride_height": stride,
            "stride_width": stride,
            "mpp": float(rows.mpp),
            "ops_level": 0,
            "ops_downsample": float(rows.size[0] / rows.patch_px),
            "base_level": 0,
            # As if shrunk from level 0, whichever level the patches were read from.
            "base_downsample": float(rows.size[0] / rows.patch_px),
        },
        "napari_mcm": {
            "encoder": rows.encoder,
            "name": rows.slide["name"],
            "slide_fingerprint": rows.slide["fingerprint"],
            "patch_size": rows.patch_px,
            "patch_size_level0": rows.size[0],
            "level0_mpp_x": float(mpp[0]),
            "level0_mpp_y": float(mpp[1]),
            "level0_width": int(rows.slide["size"][0]),
            "level0_height": int(rows.slide["size"][1]),
            **rows.context,
        },
    }


def _positions(file: h5py.File) -> tuple[NDArray[np.float64], bool]:
    """Read corners or else centres (N, 2), and whether they are centres.

    Raises
    ------
    FeatureError
        If the file has neither.
    """
    if has(file, "obs/x") and has(file, "obs/y"):
        parts = [vector(file, f"obs/{axis}", "iuf") for axis in "xy"]
        if len(parts[0]) != len(parts[1]):
            raise FeatureError("has obs.x and obs.y of different lengths")
        return np.stack(parts, axis=1).astype(np.float64), False
    if not has(file, "obsm/spatial"):
        raise FeatureError("has neither obs.x and obs.y nor obsm['spatial']")
    return matrix(file, "obsm/spatial", "iuf", columns=2).astype(np.float64), True


def _scalars(file: h5py.File) -> dict[str, Any]:
    """Read our values about the patches, or else those of wsidata's specification."""
    # wsidata's specification lacks encoder, slide and µm per pixel: ours come first.
    own = _group(file, _ABOUT)
    if own:
        return own
    spec = _group(file, "uns/tile_spec")
    side, factor = number(spec, "width"), number(spec, "base_downsample")
    known = side is not None and factor is not None
    return {
        "patch_size": side,
        "patch_size_level0": side * factor if known and side and factor else None,
    }


def _group(file: h5py.File, name: str) -> dict[str, Any]:
    """Read the scalar values of a group."""
    import h5py

    group = inside(file, name)
    if not isinstance(group, h5py.Group):
        return {}
    members = {key: inside(group, key) for key in group}
    return {
        key: value[()]
        for key, value in members.items()
        if isinstance(value, h5py.Dataset) and value.shape == ()
    }
