"""The rough place of a section on another: every angle, both sides, every shift.

At about 100 pixels a side, the second section is turned in steps of 3°, as it is and
mirrored. The masked correlation ρ of the textures and the overlap D of the tissue (Dice)
follow for all shifts at once from Fourier transforms (Padfield, "Masked object
registration in the Fourier domain", IEEE TIP 21, 2012); the best values of D · (½ + ρ)
are the candidates that the affine fit refines.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from napari_mcm.core.registration.section import Image, SectionImage

Affine = NDArray[np.float64]
"""Matrix of shape (2, 3): microns in the first section to microns in the second."""

_STEP_DEG = 3.0

_LEAST_OVERLAP = 0.2
"""Fraction of the smaller tissue that must lie on the other; less correlates by accident."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A possible place of the second section.

    Attributes
    ----------
    affine : ndarray of float64, shape (2, 3)
        Microns in the first section to microns in the second; a rigid motion.
    score : float
        Overlap times correlation, as the module's docstring says.
    """

    affine: Affine
    score: float


def search_rigid(
    first: SectionImage, second: SectionImage
) -> Generator[float, None, list[Candidate]]:
    """Find rigid motions under which two sections may correspond.

    Parameters
    ----------
    first, second : SectionImage
        At the same coarse resolution.

    Yields
    ------
    float
        The fraction of angles that are done.

    Returns
    -------
    list of Candidate
        The best shift at each angle, by falling score.
    """
    correlator = _Correlator(first, second)
    angles = np.deg2rad(np.arange(0, 360, _STEP_DEG))
    found = []
    for number, (mirrored, angle) in enumerate(
        (mirrored, angle) for mirrored in (False, True) for angle in angles
    ):
        found.append(correlator.try_motion(_linear(float(angle), mirrored)))
        yield (number + 1) / (2 * len(angles))
    return sorted(found, key=lambda candidate: -candidate.score)


def _linear(angle: float, mirrored: bool) -> NDArray[np.float64]:
    cos, sin = np.cos(angle), np.sin(angle)
    flip = np.diag([-1.0 if mirrored else 1.0, 1.0])
    return np.asarray([[cos, -sin], [sin, cos]]) @ flip


class _Correlator:
    """Correlates the first section with the second under any turn of it."""

    def __init__(self, first: SectionImage, second: SectionImage) -> None:
        self._first, self._second = first, second
        height, width = second.texture.shape
        extent = width * second.mpp[0], height * second.mpp[1]
        self._centre = np.asarray(extent) / 2
        # A square that holds the second section at any angle.
        self._side = int(np.ceil(np.hypot(*extent) / first.mpp[0])) + 1
        self._shape = tuple(
            fft.next_fast_len(n + self._side, real=True) for n in first.texture.shape
        )
        tissue, texture = first.tissue, first.texture
        self._tissue, self._texture, self._square = (
            self._forward(image) for image in (tissue, texture, texture * texture)
        )

    def try_motion(self, linear: NDArray[np.float64]) -> Candidate:
        """Return the best shift of the second section under a turn about its centre."""
        step = np.asarray(self._first.mpp)
        index = np.indices((self._side, self._side))[::-1]
        offset = np.moveaxis(index, 0, -1) - (self._side - 1) / 2  # (n, n, 2) as x, y
        places = self._centre + (offset * step) @ linear.T
        tissue = self._turned(self._second.tissue, places)
        texture = self._turned(self._second.texture, places)
        score = self._scores(tissue, texture)
        row, column = np.unravel_index(int(score.argmax()), score.shape)
        # Shifts beyond half of the period are negative ones.
        shift = [
            int(n) - (size if n >= len_first else 0)
            for n, size, len_first in zip(
                (row, column), self._shape, self._first.texture.shape, strict=True
            )
        ]
        # Pixel p of the first section lies on pixel p - shift of the turned square.
        middle = np.asarray(shift[::-1]) + (self._side - 1) / 2 + 0.5
        constant = self._centre - linear @ (middle * step)
        best = float(score[row, column])
        return Candidate(np.column_stack([linear, constant]), best)

    def _turned(self, image: Image, places: NDArray[np.float64]) -> Image:
        mpp = self._second.mpp
        at = [places[..., 1] / mpp[1] - 0.5, places[..., 0] / mpp[0] - 0.5]
        return np.asarray(ndimage.map_coordinates(image, at, order=1), np.float32)

    def _scores(self, tissue: Image, texture: Image) -> Image:
        t, x, s = (self._forward(i) for i in (tissue, texture, texture * texture))
        overlap = self._product(self._tissue, t)
        cross = self._product(self._texture, x)
        # Textures are 0 on average, so that the variance is the mean of squares.
        spread = self._product(self._square, t) * self._product(self._tissue, s)
        areas = float(self._first.tissue.sum()), float(tissue.sum())
        enough = overlap > _LEAST_OVERLAP * min(areas)
        rho = cross / np.sqrt(np.maximum(spread, 1e-6))
        dice = 2 * overlap / sum(areas)
        return np.where(enough, dice * (0.5 + rho), -1.0).astype(np.float32)

    def _forward(self, image: Image) -> NDArray[np.complex64]:
        return np.asarray(fft.rfft2(np.asarray(image, np.float32), self._shape))

    def _product(self, a: NDArray[np.complex64], b: NDArray[np.complex64]) -> Image:
        return np.asarray(fft.irfft2(a * b.conj(), self._shape), np.float32)
