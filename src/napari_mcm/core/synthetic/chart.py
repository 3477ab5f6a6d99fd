"""The coarse grid on which a slide is planned, and the shapes drawn on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_mcm.core.synthetic.textures import Field, smooth_noise

Mask = NDArray[np.bool_]

FAR = 160.0
"""Depths are clipped at this distance in µm."""


@dataclass(frozen=True)
class Blob:
    """A smooth closed shape, nearly round; lengths in µm.

    Attributes
    ----------
    x, y : float
        Centre.
    radius : float
        Mean radius.
    squash, turn : float
        Ratio of the long axis to the mean radius, and its direction in radians.
    waves : tuple of tuple of float
        Amplitude (fraction of the radius) and phase of the harmonics from 2 on.
    """

    x: float
    y: float
    radius: float
    squash: float
    turn: float
    waves: tuple[tuple[float, float], ...]

    def depth(self, x: Field, y: Field) -> Field:
        """Return how far points lie inside the outline, approximately.

        Parameters
        ----------
        x, y : ndarray of float32
            Points in µm.

        Returns
        -------
        ndarray of float32
            Depth in µm, negative outside, in the shape of `x`.
        """
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        u = ((x - self.x) * cos + (y - self.y) * sin) / self.squash
        v = ((y - self.y) * cos - (x - self.x) * sin) * self.squash
        outline = self.radius * self._shape(np.arctan2(v, u))
        return (outline - np.hypot(u, v)).astype(np.float32)

    def outline(self, angle: Field, inset: float) -> tuple[Field, Field, Field]:
        """Return points inside the outline, and the outward direction there.

        Parameters
        ----------
        angle : ndarray, shape (n,)
            Polar angles in radians.
        inset : float
            Distance of the points from the outline in µm.

        Returns
        -------
        x, y, outward : ndarray, shape (n,)
            Points in µm, and directions in radians.
        """
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        radius = self.radius * self._shape(angle) - inset
        u = radius * np.cos(angle) * self.squash
        v = radius * np.sin(angle) / self.squash
        x, y = u * cos - v * sin, u * sin + v * cos
        return self.x + x, self.y + y, np.arctan2(y, x)

    def _shape(self, angle: Field) -> Field:
        shape = np.ones_like(angle)
        for order, (size, phase) in enumerate(self.waves, start=2):
            shape += size * np.cos(order * angle + phase)
        return shape


def draw_blob(
    x: float, y: float, radius: float, wobble: float, rng: np.random.Generator
) -> Blob:
    """Draw a random blob, whose harmonics decrease with their order.

    Parameters
    ----------
    x, y : float
        Centre in µm.
    radius : float
        Mean radius in µm.
    wobble : float
        Irregularity of the outline, as a fraction of the radius.
    rng : Generator
        Source of the randomness.

    Returns
    -------
    Blob
        The shape.
    """
    waves = tuple(
        (float(rng.normal(0, wobble / order)), float(rng.uniform(0, 2 * math.pi)))
        for order in range(2, 7)
    )
    squash = float(np.clip(rng.normal(1.08, 0.06), 1, 1.3))
    return Blob(x, y, radius, squash, float(rng.uniform(0, math.pi)), waves)


class Chart:
    """A coarse grid over a slide.

    Parameters
    ----------
    size : int
        Side of the slide in level-0 pixels.
    mpp : float
        Microns per level-0 pixel.
    rng : Generator
        Source of the randomness.
    check : callable, optional
        Called before each slow operation; an exception that it raises stops the
        planning.

    Attributes
    ----------
    step : int
        Level-0 pixels between samples, a power of two.
    pitch : float
        Microns between samples, about 4.
    extent : float
        Side of the slide in µm.
    shape : tuple of int
        Rows and columns of the grid.
    rng : Generator
        As given.
    x, y : ndarray of float32, shape (rows, columns)
        Positions of the samples in µm.
    """

    def __init__(
        self,
        size: int,
        mpp: float,
        rng: np.random.Generator,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        # A power of two near 4 µm, so that tiles begin on the grid.
        self.step = 2 ** round(math.log2(4 / mpp))
        self.pitch = self.step * mpp
        self.extent = size * mpp
        side = math.ceil(size / self.step) + 1
        self.shape = (side, side)
        self.rng = rng
        self._check = check
        line = (np.arange(side) * self.pitch).astype(np.float32)
        self.x: Field = np.broadcast_to(line[None, :], self.shape)
        self.y: Field = np.broadcast_to(line[:, None], self.shape)

    def noise(self, length: float) -> Field:
        """Draw noise of unit variance, smooth at one length scale.

        Parameters
        ----------
        length : float
            Smoothing length in µm.

        Returns
        -------
        ndarray of float32, shape (rows, columns)
        """
        self._check()
        return smooth_noise(self.shape, max(length / self.pitch, 0.5), self.rng)

    def empty(self) -> Field:
        """Return a field of depths with nothing in it.

        Returns
        -------
        ndarray of float32, shape (rows, columns)
            ``-FAR`` everywhere.
        """
        return np.full(self.shape, -FAR, np.float32)

    def depth(self, mask: Mask) -> Field:
        """Compute the smoothed signed distance to a mask's border.

        Parameters
        ----------
        mask : ndarray of bool, shape (rows, columns)
            True inside.

        Returns
        -------
        ndarray of float32, shape (rows, columns)
            Depth in µm, negative outside, clipped to ±FAR.
        """
        self._check()
        inside = ndimage.distance_transform_edt(mask)
        outside = ndimage.distance_transform_edt(~mask)
        depth = ((inside - outside) * self.pitch).astype(np.float32)
        if not mask.any() or mask.all():
            depth = np.full(self.shape, FAR if mask.any() else -FAR, np.float32)
        smooth: Field = ndimage.gaussian_filter(depth, 0.8).clip(-FAR, FAR)
        return smooth

    def share(self, values: Field, where: Mask, share: float) -> Mask:
        """Select the highest values within a mask.

        Parameters
        ----------
        values : ndarray of float32, shape (rows, columns)
            Values to rank.
        where : ndarray of bool, shape (rows, columns)
            The mask.
        share : float
            Fraction of the mask to select.

        Returns
        -------
        ndarray of bool, shape (rows, columns)
        """
        if not where.any():
            return where
        return where & (values > np.quantile(values[where], 1 - min(share, 1.0)))

    def stamp(self, field: Field, blob: Blob) -> None:
        """Unite a field of depths with a blob, in place.

        Parameters
        ----------
        field : ndarray of float32, shape (rows, columns)
            Depths in µm; changed.
        blob : Blob
            The shape to add.
        """
        reach = blob.radius * blob.squash * 1.4 + FAR
        rows, cols = self._span(blob.y, reach), self._span(blob.x, reach)
        depth = blob.depth(self.x[rows, cols], self.y[rows, cols])
        np.maximum(field[rows, cols], depth, out=field[rows, cols])

    def pick(self, where: Mask) -> tuple[float, float]:
        """Choose a random point of a mask.

        Parameters
        ----------
        where : ndarray of bool, shape (rows, columns)
            The mask; not empty.

        Returns
        -------
        tuple of float
            x and y in µm.
        """
        inside = np.flatnonzero(where)
        chosen = int(inside[self.rng.integers(len(inside))])
        row, col = divmod(chosen, self.shape[1])
        jitter = self.rng.uniform(-0.5, 0.5, 2)
        return (col + jitter[0]) * self.pitch, (row + jitter[1]) * self.pitch

    def at(self, field: Field, x: Field, y: Field) -> Field:
        """Sample a field at points, at the nearest grid sample.

        Parameters
        ----------
        field : ndarray of float32, shape (rows, columns)
            Any field on the grid.
        x, y : ndarray, shape (n,)
            Points in µm.

        Returns
        -------
        ndarray, shape (n,)
            Values there.
        """
        col = np.rint(x / self.pitch).astype(np.int64).clip(0, self.shape[1] - 1)
        row = np.rint(y / self.pitch).astype(np.int64).clip(0, self.shape[0] - 1)
        values: Field = field[row, col]
        return values

    def scatter(
        self, centres: Mask, apart: float, most: int
    ) -> list[tuple[float, float]]:
        """Choose random points of a mask at a minimum distance.

        Parameters
        ----------
        centres : ndarray of bool, shape (rows, columns)
            The mask.
        apart : float
            Minimum distance in µm.
        most : int
            Largest number of points.

        Returns
        -------
        list of tuple of float
            x and y in µm.
        """
        free = centres.copy()
        points: list[tuple[float, float]] = []
        while len(points) < most and free.any():
            x, y = self.pick(free)
            points.append((x, y))
            rows, cols = self._span(y, apart), self._span(x, apart)
            near = np.hypot(self.x[rows, cols] - x, self.y[rows, cols] - y) < apart
            free[rows, cols] &= ~near
        return points

    def _span(self, centre: float, reach: float) -> slice:
        first = math.floor((centre - reach) / self.pitch)
        last = math.ceil((centre + reach) / self.pitch) + 1
        return slice(max(first, 0), max(last, 0))
