"""Resampling by exact area averaging."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.slides.tiles import Pixels


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
    places, weights = _taps(np.linspace(top, bottom, size[1] + 1), image.shape[0])
    rows = np.zeros((size[1], *image.shape[1:]), np.float32)
    part = np.empty_like(rows)
    for place, weight in zip(places, weights, strict=True):
        np.multiply(image[place], weight[:, None, None], out=part)
        rows += part
    places, weights = _taps(np.linspace(left, right, size[0] + 1), image.shape[1])
    # Half a grey level, so that cutting off the fraction rounds.
    result = np.full((size[1], size[0], 3), 0.5, np.float32)
    part = np.empty_like(result)
    for place, weight in zip(places, weights, strict=True):
        # "clip" spares numpy a copy; there is nothing to clip.
        np.take(rows, place, axis=1, out=part, mode="clip")
        part *= weight[:, None]
        result += part
    return np.clip(result, 0, 255, out=result).astype(np.uint8)


def _taps(
    edges: NDArray[np.float64], count: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Tell which source pixels lie between each two neighbouring edges.

    Returns
    -------
    places : ndarray of int, shape (T, len(edges) - 1)
        The T source pixels that an output pixel may cover.
    weights : ndarray of float32, shape (T, len(edges) - 1)
        What part of the output pixel each of them makes up; together 1.
    """
    low, high = edges[:-1], edges[1:]
    first = np.clip(np.floor(low).astype(np.intp), 0, count - 1)
    most = max(int((np.ceil(high).astype(np.intp) - first).max()), 1)
    places = first + np.arange(most)[:, None]
    covered = np.minimum(high, places + 1) - np.maximum(low, places)
    weights = np.clip(covered, 0, None) / (high - low)
    return np.minimum(places, count - 1), weights.astype(np.float32)
