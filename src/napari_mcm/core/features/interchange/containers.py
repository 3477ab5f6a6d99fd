"""Safe reading of HDF5 files and tensors of other tools, and writing that reads fast."""

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

# Most bytes of an array per byte of its file, and what is allowed in any file.
_DENSEST, _SMALL = 200, 2**26


@contextmanager
def open_h5(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading; errors inside the block name the file.

    Parameters
    ----------
    path : Path
        The file.

    Yields
    ------
    h5py.File
        Open for reading.

    Raises
    ------
    FeatureError
        If it is missing, not HDF5, or damaged.
    """
    import h5py

    if not path.is_file():
        raise FeatureError("no such file", path)
    try:
        # Network file systems without locks would otherwise refuse to open it.
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except McmError as error:
        raise FeatureError(error.what, error.where or path, error.hint) from error
    # h5py raises many kinds of errors for damaged files.
    except Exception as error:  # noqa: BLE001
        raise FeatureError(f"is damaged, or not HDF5 ({error})", path) from error


def inside(file: h5py.Group, name: str) -> Any:
    """Find a group or array in the file itself, following no links to other files.

    Parameters
    ----------
    file : h5py.Group
        Open for reading.
    name : str
        Its path, with slashes.

    Returns
    -------
    h5py.Group or h5py.Dataset or None
        None where there is none, or a link leads elsewhere.
    """
    import h5py

    node: Any = file
    for part in name.split("/"):
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if not isinstance(link, h5py.HardLink):
            return None
        node = node[part]
    return node


def has(file: h5py.Group, name: str) -> bool:
    """Return whether the file itself has an array of this name.

    Parameters
    ----------
    file : h5py.Group
        Open for reading.
    name : str
        Its path, with slashes.

    Returns
    -------
    bool
        False for groups and for links to other files.
    """
    import h5py

    return isinstance(inside(file, name), h5py.Dataset)


def matrix(
    file: h5py.Group, name: str, kinds: str, columns: int | None = None
) -> NDArray[Any]:
    """Read an array of two dimensions, or of three of which the first is one.

    Parameters
    ----------
    file : h5py.Group
        Open for reading.
    name : str
        Its path, with slashes.
    kinds : str
        Accepted types: letters of :attr:`numpy.dtype.kind`.
    columns : int, optional
        The number of columns that it must have.

    Returns
    -------
    ndarray, shape (N, columns)
        In the file's own type.

    Raises
    ------
    FeatureError
        If it is missing, of another shape or type, claims more data than the file can
        hold, or lies in another file.
    """
    dataset = _own_dataset(file, name)
    shape = dataset.shape
    # Older versions of CLAM write (1, N, D).
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 2 or dataset.dtype.kind not in kinds:
        raise FeatureError(f"{name} is {dataset.dtype} of shape {dataset.shape}")
    if columns is not None and shape[1] != columns:
        raise FeatureError(f"{name} has {shape[1]} columns instead of {columns}")
    values: NDArray[Any] = dataset[()]
    return values.reshape(shape)


def vector(file: h5py.Group, name: str, kinds: str) -> NDArray[Any]:
    """Read an array of one dimension; see :func:`matrix`.

    Parameters
    ----------
    file : h5py.Group
        Open for reading.
    name : str
        Its path, with slashes.
    kinds : str
        Accepted types: letters of :attr:`numpy.dtype.kind`.

    Returns
    -------
    ndarray, shape (N,)
        In the file's own type.

    Raises
    ------
    FeatureError
        As for :func:`matrix`.
    """
    dataset = _own_dataset(file, name)
    if len(dataset.shape) != 1 or dataset.dtype.kind not in kinds:
        raise FeatureError(f"{name} is {dataset.dtype} of shape {dataset.shape}")
    values: NDArray[Any] = dataset[()]
    return values


def number(attributes: Mapping[str, Any], *names: str) -> float | None:
    """Return the first of several attributes that is a finite positive number.

    Parameters
    ----------
    attributes : mapping
        Attributes of a file.
    *names : str
        Their names, in order of preference.

    Returns
    -------
    float or None
        None where there is none.
    """
    for name in names:
        try:
            value = float(attributes[name])
        except (KeyError, TypeError, ValueError):
            continue
        if np.isfinite(value) and value > 0:
            return value
    return None


def pair(attributes: Mapping[str, Any], first: str, second: str) -> Any:
    """Return two attributes if both are positive numbers.

    Parameters
    ----------
    attributes : mapping
        Attributes of a file.
    first, second : str
        Their names.

    Returns
    -------
    tuple of float or None
        None where one is missing.
    """
    values = number(attributes, first), number(attributes, second)
    return None if None in values else values


def text(attributes: Mapping[str, Any], name: str, default: str = "") -> str:
    """Return an attribute as text.

    TRIDENT stores ``"None"`` for missing values, which counts as missing.

    Parameters
    ----------
    attributes : mapping
        Attributes of a file.
    name : str
        Its name.
    default : str, optional
        The value where it is missing or empty.

    Returns
    -------
    str
        Decoded from UTF-8.
    """
    value = attributes.get(name, default)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    given = isinstance(value, str) and value not in ("", "None")
    return value if given else default


@contextmanager
def new_h5(path: Path) -> Iterator[h5py.File]:
    """Create a file that appears under its name when it is complete.

    Parameters
    ----------
    path : Path
        The file.

    Yields
    ------
    h5py.File
        Open for writing.
    """
    import h5py

    with atomic_path(path) as part, h5py.File(part, "w") as file:
        yield file


def put(
    file: h5py.File,
    name: str,
    values: NDArray[Any],
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write an array in chunks of thousands of rows, to which rows can be appended.

    Parameters
    ----------
    file : h5py.File
        Open for writing.
    name : str
        Name of the array.
    values : ndarray, shape (N, D)
        Its content.
    attributes : mapping, optional
        Its attributes.
    """
    dataset = file.create_dataset(
        name,
        data=values,
        maxshape=(None, values.shape[1]),
        # One chunk per row, as some tools write, takes thirty times as long to read.
        chunks=(min(max(len(values), 1), CHUNK_ROWS), max(values.shape[1], 1)),
    )
    dataset.attrs.update(attributes or {})


def _own_dataset(file: h5py.Group, name: str) -> h5py.Dataset:
    """Find an array that lies in this file and is no larger than the file can hold.

    Raises
    ------
    FeatureError
        If there is none.
    """
    import h5py

    dataset = inside(file, name)
    if not isinstance(dataset, h5py.Dataset):
        raise FeatureError(f"holds no array {name}")
    if dataset.is_virtual or dataset.external:
        raise FeatureError(f"{name} lies in another file, which is not opened")
    _check_size(name, int(dataset.nbytes), Path(file.file.filename))
    return dataset


def _check_size(name: str, claimed: int, path: Path) -> None:
    """Refuse arrays that expand from a few bytes, before memory is allocated.

    Raises
    ------
    FeatureError
        If the array is too large for the file.
    """
    actual = path.stat().st_size
    if claimed > min(LARGEST_FILE, max(_SMALL, _DENSEST * actual)):
        raise FeatureError(
            f"{name} claims {claimed / 2**20:,.0f} MiB in a file of "
            f"{actual / 2**20:,.1f} MiB"
        )


def read_tensor(path: Path) -> NDArray[np.float32]:
    """Read a PyTorch file that holds one matrix, without unpickling objects.

    Parameters
    ----------
    path : Path
        ``.pt`` or ``.pth``, with a tensor of shape (N, D) or (1, N, D).

    Returns
    -------
    ndarray of float32, shape (N, D)
        The tensor.

    Raises
    ------
    FeatureError
        If it is missing, or holds anything but one such tensor.
    """
    import torch

    if not path.is_file():
        raise FeatureError("no such file", path)
    if path.stat().st_size > LARGEST_FILE:
        raise FeatureError("is larger than any slide's features", path)
    try:
        tensor: Any = torch.load(path, map_location="cpu", weights_only=True)
    # torch and pickle raise many kinds of errors for damaged or forbidden content.
    except Exception as error:  # noqa: BLE001
        reason = str(error).split(".")[0]
        raise FeatureError(f"is not a file of one tensor ({reason})", path) from error
    if not isinstance(tensor, torch.Tensor):
        raise FeatureError(f"holds a {type(tensor).__name__}, not a tensor", path)
    if tensor.ndim == 3 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim != 2 or not tensor.is_floating_point():
        raise FeatureError(f"is {tensor.dtype} of shape {tuple(tensor.shape)}", path)
    # A tensor can claim any shape over a few bytes, by strides of zero.
    if tensor.numel() > tensor.untyped_storage().nbytes():
        raise FeatureError("claims more numbers than it holds", path)
    return np.asarray(tensor.detach().float().numpy())


def write_tensor(values: NDArray[np.float32], path: Path) -> Path:
    """Write a matrix as a PyTorch file.

    Parameters
    ----------
    values : ndarray of float32, shape (N, D)
        The matrix.
    path : Path
        The file.

    Returns
    -------
    Path
        The file.
    """
    import torch

    with atomic_path(path) as part:
        torch.save(torch.from_numpy(np.ascontiguousarray(values)), part)
    return path
