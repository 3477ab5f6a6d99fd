"""Reading a feature file, with all checks before its content is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import FeatureSet, Status
from napari_mcm.core.features.format import (
    ARRAYS,
    LARGEST_FILE,
    SCHEMA,
    VERSION,
    Array,
    damaged,
    open_group,
    present,
)
from napari_mcm.core.features.patches import MEASURES
from napari_mcm.core.grid import PatchGrid


def read_features(path: str | Path) -> FeatureSet:
    """Read a complete feature file into memory.

    Parameters
    ----------
    path : str or Path
        ``<slide>.features.zarr``.

    Returns
    -------
    FeatureSet
        Features of all patches of the slide.

    Raises
    ------
    FeatureError
        If it is missing, incomplete, damaged, or not a feature file.
    """
    path = Path(path)
    group, attributes = open_complete(path)
    try:
        arrays = {name: read_array(group, name) for name in present(group)}
        return assemble(attributes, arrays, arrays["features"])
    # zarr and codecs raise many kinds of errors for damaged files.
    except Exception as error:  # noqa: BLE001
        problem = damaged(path, getattr(error, "what", error))
        raise problem from error


def open_complete(
    path: Path, only_required: bool = False
) -> tuple[zarr.Group, dict[str, Any]]:
    """Open a feature file and check all that is known without reading its arrays.

    Parameters
    ----------
    path : Path
        ``<slide>.features.zarr``.
    only_required : bool, optional
        Whether the arrays that a file may lack are left alone.

    Returns
    -------
    group : zarr.Group
        Open for reading; no chunk of its arrays is missing.
    attributes : dict
        Its attributes, of a complete file.

    Raises
    ------
    FeatureError
        If it is missing, incomplete, damaged, or not a feature file.
    """
    if not path.exists():
        raise FeatureError("no such feature file", path)
    group = open_group(path, "r")
    attributes: dict[str, Any] = dict(group.attrs)
    _check_attributes(path, attributes)
    try:
        _check_arrays(group, ARRAYS if only_required else present(group))
    except Exception as error:  # noqa: BLE001
        problem = damaged(path, getattr(error, "what", error))
        raise problem from error
    return group, attributes


def read_array(group: zarr.Group, name: str) -> Any:
    """Read an array of a feature file.

    Parameters
    ----------
    group : zarr.Group
        From :func:`open_complete`.
    name : str
        Name of the array.

    Returns
    -------
    ndarray
        All of it.

    Raises
    ------
    ValueError
        If a chunk is damaged.
    """
    array: Any = group[name]
    try:
        return array[:]
    # zarr and codecs raise many kinds of errors for a damaged chunk.
    except Exception as error:  # noqa: BLE001
        raise ValueError(f"{name}: {error}") from error


def assemble(
    attributes: Mapping[str, Any], arrays: Mapping[str, Any], features: NDArray[Any]
) -> FeatureSet:
    """Build the feature set of a file's attributes and arrays.

    Parameters
    ----------
    attributes : mapping
        From :func:`open_complete`.
    arrays : mapping of str to ndarray
        Coordinates, lattice and status, and what else there is.
    features : ndarray, shape (N, D)
        The features.

    Returns
    -------
    FeatureSet
        With features as float32.

    Raises
    ------
    ValueError
        If a row was never written, or a measure is out of range.
    FeatureError
        If the arrays do not match.
    """
    if (arrays["status"] == Status.PENDING).any():
        raise FeatureError("rows are missing")
    grid = PatchGrid.from_description(
        attributes["grid"], arrays["coords"], arrays["lattice"]
    )
    return FeatureSet(
        np.asarray(features, np.float32),
        grid,
        np.asarray(arrays["status"], np.uint8),
        dict(attributes["encoder"]),
        {
            **dict(attributes["provenance"]),
            "problems": list(attributes.get("problems", [])),
        },
        _quality(arrays),
    )


def _check_attributes(path: Path, attributes: Mapping[str, Any]) -> None:
    if attributes.get("schema") != SCHEMA:
        raise FeatureError("is not a feature file of napari-mcm", path)
    if attributes.get("version") != VERSION:
        raise FeatureError(
            f"has version {attributes.get('version')}, this program reads {VERSION}",
            path,
            "Update napari-mcm",
        )
    if attributes.get("complete") is not True:
        raise FeatureError(
            "is not complete", path, "Run the same extraction again to resume it"
        )


def _check_arrays(group: zarr.Group, kinds: Mapping[str, Array]) -> None:
    """Check types, shapes and sizes before anything is read into memory.

    Raises
    ------
    ValueError
        If they do not fit the format.
    """
    arrays: dict[str, Any] = {name: group[name] for name in kinds}
    for name, kind in kinds.items():
        array = arrays[name]
        # By kind, not exact type: float16 features are read as well.
        letter = np.dtype(kind.dtype).kind
        if array.ndim != len(kind.dims) or array.dtype.kind != letter:
            raise ValueError(f"{name} is {array.dtype} with {array.ndim} dimensions")
    lengths = {name: int(array.shape[0]) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"arrays differ in length: {lengths}")
    if sum(int(array.nbytes) for array in arrays.values()) > LARGEST_FILE:
        raise ValueError("claims to be larger than any slide's features")
    for name, array in arrays.items():
        # zarr would read missing chunks as fill values.
        missing = int(array.nchunks) - int(array.nchunks_initialized)
        if lengths[name] and missing > 0:
            raise ValueError(f"{missing} chunk(s) of {name} are missing")


def _quality(arrays: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    unknown = np.full(len(arrays["status"]), np.nan, np.float32)
    quality = {n: np.asarray(arrays.get(n, unknown), np.float32) for n in MEASURES}
    for name, values in quality.items():
        if ((values < 0) | (values > 1)).any():
            raise ValueError(f"{name} is not from 0 to 1")
    return quality
