"""Collagen: noise drawn out along a field of directions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_mcm.core.samples.chart import Chart
from napari_mcm.core.samples.noise import Field

STAGES = (1, 2, 4, 8, 16)
REACH = sum(STAGES) + len(STAGES)


def draw_out(noise: Field, cos: Field, sin: Field) -> Field:
    """Smear noise along streamlines, as line integral convolution does.

    Each stage averages two copies moved along the direction, twice as far as the stage
    before: five stages sum 32 samples of a bent line at the cost of ten.

    Parameters
    ----------
    noise : Field
        Noise of unit variance; pixels within `REACH` of its border become invalid.
    cos, sin : Field
        Unit vectors along x and y, of the same shape.

    Returns
    -------
    Field
        Fibres, of roughly unit variance.
    """
    width = noise.shape[1]
    here = np.arange(noise.size, dtype=np.int32).reshape(noise.shape)
    fibres = noise.ravel()
    last = noise.size - 1
    for length in STAGES:
        move = _offsets(cos, sin, length, width)
        ahead = np.clip(here + move, 0, last)
        behind = np.clip(here - move, 0, last)
        fibres = (fibres.take(ahead) + fibres.take(behind)).ravel()
        fibres *= np.float32(0.5)
    return fibres.reshape(noise.shape)


def _offsets(cos: Field, sin: Field, length: int, width: int) -> NDArray[np.int32]:
    dy = np.rint(sin * np.float32(length)).astype(np.int32)
    dx = np.rint(cos * np.float32(length)).astype(np.int32)
    offsets: NDArray[np.int32] = dy * np.int32(width) + dx
    return offsets


def lay_fibres(chart: Chart, guide: Field) -> tuple[Field, Field]:
    """Choose the direction of collagen everywhere: wavy, and around structures.

    Parameters
    ----------
    chart : Chart
        The grid, and the randomness.
    guide : Field
        Signed depth in µm inside whatever the fibres run around.

    Returns
    -------
    cos2, sin2 : Field
        Unit vectors of twice the angle: fibres have no head, so only these can be
        interpolated.
    """
    # Bands that swing slowly, with crimp on a shorter wave.
    swing = np.pi * (0.35 * chart.noise(150) + 0.13 * chart.noise(28))
    swing += chart.rng.uniform(0, np.pi)
    dy, dx = np.gradient(ndimage.gaussian_filter(guide, 2.0))
    around = np.arctan2(dx, -dy)
    pull = np.exp(-np.square(guide / 38)) * np.clip(np.hypot(dy, dx) * 0.4, 0, 1)
    cos2 = pull * np.cos(2 * around) + (1 - pull) * np.cos(2 * swing)
    sin2 = pull * np.sin(2 * around) + (1 - pull) * np.sin(2 * swing)
    length = np.maximum(np.hypot(cos2, sin2), 1e-3)
    return (cos2 / length).astype(np.float32), (sin2 / length).astype(np.float32)
