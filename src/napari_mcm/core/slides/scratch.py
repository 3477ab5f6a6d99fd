"""Memory that a thread uses again and again.

Arrays of a megabyte that come and go are handed back to the operating system each time,
and finding their pages again takes longer than what is computed in them.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

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
