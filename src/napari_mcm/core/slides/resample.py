"""Resampling by exact area averaging.

Both directions are products with a sparse matrix that holds, for each output pixel, what
part of it each source pixel covers; so the loops run in compiled code, and neighbours of
a row share the vertical product.
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
"""By what part of a pixel floats that should be whole may be off."""


def area_average(
    image: Pixels, box: tuple[float, float, float, float], size: tuple[int, int]
) -> Pixels:
    """Resample a part of an image by averaging over each output pixel's area.

    Every output pixel is the mean of the image over the rectangle that it covers,
    fractions of source pixels counted as fractions, so that no resolution, however odd
    its ratio, shifts, drops or doubles pixels.

    Parameters
    ----------
    image : ndarray, shape (height, width, 3), uint8
        Source pixels.
    box : tuple of float
        Left, top, right and bottom of the part, in source pixels.
    size : tuple of int
        Width and height of the result.

    Returns
    -------
    ndarray, shape (size[1], size[0], 3), uint8
    """
    left, top, right, bottom = box
    return area_averages(image, (top, bottom), [(left, right)], size)[0]


def area_averages(
    image: Pixels, rows: Span, columns: Sequence[Span], size: tuple[int, int]
) -> list[Pixels]:
    """Resample several parts of an image that lie side by side.

    Parameters
    ----------
    image : ndarray, shape (height, width, 3), uint8
        Source pixels.
    rows : tuple of float
        Top and bottom of all parts, in source pixels.
    columns : sequence of tuple of float
        Left and right of each part, in source pixels.
    size : tuple of int
        Width and height of each result.

    Returns
    -------
    list of ndarray, shape (size[1], size[0], 3), uint8
        To the bit what :func:`area_average` gives for each part alone.
    """
    return [_area_average(image, rows, span, size) for span in columns]


def _area_average(image: Pixels, rows: Span, columns: Span, size: Size) -> Pixels:
    first = max(int(np.floor(columns[0] + _HAIR)), 0)
    last = max(int(np.ceil(columns[1] - _HAIR)), first + 1)
    part = image[:, first:last]
    height, width = part.shape[:2]
    flat = scratch.take("flat", (height, width, 3), np.float32)
    np.copyto(flat, part)
    # Rounded, so that neighbours share a matrix and come out alike to the bit.
    low, high = (round(edge - first, 6) for edge in columns)
    down = weights(round(rows[0], 6), round(rows[1], 6), size[1], height, 1)
    across = weights(low, high, size[0], width, 3)
    shrunk = _product(down, flat.reshape(height, width * 3), 0.0, "shrunk")
    # Columns become rows: products run along whatever lies one after the other.
    turned = scratch.take("turned", shrunk.shape[::-1], np.float32)
    np.copyto(turned, shrunk.T)
    # Half a grey level, so that cutting off the fraction rounds.
    result = _product(across, turned, 0.5, "result")
    whole = scratch.take("whole", result.shape, np.uint8)
    np.copyto(whole, result, casting="unsafe")
    return np.ascontiguousarray(whole.T).reshape(size[1], size[0], 3)


def _product(
    matrix: csr_array[Any], dense: NDArray[np.float32], start: float, name: str
) -> NDArray[np.float32]:
    """Multiply, and add to a constant, in memory of this thread."""
    total = scratch.take(name, (matrix.shape[0], dense.shape[1]), np.float32)
    total.fill(start)
    try:
        from scipy.sparse._sparsetools import csr_matvecs
    except ImportError:  # where scipy no longer has it: the same, in new memory
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
    """Tell what part of each output pixel each source pixel makes up.

    Parameters
    ----------
    start, stop : float
        The part of the source that is shrunk, or enlarged, in its pixels.
    count : int
        Output pixels in it.
    length : int
        Source pixels that there are; what lies beyond them repeats the last.
    channels : int
        Values a pixel, which stay apart.

    Returns
    -------
    csr_array of float32, shape (count * channels, length * channels)
        Rows sum to 1.
    """
    from scipy.sparse import csr_array

    edges = np.linspace(start, stop, count + 1)
    low, high = edges[:-1, None], edges[1:, None]
    first = np.floor(low + _HAIR)
    taps = max(int((np.ceil(high - _HAIR) - first).max()), 1)
    places = first + np.arange(taps)
    covered = np.minimum(high, places + 1) - np.maximum(low, places)
    parts = np.clip(covered, 0, None) / (high - low)
    channel = np.arange(channels)[:, None]
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


_LARGEST = 2**24


class Scratch(threading.local):
    """Buffers of one thread, by name; what is in them is gone at the next use."""

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[Any]] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Give an array whose content is whatever was left there.

        Parameters
        ----------
        name : str
            What it is for; two arrays in use at a time need two names.
        shape, dtype
            As of :func:`numpy.empty`. Large ones are made anew, and not kept.
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
