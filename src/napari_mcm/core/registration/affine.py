"""The affine fit: six numbers that make two textures alike, by Gauss-Newton steps.

At each step the second texture is read at A·x, and

    Σ w(x) (T₁(x) - T₂(A x) - ∇T₂(A x) · δA [x, 1])²

is minimised over δA, with the product of both tissue masks as the weight w (Lucas and
Kanade, IJCAI 1981). A step that lowers the correlation is halved, then dropped.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_mcm.core.registration.rough import Affine
from napari_mcm.core.registration.section import SectionImage, correlate, sample

_STEPS = 40

_SETTLED = 0.02
"""Largest movement of a corner, in pixels, at which the fit has ended."""


def apply_affine(affine: Affine, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map places by an affine transform.

    Parameters
    ----------
    affine : ndarray of float64, shape (2, 3)
        The transform.
    places : ndarray of float64, shape (..., 2)
        x and y.

    Returns
    -------
    ndarray of float64, shape (..., 2)
        x and y.
    """
    return np.asarray(places @ affine[:, :2].T + affine[:, 2])


def fit_affine(
    first: SectionImage, second: SectionImage, start: Affine, blur: float
) -> Generator[None, None, tuple[Affine, float]]:
    """Refine an affine transform between two sections.

    Parameters
    ----------
    first, second : SectionImage
        At the same resolution.
    start : ndarray of float64, shape (2, 3)
        Transform to start from: microns in the first to microns in the second.
    blur : float
        Standard deviation in pixels of the blur of both textures; a wider one bridges
        larger errors.

    Yields
    ------
    None
        After each step.

    Returns
    -------
    tuple of ndarray of float64, shape (2, 3), and float
        The transform, and its score: the overlap of the tissue (Dice) times ½ plus the
        correlation.
    """
    fit = _Fit(first, second, blur)
    affine, best = start, fit.score(start)
    for _ in range(_STEPS):
        step = fit.step(affine)
        yield
        for share in (1.0, 0.5, 0.25):
            trial = affine + share * step
            value = fit.score(trial)
            if value > best:
                break
        else:
            break
        moved = np.abs(apply_affine(trial, fit.at) - apply_affine(affine, fit.at)).max()
        affine, best = trial, value
        if moved < _SETTLED * first.mpp[0]:
            break
    return affine, best


class _Fit:
    """Textures of two sections, and how well an affine transform lays them together."""

    def __init__(self, first: SectionImage, second: SectionImage, blur: float) -> None:
        self._second = second
        self._moving = ndimage.gaussian_filter(second.texture, blur)
        # Central differences; in microns, as the transform is.
        self._slopes = [
            np.gradient(self._moving, second.mpp[1 - axis], axis=axis)
            for axis in (1, 0)
        ]
        inside = first.tissue > 0
        self.at = first.places_um()[inside]  # (n, 2)
        self._here = ndimage.gaussian_filter(first.texture, blur)[inside]
        self._tissue = first.tissue[inside]
        pixel = first.mpp[0] * first.mpp[1]
        other = float(second.tissue.sum()) * second.mpp[0] * second.mpp[1]
        self._areas = float(first.tissue.sum()) + other / pixel
        # Places about their centre, in units of their spread: well-conditioned equations.
        self._centre = self.at.mean(axis=0)
        self._unit = max(float(self.at.std()), 1.0)

    def score(self, affine: Affine) -> float:
        moved = apply_affine(affine, self.at)
        mpp = self._second.mpp
        weight = self._tissue * sample(self._second.tissue, mpp, moved)
        there = sample(self._moving, mpp, moved)
        dice = 2 * float(weight.sum()) / self._areas
        return dice * (0.5 + correlate(self._here, there, weight))

    def step(self, affine: Affine) -> Affine:
        """Solve the linearised least-squares problem for a change of the transform."""
        moved = apply_affine(affine, self.at)
        mpp = self._second.mpp
        weight = self._tissue * sample(self._second.tissue, mpp, moved)
        there = sample(self._moving, mpp, moved)
        gap = (self._here - there).astype(np.float64)
        local = (self.at - self._centre) / self._unit
        ones = np.column_stack([local, np.ones(len(local))])  # (n, 3)
        # Columns: slope along x times (x, y, 1), then slope along y times (x, y, 1).
        columns = np.hstack(
            [sample(slope, mpp, moved)[:, None] * ones for slope in self._slopes]
        )
        left = (columns * weight[:, None]).T @ columns
        right = (columns * weight[:, None]).T @ gap
        left += np.eye(6) * 1e-6 * max(float(np.trace(left)), 1e-12)
        change = np.linalg.solve(left, right).reshape(2, 3)
        # Back from centred units: A (x - c) / u + b = (A / u) x + (b - A c / u).
        linear = change[:, :2] / self._unit
        return np.column_stack([linear, change[:, 2] - linear @ self._centre])
