"""HDF5 files from elsewhere, read with care; and written so that they read fast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError, McmError
from napari_mcm.core.features.format import LARGEST_FILE
from napari_mcm.core.runtime.files import atomic_path

if TYPE_CHECKING:
    import h5py


CHUNK_ROWS = 4096

_DENSEST, _SMALL = 200, 2**26


@contextmanager
def open_h5(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading; whatever goes wrong inside names the file.

    Raises
    ------
    FeatureError
        If it is missing, no HDF5, or damaged.
    """
    import h5py

    if not path.is_file():
        raise FeatureError("no such file", path)
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except McmError as error:
        raise FeatureError(error.what, error.where or path, error.hint) from error
    # h5py raises errors of many kinds for what is damaged.
    except Exception as error:  # noqa: BLE001
        raise FeatureError(f"is damaged, or no HDF5 file ({error})", path) from error


def inside(file: h5py.Group, name: str) -> Any:
    """Give a group or array of the file itself, None where a link leads elsewhere."""
    import h5py

    here: Any = file
    for part in name.split("/"):
        link = here.get(part, getlink=True) if isinstance(here, h5py.Group) else None
        if not isinstance(link, h5py.HardLink):
            return None
        here = here[part]
    return here


def has(file: h5py.Group, name: str) -> bool:
    """Tell whether there is an array of this name in the file itself."""
    import h5py

    return isinstance(inside(file, name), h5py.Dataset)


def matrix(
    file: h5py.Group, name: str, kinds: str, columns: int | None = None
) -> NDArray[Any]:
    """Read an array of two dimensions, or of three of which the first is one.

    Parameters
    ----------
    file : h5py.Group
        Open.
    name : str
        Of the array, with slashes where it lies in groups.
    kinds : str
        What its numbers may be: letters of :attr:`numpy.dtype.kind`.
    columns : int, optional
        How many columns it must have.

    Raises
    ------
    FeatureError
        If it is missing, of another shape or kind, claims more than the file can
        hold, or lies in another file.
    """
    dataset = _own_dataset(file, name)
    shape = dataset.shape
    # Files of older CLAM have it.
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 2 or dataset.dtype.kind not in kinds:
        raise FeatureError(f"{name} is {dataset.dtype} of shape {dataset.shape}")
    if columns is not None and shape[1] != columns:
        raise FeatureError(f"{name} has {shape[1]} columns instead of {columns}")
    values: NDArray[Any] = dataset[()]
    return values.reshape(shape)


def vector(file: h5py.Group, name: str, kinds: str) -> NDArray[Any]:
    """Read an array of one dimension; see :func:`matrix`."""
    dataset = _own_dataset(file, name)
    if len(dataset.shape) != 1 or dataset.dtype.kind not in kinds:
        raise FeatureError(f"{name} is {dataset.dtype} of shape {dataset.shape}")
    values: NDArray[Any] = dataset[()]
    return values


def number(attributes: Mapping[str, Any], *names: str) -> float | None:
    """Give the first of these attributes that is a finite positive number."""
    for name in names:
        try:
            value = float(attributes[name])
        except (KeyError, TypeError, ValueError):
            continue
        if np.isfinite(value) and value > 0:
            return value
    return None


def pair(attributes: Mapping[str, Any], first: str, second: str) -> Any:
    """Give two positive numbers, or None where one is missing."""
    values = number(attributes, first), number(attributes, second)
    return None if None in values else values


def text(attributes: Mapping[str, Any], name: str, default: str = "") -> str:
    """Give an attribute as text; TRIDENT stores what is missing as ``"None"``."""
    value = attributes.get(name, default)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    given = isinstance(value, str) and value not in ("", "None")
    return value if given else default


@contextmanager
def new_h5(path: Path) -> Iterator[h5py.File]:
    """Write a file that appears under its name when it is whole."""
    import h5py

    with atomic_path(path) as part, h5py.File(part, "w") as file:
        yield file


def put(
    file: h5py.File,
    name: str,
    values: NDArray[Any],
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write an array in chunks of thousands of rows, which can be appended to."""
    dataset = file.create_dataset(
        name,
        data=values,
        maxshape=(None, values.shape[1]),
        # A chunk a row, as some tools write, takes thirty times as long to read.
        chunks=(min(max(len(values), 1), CHUNK_ROWS), max(values.shape[1], 1)),
    )
    dataset.attrs.update(attributes or {})


def _own_dataset(file: h5py.Group, name: str) -> h5py.Dataset:
    """Find an array that lies in this very file and can be as large as it says."""
    import h5py

    found = inside(file, name)
    if not isinstance(found, h5py.Dataset):
        raise FeatureError(f"holds no array {name}")
    if found.is_virtual or found.external:
        raise FeatureError(f"{name} lies in another file, which is not opened")
    _check_size(name, int(found.nbytes), Path(file.file.filename))
    return found


def _check_size(name: str, claimed: int, path: Path) -> None:
    """Refuse what a few bytes blow up to, before memory is asked for."""
    there = path.stat().st_size
    if claimed > min(LARGEST_FILE, max(_SMALL, _DENSEST * there)):
        raise FeatureError(
            f"{name} claims {claimed / 2**20:,.0f} MiB in a file of "
            f"{there / 2**20:,.1f} MiB"
        )


def read_tensor(path: Path) -> NDArray[np.float32]:
    """Read a tensor of shape (N, D) or (1, N, D).

    Raises
    ------
    FeatureError
        If it is missing, holds anything but one such tensor, or code to be run.
    """
    import torch

    if not path.is_file():
        raise FeatureError("no such file", path)
    if path.stat().st_size > LARGEST_FILE:
        raise FeatureError("is larger than any slide's features", path)
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    # torch and pickle raise errors of many kinds for what is damaged or forbidden.
    except Exception as error:  # noqa: BLE001
        reason = str(error).split(".")[0]
        raise FeatureError(f"is no file of a bare tensor ({reason})", path) from error
    if not isinstance(found, torch.Tensor):
        raise FeatureError(f"holds a {type(found).__name__}, not a tensor", path)
    if found.ndim == 3 and found.shape[0] == 1:
        found = found[0]
    if found.ndim != 2 or not found.is_floating_point():
        raise FeatureError(f"is {found.dtype} of shape {tuple(found.shape)}", path)
    # A tensor can claim any shape over a few bytes, by strides of zero.
    if found.numel() > found.untyped_storage().nbytes():
        raise FeatureError("claims more numbers than it holds", path)
    return np.asarray(found.detach().float().numpy())


def write_tensor(values: NDArray[np.float32], path: Path) -> Path:
    """Write a bare tensor, as ``torch.load`` reads it."""
    import torch

    with atomic_path(path) as part:
        torch.save(torch.from_numpy(np.ascontiguousarray(values)), part)
    return path
