"""raw2features: ``<slide>.embeddings.zarr``; read only.

The format is that of ``core/store.py``, ``sinks/zarr_sink.py`` and the JSON Schema of
raw2features 0.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError, McmError
from napari_mcm.core.features.format import LARGEST_FILE
from napari_mcm.core.features.interchange.containers import number
from napari_mcm.core.features.interchange.record import ForeignFeatures

_HEADER = "raw2features"
# A list of safe ones, as one of zarr's codecs unpickles what it decodes.
_CODECS = {
    "blosc",
    "bytes",
    "bz2",
    "crc32c",
    "gzip",
    "lz4",
    "sharding_indexed",
    "shuffle",
    "transpose",
    "zlib",
    "zstd",
}


def is_one(path: Path) -> bool:
    """Return whether a folder is a store of raw2features.

    Parameters
    ----------
    path : Path
        The folder.

    Returns
    -------
    bool
        By its attribute ``raw2features``.
    """
    try:
        return _HEADER in zarr.open_group(path, mode="r").attrs
    # zarr raises many kinds of errors for a folder that is not a group.
    except Exception:  # noqa: BLE001
        return False


def read(
    path: Path, encoder: str | None = None, coords: Path | None = None
) -> ForeignFeatures:
    """Read one model's features, from the grid that has them.

    Parameters
    ----------
    path : Path
        The store.
    encoder : str, optional
        Name of the model, ``MODEL`` or ``GRID/MODEL``; required where there are several.
    coords : Path, optional
        Not used.

    Returns
    -------
    ForeignFeatures
        The features of this model.

    Raises
    ------
    FeatureError
        If it is damaged, or the model has to be chosen.
    """
    try:
        return _read(zarr.open_group(path, mode="r"), path, encoder)
    except McmError as error:
        raise FeatureError(error.what, error.where or path, error.hint) from error
    # zarr and codecs raise many kinds of errors for damaged files.
    except Exception as error:  # noqa: BLE001
        raise FeatureError(f"is damaged ({error})", path) from error


def _read(root: zarr.Group, path: Path, encoder: str | None) -> ForeignFeatures:
    group, model = _choose(root, encoder)
    header: Any = group.attrs.get(_HEADER, {})
    source, patching = dict(header.get("source", {})), dict(header.get("patching", {}))
    features = _matrix(group, f"features/{model}", "f")
    xy = _matrix(group, "coords", "iu")
    if xy.shape[1] != 2:
        raise FeatureError(f"coords has {xy.shape[1]} columns instead of 2")
    patch_px = number(patching, "patch_px")
    return ForeignFeatures(
        kind="raw2features",
        features=features.astype(np.float32, copy=False),
        xy=xy.astype(np.float64),
        name=str(source.get("slide_id") or path.name.split(".")[0]),
        encoder=model,
        size=number(patching, "level0_patch"),
        patch_px=round(patch_px) if patch_px else None,
        mpp=_mpp(source),
        slide_size=_slide_size(source),
        precision=str(features.dtype),
    )


def _choose(root: zarr.Group, wanted: str | None) -> tuple[zarr.Group, str]:
    """Find the grid and the model: the only one, or the chosen one.

    Raises
    ------
    FeatureError
        If none or several match.
    """
    grids: Any = root["grids"]
    matches = [
        (grids[key], model)
        for key in sorted(grids.keys())
        for model in sorted(grids[key]["features"].keys())
        if wanted in (None, model, f"{key}/{model}")
    ]
    if len(matches) != 1:
        names = ", ".join(f"{group.basename}/{model}" for group, model in matches[:20])
        raise FeatureError(
            f"holds {len(matches)} matching sets of features",
            hint=f"Choose one with --encoder: {names}" if matches else "",
        )
    return matches[0]


def _matrix(group: zarr.Group, name: str, kinds: str) -> NDArray[Any]:
    array: Any = group[name]
    if array.ndim != 2 or array.dtype.kind not in kinds:
        raise FeatureError(f"{name} is {array.dtype} of shape {array.shape}")
    unsafe = set(_codecs(array.metadata.to_dict())) - _CODECS
    if unsafe:
        raise FeatureError(
            f"{name} is stored with codecs that are not read: "
            f"{', '.join(sorted(unsafe))}"
        )
    # Checked by the metadata, before any memory is allocated.
    if array.nbytes > LARGEST_FILE:
        raise FeatureError(f"{name} claims to be larger than any slide's features")
    # zarr would read missing chunks as fill values.
    if array.nchunks_initialized < array.nchunks:
        missing = array.nchunks - array.nchunks_initialized
        raise FeatureError(f"{missing} chunk(s) of {name} are missing")
    return np.asarray(array[:])


def _codecs(described: Mapping[str, Any]) -> Iterator[str]:
    """List every codec of an array, including those inside shards."""
    for key in ("codecs", "index_codecs", "filters", "compressor"):
        listed = described.get(key) or ()
        for codec in [listed] if isinstance(listed, Mapping) else listed:
            yield str(codec.get("name") or codec.get("id"))
            yield from _codecs(codec.get("configuration") or {})


def _mpp(source: Mapping[str, Any]) -> tuple[float, float] | None:
    scale = source.get("scale_um") or {}
    both = number(source, "mpp_level0")
    x, y = number(scale, "x") or both, number(scale, "y") or both
    return (x, y) if x and y else None


def _slide_size(source: Mapping[str, Any]) -> tuple[int, int] | None:
    try:
        width, height = source["level_dimensions"][0]
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return int(width), int(height)
