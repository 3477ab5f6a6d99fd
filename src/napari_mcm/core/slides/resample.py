"""Resampling by exact area averaging.

Each output pixel is the mean of the image over the rectangle that it covers, fractions
of source pixels included. Along each axis this is a product with a sparse matrix whose
entry (i, j) is the fraction of output pixel i that source pixel j covers, so

    result = A_rows @ image @ A_columns.T

The products run in compiled code, and neighbours in a row share the vertical one.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_mcm.core.slides.tiles import Pixels

if TYPE_CHECKING:
    from scipy.sparse import csr_array


Span = tuple[float, float]

Size = tuple[int, int]


_HAIR = 1e-6
"""Rounding error, in pixels, of floats that should be whole."""


def area_average(
    image: Pixels, box: tuple[float, float, float, float], size: tuple[int, int]
) -> Pixels:
    """Resample a part of an image by averaging over each output pixel's area.

    Fractions of source pixels count as fractions, so that no resolution, however odd its
    ratio, shifts, drops or duplicates pixels.

    Parameters
    ----------
    image : ndarray of uint8, shape (height, width, 3)
        Source pixels.
    box : tuple of float
        Left, top, right and bottom of the part, in source pixels.
    size : tuple of int
        Width and height of the result in pixels.

    Returns
    -------
    ndarray of uint8, shape (size[1], size[0], 3)
    """
    left, top, right, bottom = box
    return area_averages(image, (top, bottom), [(left, right)], size)[0]


def area_averages(
    image: Pixels, rows: Span, columns: Sequence[Span], size: tuple[int, int]
) -> list[Pixels]:
    """Resample several parts of an image that lie side by side.

    Parameters
    ----------
    image : ndarray of uint8, shape (height, width, 3)
        Source pixels.
    rows : tuple of float
        Top and bottom of all parts, in source pixels.
    columns : sequence of tuple of float
        Left and right of each part, in source pixels.
    size : tuple of int
        Width and height of each result in pixels.

    Returns
    -------
    list of ndarray of uint8, shape (size[1], size[0], 3)
        Each equals the result of :func:`area_average` bit for bit.
    """
    return [_area_average(image, rows, span, size) for span in columns]


def _area_average(image: Pixels, rows: Span, columns: Span, size: Size) -> Pixels:
    first = max(int(np.floor(columns[0] + _HAIR)), 0)
    last = max(int(np.ceil(columns[1] - _HAIR)), first + 1)
    part = image[:, first:last]
    height, width = part.shape[:2]
    flat = scratch.take("flat", (height, width, 3), np.float32)
    np.copyto(flat, part)
    # Rounded, so that neighbours share a matrix and agree bit for bit.
    low, high = (round(edge - first, 6) for edge in columns)
    down = weights(round(rows[0], 6), round(rows[1], 6), size[1], height, 1)
    # Along x, each weight is repeated for the three interleaved channels.
    across = weights(low, high, size[0], width, 3)
    shrunk = _product(down, flat.reshape(height, width * 3), 0.0, "shrunk")
    # Transposed, because the product runs along contiguous memory.
    turned = scratch.take("turned", shrunk.shape[::-1], np.float32)
    np.copyto(turned, shrunk.T)
    # Half a grey level, so that truncation rounds.
    result = _product(across, turned, 0.5, "result")
    whole = scratch.take("whole", result.shape, np.uint8)
    np.copyto(whole, result, casting="unsafe")
    return np.ascontiguousarray(whole.T).reshape(size[1], size[0], 3)


def _product(
    matrix: csr_array[Any], dense: NDArray[np.float32], start: float, name: str
) -> NDArray[np.float32]:
    """Multiply, and add to a constant, in memory that this thread reuses."""
    total = scratch.take(name, (matrix.shape[0], dense.shape[1]), np.float32)
    total.fill(start)
    try:
        from scipy.sparse._sparsetools import csr_matvecs
    except ImportError:  # scipy without this private function: the same, in new memory
        total += matrix @ dense
        return total
    csr_matvecs(
        *matrix.shape,
        dense.shape[1],
        matrix.indptr,
        matrix.indices,
        matrix.data,
        dense.ravel(),
        total.ravel(),
    )
    return total


@lru_cache(maxsize=256)
def weights(
    start: float, stop: float, count: int, length: int, channels: int
) -> csr_array[Any]:
    """Compute the fraction of each output pixel that each source pixel covers.

    Parameters
    ----------
    start, stop : float
        The part of the source that is resampled, in source pixels.
    count : int
        Number of output pixels in it.
    length : int
        Number of source pixels; positions beyond them repeat the last one.
    channels : int
        Interleaved values per pixel, which are not mixed.

    Returns
    -------
    csr_array of float32, shape (count * channels, length * channels)
        Rows sum to 1.
    """
    from scipy.sparse import csr_array

    edges = np.linspace(start, stop, count + 1)  # borders of output pixels
    low, high = edges[:-1, None], edges[1:, None]
    first = np.floor(low + _HAIR)
    taps = max(int((np.ceil(high - _HAIR) - first).max()), 1)
    places = first + np.arange(taps)
    covered = np.minimum(high, places + 1) - np.maximum(low, places)
    parts = np.clip(covered, 0, None) / (high - low)  # (count, taps)
    channel = np.arange(channels)[:, None]
    # All rows have as many taps: those beyond the image weigh 0.
    index = np.clip(places, 0, length - 1)[:, None] * channels + channel
    shape = (count * channels, length * channels)
    return csr_array(
        (
            np.repeat(parts[:, None], channels, axis=1).astype(np.float32).ravel(),
            index.astype(np.int32).ravel(),
            np.arange(shape[0] + 1, dtype=np.int32) * taps,
        ),
        shape=shape,
    )


# Larger buffers are rare, and would stay allocated in every thread.
_LARGEST = 2**24


class Scratch(threading.local):
    """Reusable buffers, separate for each thread; the next use overwrites their content."""

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[Any]] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array with undefined content.

        Parameters
        ----------
        name : str
            Purpose of the buffer; arrays in use at the same time need different
            names.
        shape : tuple of int
            Shape of the array.
        dtype : dtype
            Type of its elements.

        Returns
        -------
        ndarray, shape `shape`
            Arrays of more than 16 MiB are allocated each time, and not kept.
        """
        dtype = np.dtype(dtype)
        length = math.prod(shape) * dtype.itemsize
        if length > _LARGEST:
            return np.empty(shape, dtype)
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < length:
            buffer = self._buffers[name] = np.empty(length, np.uint8)
        return buffer[:length].view(dtype).reshape(shape)


scratch = Scratch()
